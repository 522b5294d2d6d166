package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Waits of the link: how long after the receiver failed it is asked again.
const (
	firstProbe       = 5 * time.Second
	maxProbe         = 2 * time.Minute
	reminderInterval = 6 * time.Hour // how often the log says that it is still away
)

// onceBusyTimeout is [uplink.BusyTimeout] of a single pass, for which others wait.
const onceBusyTimeout = 15 * time.Second

// link is what the shipper believes of the way to the receiver. While it is
// down nothing is sent but one ping a step, however many episodes wait. While it is up the
// receiver is asked now and then, so that who asks for the status is told what is true.
// Owned by [dispatcher].
type link struct {
	log         *slog.Logger
	down        bool
	pinging     bool      // a ping is on its way
	stale       bool      // since that went, an upload has failed
	pingNow     bool      // somebody wants to know now
	woken       bool      // somebody did before the ping that is on its way
	heardAt     time.Time // when the receiver last took something, or said that it would
	nextPing    time.Time // when to ask again
	failedPings int       // pings in a row
	downSince   time.Time
	loggedAt    time.Time // when the log last said so
	err         error
	hint        string // what to do about it, after a ping
}

// String says how it is, for the service manager.
func (l link) String() string {
	switch {
	case l.down:
		return fmt.Sprintf("receiver does not take anything since %s: %s", l.downSince.Format(statusTime), printableCause(l.err.Error()))
	case l.heardAt.IsZero():
		return "asking the receiver"
	}
	return "receiver answers, last at " + l.heardAt.Format(statusTime)
}

// noteResponse notes that the receiver took something, and that it is asked again after some
// time. A link that is down waits for a ping all the same.
func (l *link) noteResponse(now time.Time, again time.Duration) {
	l.heardAt = now
	if !l.down {
		l.nextPing = now.Add(jitter(again))
	}
}

// requestPing has the receiver asked at once. A ping that is on its way may know nothing of what
// has changed.
func (l *link) requestPing(now time.Time) { l.pingNow, l.nextPing = true, now }

// notePing notes that a ping is on its way.
func (l *link) notePing() { l.pinging, l.woken, l.pingNow = true, l.woken || l.pingNow, false }

// markDown takes the link down, after a send that the host or the path is to blame
// for. The first ping follows at once, or when the receiver said, unless this
// is a single pass, which waits for nothing, and asks nothing more of a receiver
// that was busy all the time.
func (l *link) markDown(err error, once bool, now time.Time) {
	if l.down {
		return // another send that was under way
	}
	*l = link{log: l.log, down: true, pinging: l.pinging, stale: l.pinging, pingNow: l.pingNow, woken: l.woken, heardAt: l.heardAt, nextPing: now, downSince: now, err: err}
	// No space may be meant of one large archive only: the ping says.
	if !once && !errors.Is(err, wire.Full) {
		l.nextPing = now.Add(uplink.RetryAfter(err))
	}
	if once && uplink.IsBusy(err) {
		l.failedPings = 1
	}
	l.log.Debug("stopped sending", "err", err)
}

// handlePing takes in what came of a ping. One that went before an upload failed does not
// make up for that.
func (l *link) handlePing(p pingResult, now time.Time) {
	stale := l.stale && !p.unsolicited
	if !p.unsolicited {
		l.pinging, l.stale = false, false
	}
	err := p.err
	if err == nil {
		err = p.response.Storage.Err()
	}
	if err == nil {
		if stale {
			return
		}
		if l.failedPings > 0 {
			l.log.Info("receiver is back", "after", now.Sub(l.downSince).Round(time.Second))
		}
		*l = link{log: l.log, pingNow: l.pingNow, nextPing: l.nextPing}
		if l.heardAt = now; !l.pingNow {
			l.noteResponse(now, pingInterval)
		}
		return
	}
	l.woken = false
	if !l.down {
		l.down, l.downSince = true, now
	}
	isNews := uplink.IsOtherStore(err) && !uplink.IsOtherStore(l.err)
	l.err, l.hint = err, cmp.Or(p.hint, wire.Hint(err))
	l.failedPings++
	if l.nextPing = now; !l.pingNow {
		l.nextPing = now.Add(max(firstProbe, uplink.Backoff(firstProbe, maxProbe, l.failedPings), uplink.RetryAfter(err)))
	}
	switch {
	case l.failedPings == 1 || isNews:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver does not take anything; nothing is lost, sending goes on when it does",
			withHint(l.hint, "err", err)...)
	case now.Sub(l.loggedAt) >= reminderInterval:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver still does not take anything",
			withHint(l.hint, "since", l.downSince.UTC().Format(time.DateTime), "attempt", l.failedPings, "err", err)...)
	}
}

// failureLevel tells what mends itself from what a person must see to.
func failureLevel(err error) slog.Level {
	for _, code := range []wire.Code{wire.TokenRefused, wire.Forbidden, wire.HostMismatch} {
		if errors.Is(err, code) {
			return slog.LevelError
		}
	}
	if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); ok || uplink.IsOtherStore(err) {
		return slog.LevelError
	}
	return slog.LevelWarn
}

// withHint adds a hint, if there is one, to the attributes of a log line.
func withHint(hint string, attrs ...any) []any {
	if hint == "" {
		return attrs
	}
	return append(attrs, "hint", hint)
}
