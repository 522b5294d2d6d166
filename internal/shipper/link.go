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
	firstProbe = 5 * time.Second
	maxProbe   = 2 * time.Minute
	remindOf   = 6 * time.Hour // how often the log says that it is still away
)

// onceBusyTimeout is [uplink.BusyTimeout] of a single pass, for which others wait.
const onceBusyTimeout = 15 * time.Second

// link is what the shipper believes of the way to the receiver. While it is
// down nothing is sent but one ping a step, however many episodes wait. While it is up the
// receiver is asked now and then, so that who asks for the status is told what is true.
// Owned by [dispatch].
type link struct {
	log     *slog.Logger
	down    bool
	probing bool      // a ping is on its way
	stale   bool      // since that went, an upload has failed
	hurry   bool      // somebody wants to know now
	woken   bool      // somebody did before the ping that is on its way
	heard   time.Time // when the receiver last took something, or said that it would
	next    time.Time // when to ask again
	failed  int       // pings in a row
	since   time.Time
	told    time.Time // when the log last said so
	err     error
	hint    string // what to do about it, after a ping
}

// String says how it is, for the service manager.
func (l link) String() string {
	switch {
	case l.down:
		return fmt.Sprintf("receiver does not take anything since %s: %s", l.since.Format(stamp), shorten(l.err.Error()))
	case l.heard.IsZero():
		return "asking the receiver"
	}
	return "receiver answers, last at " + l.heard.Format(stamp)
}

// hears notes that the receiver took something, and that it is asked again after some
// time. A link that is down waits for a ping all the same.
func (l *link) hears(now time.Time, again time.Duration) {
	l.heard = now
	if !l.down {
		l.next = now.Add(around(again))
	}
}

// wake has the receiver asked at once. A ping that is on its way may know nothing of what
// has changed.
func (l *link) wake(now time.Time) { l.hurry, l.next = true, now }

// asked notes that a ping is on its way.
func (l *link) asked() { l.probing, l.woken, l.hurry = true, l.woken || l.hurry, false }

// fail takes the link down, after a send that the host or the path is to blame
// for. The first ping follows at once, or when the receiver said, unless this
// is a single pass, which waits for nothing, and asks nothing more of a receiver
// that was busy all the time.
func (l *link) fail(err error, once bool, now time.Time) {
	if l.down {
		return // another send that was under way
	}
	*l = link{log: l.log, down: true, probing: l.probing, stale: l.probing, hurry: l.hurry, woken: l.woken, heard: l.heard, next: now, since: now, err: err}
	// No space may be meant of one large archive only: the ping says.
	if !once && !errors.Is(err, wire.Full) {
		l.next = now.Add(uplink.RetryAfter(err))
	}
	if once && uplink.IsBusy(err) {
		l.failed = 1
	}
	l.log.Debug("stopped sending", "err", err)
}

// answered takes in what came of a ping. One that went before an upload failed does not
// make up for that.
func (l *link) answered(p ponged, now time.Time) {
	stale := l.stale && !p.aside
	if !p.aside {
		l.probing, l.stale = false, false
	}
	err := p.err
	if err == nil {
		err = p.pong.Storage.Err()
	}
	if err == nil {
		if stale {
			return
		}
		if l.failed > 0 {
			l.log.Info("receiver is back", "after", now.Sub(l.since).Round(time.Second))
		}
		*l = link{log: l.log, hurry: l.hurry, next: l.next}
		if l.heard = now; !l.hurry {
			l.hears(now, askEvery)
		}
		return
	}
	l.woken = false
	if !l.down {
		l.down, l.since = true, now
	}
	isNews := uplink.IsOtherStore(err) && !uplink.IsOtherStore(l.err)
	l.err, l.hint = err, cmp.Or(p.hint, wire.Hint(err))
	l.failed++
	if l.next = now; !l.hurry {
		l.next = now.Add(max(firstProbe, uplink.Backoff(firstProbe, maxProbe, l.failed), uplink.RetryAfter(err)))
	}
	switch {
	case l.failed == 1 || isNews:
		l.told = now
		l.log.Log(context.Background(), severity(err), "receiver does not take anything; nothing is lost, sending goes on when it does",
			withHint(l.hint, "err", err)...)
	case now.Sub(l.told) >= remindOf:
		l.told = now
		l.log.Log(context.Background(), severity(err), "receiver still does not take anything",
			withHint(l.hint, "since", l.since.UTC().Format(time.DateTime), "attempt", l.failed, "err", err)...)
	}
}

// severity tells what mends itself from what a person must see to.
func severity(err error) slog.Level {
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
