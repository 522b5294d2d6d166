package shipper_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// statusLog collects what a service manager receives.
type statusLog struct {
	mu  sync.Mutex
	all []string
}

func (t *statusLog) add(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, text)
}

func (t *statusLog) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) == 0 {
		return ""
	}
	return t.all[len(t.all)-1]
}

// startWithStatus runs a daemon, and records its status.
func (l *lab) startWithStatus() (s *shipper.Shipper, says *statusLog, stop func() error) {
	l.Helper()
	s, says = l.openShipper(), &statusLog{}
	s.Status = says.add
	s.ScanOnly()
	return s, says, l.start(s)
}

// TestAnIdleDaemonSaysWhetherTheReceiverIsThere: nothing waits, and still the status is
// current. With a wrong port it says so within a minute, later within minutes.
func TestAnIdleDaemonSaysWhetherTheReceiverIsThere(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.receiver.down = fmt.Errorf("dial: %w", unix.ECONNREFUSED)
		_, says, stop := l.startWithStatus()
		time.Sleep(time.Minute)
		if got := says.last(); !strings.Contains(got, "receiver has not accepted uploads since 20") || !strings.Contains(got, "connection refused") {
			l.Errorf("with a wrong port the status is %q, want uploads not accepted, and why", got)
		}
		if loud := l.logs.linesContaining("receiver unavailable"); len(loud) != 1 {
			l.Errorf("the log says %q", loud)
		}
		l.receiver.update(func() { l.receiver.down = nil })
		time.Sleep(5 * time.Minute)
		if got := says.last(); !strings.Contains(got, "receiver answers, last at 20") {
			l.Errorf("with the right port the status is %q, want that the receiver answers", got)
		}
		_, _, before := l.receiver.counts()
		time.Sleep(2 * time.Hour)
		_, _, after := l.receiver.counts()
		if n := after - before; n < 120/8 || n > 120/5+1 {
			l.Errorf("an idle daemon asked %d times in two hours", n)
		}
		l.receiver.update(func() { l.receiver.down = wire.Refuse(wire.Forbidden, "disabled") })
		time.Sleep(8 * time.Minute)
		if got := says.last(); !strings.Contains(got, "has not accepted uploads since 20") || !strings.Contains(got, "disabled") {
			l.Errorf("disabled, the status is %q, want uploads not accepted, and why", got)
		}
		fixture.Must(l, stop())
	})
}

// TestAnIdleDaemonNoticesAnotherStore before anything is sent to it.
func TestAnIdleDaemonNoticesAnotherStore(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		_, says, stop := l.startWithStatus()
		time.Sleep(time.Minute)
		back := l.receiver.swapStore(wire.Store{ID: "STORE2"})
		time.Sleep(8 * time.Minute)
		if got := says.last(); !strings.Contains(got, "another store") {
			l.Errorf("the status is %q, want %q in it", got, "another store")
		}
		if loud := l.logs.linesContaining(" ERROR "); len(loud) != 1 || !strings.Contains(loud[0], "another store") {
			l.Errorf("the log says %q", loud)
		}
		back()
		time.Sleep(5 * time.Minute)
		if got := says.last(); !strings.Contains(got, "receiver answers") {
			l.Errorf("after the return the status is %q, want that the receiver answers", got)
		}
		fixture.Must(l, stop())
	})
}

// TestBeforeTheFirstAnswerTheReceiverIsBeingAsked: the status claims nothing that is not known.
func TestBeforeTheFirstAnswerTheReceiverIsBeingAsked(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.receiver.ping = func() error { time.Sleep(20 * time.Second); return nil }
		_, says, stop := l.startWithStatus()
		time.Sleep(10 * time.Second)
		if got := says.last(); !strings.Contains(got, "; asking the receiver") || strings.Contains(got, "answers") {
			l.Errorf("before the first answer the status is %q, want that it asks the receiver", got)
		}
		if st := l.inspectStatus(); st.ReceiverState != backlog.ReceiverAsked {
			l.Errorf("status says %q", st.ReceiverState)
		}
		time.Sleep(15 * time.Second)
		if got := says.last(); !strings.Contains(got, "receiver answers, last at") {
			l.Errorf("after it the status is %q, want that the receiver answers", got)
		}
		if st := l.inspectStatus(); st.ReceiverState != backlog.ReceiverAnswers || time.Since(st.AnsweredAt) > 10*time.Second {
			l.Errorf("status says %q, %v", st.ReceiverState, st.AnsweredAt)
		}
		fixture.Must(l, stop())
		if st := l.inspectStatus(); st.ReceiverState != backlog.ReceiverUnknown || st.AnsweredAt.IsZero() {
			l.Errorf("without a shipper status says %q, %v", st.ReceiverState, st.AnsweredAt)
		}
	})
}

// TestStatusDoesNotTrustAnOldReport: a shipper that hangs still holds the lock.
func TestStatusDoesNotTrustAnOldReport(t *testing.T) {
	inBubble(t, func(l *lab) {
		_, stop := l.startDaemon()
		time.Sleep(time.Minute)
		fixture.Must(l, stop())
		s := l.openShipper() // has the lock, and does not run
		defer s.Close()
		if st := l.inspectStatus(); st.ReceiverState != backlog.ReceiverAnswers {
			l.Errorf("a minute later: %q", st.ReceiverState)
		}
		time.Sleep(time.Hour)
		if st := l.inspectStatus(); st.ReceiverState != backlog.ReceiverUnknown {
			l.Errorf("an hour later: %q", st.ReceiverState)
		}
	})
}

// TestStatusSaysHowMuchWaits: the bytes of what is packed and not held.
func TestStatusSaysHowMuchWaits(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("held-1")
		l.refuseOnly(wire.Refuse(wire.Conflict, ""), "held-1")
		_, says, stop := l.startWithStatus()
		time.Sleep(time.Minute)
		l.receiver.update(func() { l.receiver.down = unix.ECONNREFUSED })
		l.finishEpisodes("run-1", "run-2")
		time.Sleep(2 * time.Minute)
		st := l.inspectStatus()
		if st.Sealed != 2 || st.SealedBytes == 0 {
			l.Errorf("status shows %d packed with %d bytes", st.Sealed, st.SealedBytes)
		}
		if want := fmt.Sprintf("1 held; %d B wait in the outbox; receiver has not accepted uploads since", st.SealedBytes); !strings.Contains(says.last(), want) {
			l.Errorf("the status is %q, want %q", says.last(), want)
		}
		fixture.Must(l, stop())
	})
}

// TestAPassWithNothingToShipSendsNothing.
func TestAPassWithNothingToShipSendsNothing(t *testing.T) {
	l := newLab(t)
	l.receiver.down = unix.ECONNREFUSED
	l.wantOnce(shipper.Tally{})
	if _, _, pings := l.receiver.counts(); pings != 0 {
		t.Errorf("%d pings", pings)
	}
	if fixture.Exists(l.path("outbox", ".status.json")) {
		t.Error("a pass in which nothing was to be said has left a report")
	}
}

// TestWakeAsksAtOnce, however far away the next ping is, and waiting episodes are sent.
func TestWakeAsksAtOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 5)...)
		l.receiver.down = wire.Refuse(wire.Forbidden, "expired")
		s, stop := l.startDaemon()
		time.Sleep(time.Hour)
		l.receiver.update(func() { l.receiver.down = nil })
		s.RequestPing()
		time.Sleep(time.Second)
		if n := s.Tally().Shipped; n != 5 {
			l.Errorf("a second later %d of 5 are sent\n%s", n, l.logs)
		}
		fixture.Must(l, stop())
	})
	t.Run("while a ping is on its way", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.receiver.ping = func() error { time.Sleep(20 * time.Second); return unix.ECONNRESET }
			s, says, stop := l.startWithStatus()
			time.Sleep(10 * time.Second)
			l.receiver.update(func() { l.receiver.ping = nil })
			s.RequestPing()
			time.Sleep(11 * time.Second)
			if got := says.last(); !strings.Contains(got, "receiver answers") {
				l.Errorf("the status is %q, want that the receiver answers\n%s", got, l.logs)
			}
			fixture.Must(l, stop())
		})
	})
}

// TestRenewedCredentialsAreUsedAtOnce: if the receiver refuses them, the files on disk are read
// again, and the hint says what was found.
func TestRenewedCredentialsAreUsedAtOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 5)...)
		expired := wire.Refuse(wire.Forbidden, "expired")
		l.receiver.down = expired
		s := l.openShipper()
		s.ScanOnly()
		var onDisk atomic.Bool
		var asked atomic.Int32
		s.ReloadCredentials = func(refusal error) (bool, string) {
			asked.Add(1)
			if refusal != error(expired) {
				l.Errorf("asked for %v", refusal)
			}
			if onDisk.Load() {
				l.receiver.update(func() { l.receiver.down = nil })
			}
			return onDisk.Load(), "none newer is on the disk"
		}
		stop := l.start(s)
		time.Sleep(time.Minute)
		if asked.Load() == 0 || len(l.logs.linesContaining("none newer is on the disk")) != 1 {
			l.Errorf("asked %d times\n%s", asked.Load(), l.logs)
		}
		if st := l.inspectStatus(); st.Receiver == nil || st.Receiver.Hint != "none newer is on the disk" {
			l.Errorf("status shows %+v", st.Receiver)
		}
		time.Sleep(time.Hour)
		onDisk.Store(true)
		time.Sleep(2*time.Minute + time.Second)
		if n := s.Tally().Shipped; n != 5 {
			l.Errorf("%d of 5 are sent\n%s", n, l.logs)
		}
		fixture.Must(l, stop())
	})
	t.Run("before anybody noticed", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes(numberedNames("run", 5)...)
			s := l.openShipper()
			s.ScanOnly()
			s.ReloadCredentials = func(error) (bool, string) {
				l.receiver.update(func() { l.receiver.down = nil })
				return true, ""
			}
			stop := l.start(s)
			time.Sleep(time.Minute)
			l.receiver.update(func() { l.receiver.down = wire.Refuse(wire.Forbidden, "expired") })
			l.finishEpisodes("later") // alone: no other upload shows that the outage is over
			for s.Tally().Scanned < 6 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			if n := s.Tally().Shipped; n != 6 || len(l.logs.linesContaining("receiver unavailable")) != 0 {
				l.Errorf("a second later %d of 6 are sent\n%s", n, l.logs)
			}
			fixture.Must(l, stop())
		})
	})
}

// TestAPingFromBeforeDoesNotMakeUpForAFailure: the receiver asked that upload to retry later.
func TestAPingFromBeforeDoesNotMakeUpForAFailure(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		draining := wire.Refuse(wire.Internal, "")
		draining.RetryAfter = 10 * time.Minute
		l.receiver.ping = func() error { time.Sleep(20 * time.Second); return nil }
		l.receiver.before = func(context.Context, wire.Upload) error { return draining }
		_, stop := l.startDaemon()
		time.Sleep(time.Minute)
		l.finishEpisodes("run-2")
		time.Sleep(8 * time.Minute)
		// In a few runs the upload begins before the first ping, which then comes after that wait.
		if _, puts, pings := l.receiver.counts(); puts != 1 || pings > 1 {
			l.Errorf("%d uploads and %d pings before it was time", puts, pings)
		}
		fixture.Must(l, stop())
	})
}

// TestAPassNotesThatTheReceiverAnswered for a later 'shipper status'.
func TestAPassNotesThatTheReceiverAnswered(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	first := l.inspectStatus().AnsweredAt
	if time.Since(first) > time.Minute {
		t.Errorf("answered %v", first)
	}
	l.wantOnce(shipper.Tally{})
	if st := l.inspectStatus(); !st.AnsweredAt.Equal(first) || st.ReceiverState != backlog.ReceiverUnknown {
		t.Errorf("a pass with nothing to send has noted %v, %q", st.AnsweredAt, st.ReceiverState)
	}
}

// failUploads makes uploads fail and pings succeed, so that each episode fails often.
func (l *lab) failUploads(fault error) (end func()) {
	l.receiver.update(func() { l.receiver.before = func(context.Context, wire.Upload) error { return fault } })
	return func() { l.receiver.update(func() { l.receiver.before = nil; l.receiver.ping = nil }) }
}

// TestWhatWaitsIsSentWhenAnOutageEnds at once, before the backoffs end.
func TestWhatWaitsIsSentWhenAnOutageEnds(t *testing.T) {
	t.Run("the receiver was away", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes(numberedNames("run", 5)...)
			end := l.failUploads(io.ErrUnexpectedEOF)
			s, stop := l.startDaemon()
			time.Sleep(time.Hour) // each has reached a backoff of half an hour
			l.receiver.update(func() { l.receiver.down = unix.ECONNREFUSED; l.receiver.before = nil })
			s.RequestPing()
			time.Sleep(time.Second) // no backoff ends within such a short outage
			end()
			l.receiver.update(func() { l.receiver.down = nil })
			_, _, pings := l.receiver.counts()
			back := time.Now()
			for s.Tally().Shipped < 5 && time.Since(back) < time.Hour {
				time.Sleep(100 * time.Millisecond)
			}
			_, _, after := l.receiver.counts()
			asked := l.receiver.pings[pings]
			if took := time.Since(asked); took > time.Second || after != pings+1 {
				l.Errorf("%d of 5 were sent %v and %d pings after the receiver was back\n%s", s.Tally().Shipped, took, after-pings, l.logs)
			}
			fixture.Must(l, stop())
		})
	})
	t.Run("uploads got lost and pings did not", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes(numberedNames("run", 5)...)
			end := l.failUploads(io.ErrUnexpectedEOF)
			s, stop := l.startDaemon()
			time.Sleep(10 * time.Hour) // each has earned waits of an hour
			end()
			back := time.Now()
			for s.Tally().Shipped < 1 && time.Since(back) < 2*time.Hour {
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(back); took > 5*time.Minute+time.Second {
				l.Errorf("the first was tried after %v", took)
			}
			time.Sleep(time.Second)
			if n := s.Tally().Shipped; n != 5 {
				l.Errorf("one came through, and a second later %d of 5 are sent\n%s", n, l.logs)
			}
			fixture.Must(l, stop())
		})
	})
	t.Run("no room for an archive", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.finishEpisodes(numberedNames("run", 5)...)
			end := l.failUploads(wire.Refuse(wire.Full, "no room for an archive of this size"))
			l.receiver.update(func() { l.receiver.free = 10 })
			s, stop := l.startDaemon()
			time.Sleep(10 * time.Hour)
			end()
			l.receiver.update(func() { l.receiver.free = 1 << 30 })
			time.Sleep(2 * time.Minute)
			if n := s.Tally().Shipped; n != 5 {
				l.Errorf("two minutes after there was room %d of 5 are sent\n%s", n, l.logs)
			}
			fixture.Must(l, stop())
		})
	})
}

// TestWakeSendsWhatFailedOnTheWay, though pings were answered all the time.
func TestWakeSendsWhatFailedOnTheWay(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 5)...)
		end := l.failUploads(io.ErrUnexpectedEOF)
		s, stop := l.startDaemon()
		time.Sleep(10 * time.Hour)
		end()
		s.RequestPing()
		time.Sleep(time.Second)
		if n := s.Tally().Shipped; n != 5 {
			l.Errorf("a second later %d of 5 are sent\n%s", n, l.logs)
		}
		fixture.Must(l, stop())
	})
}

// TestRetryAfterIsNotHurried: the receiver's Retry-After also holds after an outage.
func TestRetryAfterIsNotHurried(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run-1")
		noRoom := wire.Refuse(wire.Full, "no room for an archive of this size")
		noRoom.RetryAfter = 20 * time.Minute
		end := l.failUploads(noRoom)
		l.receiver.update(func() { l.receiver.free = 10 })
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		end()
		l.receiver.update(func() { l.receiver.free = 1 << 30 })
		s.RequestPing()
		time.Sleep(18 * time.Minute)
		if _, puts, _ := l.receiver.counts(); puts != 1 {
			l.Errorf("%d uploads before it was time", puts)
		}
		time.Sleep(2 * time.Minute)
		if n := s.Tally().Shipped; n != 1 {
			l.Errorf("it is not sent when it is time\n%s", l.logs)
		}
		fixture.Must(l, stop())
	})
}

// TestAnEpisodesOwnFaultKeepsItsWait: other deliveries shorten its backoff only once, and the
// end of an outage does not shorten it.
func TestAnEpisodesOwnFaultKeepsItsWait(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("poison")
		l.refuseOnly(wire.Refuse(wire.Internal, "no such table"), "poison")
		_, stop := l.startDaemon()
		for hour := range 6 {
			for i := range 60 {
				l.finishEpisodes(numberedNames(fmt.Sprintf("run-%d-%d", hour, i), 1)...)
				time.Sleep(time.Minute)
			}
			l.receiver.update(func() { l.receiver.down = unix.ECONNREFUSED })
			time.Sleep(10 * time.Minute)
			l.receiver.update(func() { l.receiver.down = nil })
			time.Sleep(3 * time.Minute)
		}
		if n := l.receiver.attemptsOf("poison"); n > 45 {
			l.Errorf("the poison was sent %d times in seven hours", n)
		}
		fixture.Must(l, stop())
	})
}

// TestPackingResumesWhenThereIsSpace: with the next check of the space, which is seconds away,
// and not with the next scan.
func TestPackingResumesWhenThereIsSpace(t *testing.T) {
	inBubble(t, func(l *lab) {
		free := l.limitDisk()
		l.cfg.ScanInterval = config.Duration(time.Hour)
		l.cfg.MinFree = 4 << 20
		l.finishEpisodes(numberedNames("run", 5)...)
		s, stop := l.startDaemon()
		time.Sleep(10 * time.Minute)
		if n := s.Tally().Shipped; n != 0 {
			l.Errorf("%d were packed below the floor", n)
		}
		free()
		time.Sleep(10 * time.Second)
		if n := s.Tally().Shipped; n != 5 {
			l.Errorf("ten seconds later %d of 5 are sent\n%s", n, l.logs)
		}
		fixture.Must(l, stop())
	})
}
