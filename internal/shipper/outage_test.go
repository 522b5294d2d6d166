package shipper_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestThreeDaysOfOutage: the receiver is unreachable for 72 hours, first in one way and then in
// another, while experiments continue. Only occasional pings are sent. The log has one line
// when the outage begins and one when it ends, and then everything is delivered.
func TestThreeDaysOfOutage(t *testing.T) {
	inBubble(t, func(l *lab) {
		const hours = 72
		l.cfg.ScanInterval = config.Duration(10 * time.Minute) // a scan of this many takes real time
		l.finishEpisodes("before")
		s, stop := l.startDaemon()
		time.Sleep(time.Minute)
		if s.Tally().Shipped != 1 {
			l.Fatalf("got %v, want Shipped 1", s.Tally())
		}
		_, before, _ := l.receiver.counts()
		ways := []error{
			fmt.Errorf("dial: %w", unix.ECONNREFUSED), os.ErrDeadlineExceeded, fmt.Errorf("dial: %w", unix.EHOSTUNREACH),
			&wire.UnexpectedResponseError{Status: 502}, wire.Refuse(wire.Draining, ""), fmt.Errorf("lookup: %w", os.ErrNotExist),
		}
		for hour := range hours {
			l.receiver.update(func() { l.receiver.down = ways[hour/12%len(ways)] })
			l.finishEpisodes(numberedNames(fmt.Sprintf("run-%02d", hour), 3)...)
			time.Sleep(time.Hour)
		}
		_, puts, pings := l.receiver.counts()
		if most := before + l.cfg.Senders; puts > most {
			l.Errorf("%d uploads to a dead receiver", puts-before)
		}
		// Full jitter averages one ping per minute. With less than one per hour the outage
		// could be over for an hour before a ping notices.
		if pings < hours || pings > 80*hours {
			l.Errorf("%d pings in %d hours", pings, hours)
		}
		if packed := len(l.logs.linesContaining(" INFO packed ")); packed != 3*hours+1 {
			l.Errorf("%d of %d were packed meanwhile", packed, 3*hours+1)
		}
		// When it goes, and each six hours.
		if loud := l.logs.warnings(); len(loud) > 1+hours/6 {
			l.Errorf("three days without a receiver say %q", loud)
		}
		if held := l.held(); len(held) != 0 {
			l.Errorf("held: %+v", held)
		}
		l.checkNothingLost()

		l.receiver.update(func() { l.receiver.down = nil })
		time.Sleep(time.Hour)
		if n := s.Tally().Shipped; n != 3*hours+1 {
			l.Errorf("an hour after it was back %d of %d are home\n%s", n, 3*hours+1, l.logs)
		}
		if n := len(l.logs.linesContaining("receiver is back")); n != 1 {
			l.Errorf("%d lines say that the receiver is back", n)
		}
		if loud := l.logs.warnings(); len(loud) > 1+hours/6 {
			l.Errorf("in the end the log has %q", loud)
		}
		if _, puts, _ := l.receiver.counts(); puts > before+3*hours+2*l.cfg.Senders {
			l.Errorf("%d uploads of %d episodes", puts, 3*hours+1)
		}
		fixture.Must(l, stop())
		l.wantFiles("outbox")
		l.wantFiles("episodes")
		l.checkNothingLost()
	})
}
