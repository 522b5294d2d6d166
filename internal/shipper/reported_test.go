package shipper_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// TestReportTakesThePlaceOfAPing: a receiver responds to it as to a ping. What it does not show, a ping
// does at once.
func TestReportTakesThePlaceOfAPing(t *testing.T) {
	for name, test := range map[string]struct {
		receiver func(r *receiver)
		refuse   error // of each report
		pings    int   // after the first one, in an hour with a report each 5 minutes
	}{
		"answered":          {receiver: func(*receiver) {}},
		"older receiver":    {receiver: func(r *receiver) { r.olderReports = true }, pings: 10}, // each 5 to 7.5 minutes
		"only reports fail": {refuse: unix.ECONNRESET, pings: 12},
		"busy for a minute": {refuse: &wire.Problem{Code: wire.HostBusy, RetryAfter: time.Minute}, pings: 12},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				s, stop := l.startDaemon()
				time.Sleep(time.Minute)
				l.receiver.update(func() {
					if test.receiver != nil {
						test.receiver(l.receiver)
					}
					if test.refuse != nil {
						l.receiver.report = func() error { return test.refuse }
					}
				})
				_, _, before := l.receiver.counts()
				for range 12 {
					_ = s.SendReport(l.Context(), wire.Report{}) // its error is the reporter's
					time.Sleep(5*time.Minute - time.Second)
				}
				_, _, after := l.receiver.counts()
				if got := after - before; got < test.pings-2 || got > test.pings+1 || test.pings == 0 && got > 0 {
					l.Errorf("%d pings in an hour of reports, want %d", got, test.pings)
				}
				if link := s.LinkStatus(); !link.Up || time.Since(link.AnsweredAt) > 8*time.Minute {
					l.Errorf("the link is %+v, want one that is up with an answer of the last 8 minutes", link)
				}
				fixture.Must(l, stop())
			})
		})
	}
}

// TestPingAfterAFailedReportWaitsAsAsked: Retry-After holds for the host, not for one kind of request.
func TestPingAfterAFailedReportWaitsAsAsked(t *testing.T) {
	inBubble(t, func(l *lab) {
		s, stop := l.startDaemon()
		time.Sleep(time.Second)
		l.receiver.update(func() {
			l.receiver.report = func() error { return &wire.Problem{Code: wire.HostBusy, RetryAfter: time.Minute} }
		})
		_, _, before := l.receiver.counts()
		_ = s.SendReport(l.Context(), wire.Report{})
		for _, want := range []int{0, 1} {
			time.Sleep(time.Minute - time.Second)
			if _, _, after := l.receiver.counts(); after-before != want {
				l.Errorf("%d pings, want %d", after-before, want)
			}
		}
		fixture.Must(l, stop())
	})
}

// TestReportNoticesWhatAPingWould: an idle host sends no pings while its reports are answered.
func TestReportNoticesWhatAPingWould(t *testing.T) {
	for name, test := range map[string]struct {
		change func(l *lab)
		want   string
	}{
		"another store": {func(l *lab) { l.receiver.swapStore(wire.Store{ID: "STORE2"}) }, "another store"},
		"a full store":  {func(l *lab) { l.receiver.update(func() { l.receiver.full = true }) }, "has not accepted uploads"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.finishEpisodes("run-1") // whose receipt names the store
				s, says, stop := l.startWithStatus()
				time.Sleep(time.Minute)
				test.change(l)
				_, _, before := l.receiver.counts()
				_ = s.SendReport(l.Context(), wire.Report{})
				time.Sleep(time.Second)
				if got := says.last(); !strings.Contains(got, test.want) || s.LinkStatus().Up {
					l.Errorf("the status is %q, want %q in it", got, test.want)
				}
				if _, _, after := l.receiver.counts(); after > before {
					l.Errorf("%d pings, want that the report suffices", after-before)
				}
				_ = stop()
			})
		})
	}
}

// TestReportChangesNothingInAnOutage: it may have been sent before the upload that failed, and its own
// failure must not hasten pings.
func TestReportChangesNothingInAnOutage(t *testing.T) {
	inBubble(t, func(l *lab) {
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		l.receiver.update(func() { l.receiver.down = fmt.Errorf("dial: %w", unix.ECONNREFUSED) })
		l.finishEpisodes("run-2")
		time.Sleep(4 * time.Minute) // until pings are far apart
		_, _, before := l.receiver.counts()
		for range 10 {
			_ = s.SendReport(l.Context(), wire.Report{})
			time.Sleep(time.Second)
		}
		if _, _, after := l.receiver.counts(); after > before+2 {
			l.Errorf("%d pings while ten reports failed, want at most 2", after-before)
		}
		l.receiver.update(func() {
			l.receiver.down = nil
			l.receiver.ping = func() error { return unix.ECONNREFUSED }
		})
		fixture.Must(l, s.SendReport(l.Context(), wire.Report{}))
		time.Sleep(time.Second)
		if back := l.logs.linesContaining("receiver is back"); len(back) > 0 || s.LinkStatus().Up {
			l.Errorf("after a report in an outage the log says %q", back)
		}
		fixture.Must(l, stop())
	})
}

// TestReportDoesNotPutOffAPingThatWasRequested: only that one retries what failed.
func TestReportDoesNotPutOffAPingThatWasRequested(t *testing.T) {
	inBubble(t, func(l *lab) {
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		begun, release := make(chan struct{}), make(chan struct{})
		l.receiver.update(func() {
			l.receiver.ping = func() error {
				close(begun)
				<-release
				return nil
			}
		})
		s.RequestPing()
		<-begun
		l.receiver.update(func() { l.receiver.ping = nil })
		_, _, before := l.receiver.counts()
		s.RequestPing() // while one is in flight
		fixture.Must(l, s.SendReport(l.Context(), wire.Report{}))
		close(release)
		time.Sleep(time.Second)
		if _, _, after := l.receiver.counts(); after != before+1 {
			l.Errorf("%d pings after the second request, want 1", after-before)
		}
		fixture.Must(l, stop())
	})
}

// TestPingsAreSoonerThanTheirAbsenceIsNoticed: 'shipper status' takes a receiver that did not answer for
// twice [shipper.PingInterval] for one that is not asked.
func TestPingsAreSoonerThanTheirAbsenceIsNoticed(t *testing.T) {
	if most := shipper.PingInterval*3/2 + 2*shipper.PingTimeout; most >= 2*shipper.PingInterval {
		t.Errorf("a receiver may answer after %v, want less than %v", most, 2*shipper.PingInterval)
	}
}
