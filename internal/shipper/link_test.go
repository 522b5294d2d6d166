package shipper_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// inBubble runs a test in virtual time. A loop that spins would stop virtual time, so the test
// has a limit in real time. On a busy machine a correct test may take a minute.
func inBubble(t *testing.T, f func(l *lab)) {
	t.Helper()
	defer time.AfterFunc(5*time.Minute, func() { panic("virtual time stands still: something spins") }).Stop()
	synctest.Test(t, func(t *testing.T) { f(newLab(t)) })
}

// One bad episode must not delay the others, however long it fails.
func TestAFailingEpisodeDelaysNoOther(t *testing.T) {
	for what, fail := range map[string]func(ctx context.Context) error{
		"refused at once":       func(context.Context) error { return wire.Refuse(wire.Internal, "") },
		"conflict":              func(context.Context) error { return wire.Refuse(wire.Conflict, "") },
		"the connection breaks": func(context.Context) error { return io.ErrUnexpectedEOF },
		"it hangs": func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Minute):
				return os.ErrDeadlineExceeded
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.finishEpisodes("a-poison")
				l.finishEpisodes(numberedNames("good", 50)...)
				start := time.Now()
				l.receiver.before = func(ctx context.Context, u wire.Upload) error {
					if u.Key.Name == "a-poison" {
						return fail(ctx)
					}
					time.Sleep(100 * time.Millisecond)
					return nil
				}
				s, stop := l.startDaemon()
				for s.Tally().Shipped < 50 && time.Since(start) < time.Hour {
					time.Sleep(100 * time.Millisecond)
				}
				// 50 uploads of 100 ms by three senders take two seconds. The bad episode may
				// cost a ping or a scan, but not one timeout per episode.
				if took := time.Since(start); took > 40*time.Second {
					l.Errorf("the good ones took %v\n%s", took, l.logs)
				}
				time.Sleep(6 * time.Hour)
				// 10 s doubling to an hour, at a random time within each step.
				if n := l.receiver.attemptsOf("a-poison"); n > 50 {
					l.Errorf("the poison was sent %d times in six hours", n)
				}
				fixture.Must(l, stop())
				l.checkNothingLost()
			})
		})
	}
}

// A fault of the receiver or the path costs one ping per step, however many episodes wait, and
// two lines in the log. Packing continues meanwhile.
func TestADeadReceiverCostsOnePingAStep(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.receiver.down = fmt.Errorf("dial: %w", unix.ECONNREFUSED)
		l.cfg.ScanInterval = config.Duration(10 * time.Minute) // a scan of this many takes real time
		waiting := backlog.PageSize + 200                      // more than one page
		for _, n := range numberedNames("sealed", waiting) {
			fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o750))
			fixture.Must(l, os.WriteFile(l.path("outbox", string(n)+".tar.zst"), nil, 0o640))
		}
		l.finishEpisodes(numberedNames("late", 100)...)
		s, stop := l.startDaemon()
		time.Sleep(time.Hour)
		_, puts, pings := l.receiver.counts()
		// Steps of up to 10, 20, 40, 80, 120, 120... seconds, and at least 5: one per minute.
		if pings < 35 || pings > 110 {
			l.Errorf("%d pings in an hour", pings)
		}
		if puts > l.cfg.Senders {
			l.Errorf("%d uploads to a dead receiver", puts)
		}
		l.wantPingBackoff()
		if packed := len(l.logs.linesContaining(" INFO packed ")); packed != 100 {
			l.Errorf("%d of 100 were packed while the receiver was down", packed)
		}
		if loud := l.logs.warnings(); len(loud) != 1 {
			l.Errorf("an hour without a receiver says %q", loud)
		}
		l.receiver.update(func() { l.receiver.down = nil })
		back := time.Now()
		for s.Tally().Shipped < waiting+100 && time.Since(back) < time.Hour {
			time.Sleep(time.Second)
		}
		// The next ping is at most two minutes away.
		if took := time.Since(back); took > 3*time.Minute {
			l.Errorf("it took %v to deliver %d\n%s", took, s.Tally().Shipped, l.logs)
		}
		fixture.Must(l, stop())
		if n := len(l.logs.linesContaining("receiver is back")); n != 1 {
			l.Errorf("%d lines say that the receiver is back", n)
		}
		if loud := l.logs.warnings(); len(loud) != 1 {
			l.Errorf("in the end the log has %q", loud)
		}
		l.wantFiles("outbox")
		l.checkNothingLost()
	})
}

// wantPingBackoff checks that the intervals of pings double, up to two minutes.
func (l *lab) wantPingBackoff() {
	l.Helper()
	const least = 5 * time.Second
	most := 2 * least
	for i := 1; i < len(l.receiver.pings); i++ {
		gap := l.receiver.pings[i].Sub(l.receiver.pings[i-1])
		if gap < least || gap > most+time.Second {
			l.Errorf("ping %d came %v after the one before, want %v to %v", i, gap, least, most)
		}
		most = min(2*most, 2*time.Minute)
	}
}

// These errors concern this host, the path or the receiver: no episode gets a mark that an
// operator would have to remove.
func TestAFaultOfThePathMarksNoEpisode(t *testing.T) {
	for what, fault := range map[string]error{
		"disk full":      wire.Refuse(wire.Full, ""),
		"token":          wire.Refuse(wire.TokenRefused, ""),
		"certificate":    wire.Refuse(wire.Forbidden, ""),
		"another host":   wire.Refuse(wire.HostMismatch, ""),
		"busy":           wire.Refuse(wire.Busy, ""),
		"draining":       wire.Refuse(wire.Draining, ""),
		"a proxy":        &wire.UnexpectedResponseError{Status: 200},
		"a captive page": &wire.UnexpectedResponseError{Status: 302},
		"refused":        unix.ECONNREFUSED,
		"timeout":        os.ErrDeadlineExceeded,
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.finishEpisodes(numberedNames("run", 10)...)
				l.receiver.down = fault
				s, stop := l.startDaemon()
				time.Sleep(30 * time.Minute)
				if held := l.held(); len(held) != 0 {
					l.Errorf("held: %+v", held)
				}
				if loud := l.logs.warnings(); len(loud) != 1 {
					l.Errorf("half an hour of it logged %q, want one line", loud)
				}
				l.receiver.update(func() { l.receiver.down = nil })
				time.Sleep(3 * time.Minute)
				if n := s.Tally().Shipped; n != 10 {
					l.Errorf("%d of 10 were delivered after it ended\n%s", n, l.logs)
				}
				fixture.Must(l, stop())
				l.checkNothingLost()
			})
		})
	}
}

// A path that passes pings and no upload (a proxy's limit, an MTU) must be logged: no episode
// is ever delivered.
func TestAWayThatTakesOnlyPingsIsReported(t *testing.T) {
	for what, fault := range map[string]error{
		"a proxy's 413": &wire.UnexpectedResponseError{Status: 413},
		"broken":        io.ErrUnexpectedEOF,
		"full for this": wire.Refuse(wire.Full, "no room for an archive of this size"),
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.finishEpisodes(numberedNames("run", 10)...)
				l.receiver.before = func(context.Context, wire.Upload) error { return fault }
				_, stop := l.startDaemon()
				time.Sleep(2 * time.Hour)
				loud := l.logs.warnings()
				if len(loud) == 0 {
					l.Errorf("nothing was delivered for two hours, and the log says nothing")
				}
				if len(loud) > 150 {
					l.Errorf("%d lines in two hours", len(loud))
				}
				if _, puts, pings := l.receiver.counts(); puts > 200 || pings > 250 {
					l.Errorf("%d uploads and %d pings in two hours", puts, pings)
				}
				fixture.Must(l, stop())
			})
		})
	}
}

func TestRetryAfterIsWaitedFor(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 5)...)
		busy := wire.Refuse(wire.Busy, "")
		busy.RetryAfter = 10 * time.Minute
		start := time.Now()
		var first atomic.Int64 // when it was sent again, after the start
		l.receiver.before = func(context.Context, wire.Upload) error {
			since := time.Since(start)
			if since < busy.RetryAfter {
				return busy
			}
			first.CompareAndSwap(0, int64(since))
			return nil
		}
		s, stop := l.startDaemon()
		time.Sleep(20 * time.Minute)
		_, puts, _ := l.receiver.counts()
		pings := 0 // except the one at the start
		for _, at := range l.receiver.pings {
			if since := at.Sub(start); since > 0 && since < busy.RetryAfter {
				pings++
			}
		}
		again := time.Duration(first.Load())
		if again < busy.RetryAfter || again > 12*time.Minute || pings != 0 || puts > 5+l.cfg.Senders {
			l.Errorf("sent again after %v, with %d uploads and %d pings\n%s", again, puts, pings, l.logs)
		}
		if s.Tally().Shipped != 5 {
			l.Errorf("got %v, want Shipped 5", s.Tally())
		}
		fixture.Must(l, stop())
	})
}

func TestAReceiverThatAcceptsNothingIsSentNothing(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 5)...)
		l.receiver.full = true
		l.receiver.before = func(context.Context, wire.Upload) error {
			if l.receiver.full {
				return wire.Refuse(wire.Full, "")
			}
			return nil
		}
		s, stop := l.startDaemon()
		time.Sleep(time.Hour)
		if _, puts, _ := l.receiver.counts(); puts > l.cfg.Senders {
			l.Errorf("%d uploads to a full receiver", puts)
		}
		l.receiver.update(func() { l.receiver.full = false })
		time.Sleep(3 * time.Minute)
		if s.Tally().Shipped != 5 {
			l.Errorf("got %v, want Shipped 5\n%s", s.Tally(), l.logs)
		}
		fixture.Must(l, stop())
	})
}

func TestAFaultEndsTheDaemon(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 20)...)
		l.receiver.before = func(_ context.Context, u wire.Upload) error {
			if u.Key.Name == "run-00007" {
				return fmt.Errorf("read: %w: %w", durable.ErrFault, unix.EIO)
			}
			time.Sleep(time.Second)
			return nil
		}
		_, stop := l.startDaemon()
		time.Sleep(time.Minute)
		if err := stop(); !errors.Is(err, durable.ErrFault) {
			l.Errorf("got %v, want a fault", err)
		}
		l.checkNothingLost()
	})
}

// A disk that fails under the daemon ends it: its later results cannot be trusted.
func TestAFailingDiskEndsTheDaemon(t *testing.T) {
	l := newLab(t)
	l.moveToExt4()
	l.finishEpisodes("run-1")
	s := l.openShipper()
	dir, err := os.Open(l.dir)
	fixture.Must(l, err)
	noFlush := uint32(2)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&noFlush))) // EXT4_IOC_SHUTDOWN
	fixture.Must(l, dir.Close())
	if errno != 0 {
		t.Skipf("cannot shut the file system down: %v", errno)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Run(ctx); !errors.Is(err, durable.ErrFault) {
		t.Errorf("the daemon ended with %v, want a fault\n%s", err, l.logs)
	}
	s.Close()
}

// moveToExt4 moves the lab to an ext4 of its own.
func (l *lab) moveToExt4() {
	l.Helper()
	fixture.RequireRoot(l)
	image := filepath.Join(l.TB.TempDir(), "disk")
	fixture.Must(l, os.WriteFile(image, nil, 0o600))
	fixture.Must(l, os.Truncate(image, 16<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		l.Skipf("mkfs.ext4: %v: %s", err, out)
	}
	if out, err := exec.Command("timeout", "60", "mount", "-o", "loop", image, l.dir).CombinedOutput(); err != nil {
		l.Skipf("mount: %v: %s", err, out)
	}
	l.TB.Cleanup(func() { fixture.Must(l, unix.Unmount(l.dir, 0)) })
	fixture.Must(l, os.Mkdir(l.episodes, 0o755))
}

func TestNoMoreUploadsAtOnceThanAsked(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes(numberedNames("run", 40)...)
		l.receiver.before = func(context.Context, wire.Upload) error { time.Sleep(time.Minute); return nil }
		start := time.Now()
		l.wantOnce(shipper.Tally{Scanned: 40, Shipped: 40})
		if l.receiver.most != 4 || time.Since(start) > 15*time.Minute {
			l.Errorf("%d at once, %v for all", l.receiver.most, time.Since(start))
		}
	})
}
