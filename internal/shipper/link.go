package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cis490/internal/hint"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Waits of the link between pings after the receiver failed.
const (
	minProbeInterval = 5 * time.Second
	maxProbeInterval = 2 * time.Minute
	// reminderInterval is how often the log repeats that the receiver is unavailable.
	reminderInterval = 6 * time.Hour
)

// onceBusyTimeout is [uplink.BusyTimeout] of a single pass, for which others wait.
const onceBusyTimeout = 15 * time.Second

// linkState says whether uploads are sent.
type linkState int

// The states.
const (
	linkUp      linkState = iota // uploads are sent
	linkSuspect                  // an upload failed, and no ping has shown why; nothing is sent
	linkDown                     // a ping failed too, or none is sent; nothing is sent
)

// receiverLink is what the shipper knows of the receiver and the path to it. While it is not up,
// only pings are sent, with backoff, however many episodes wait. While it is up, pings keep
// the status current. It belongs to [dispatcher].
type receiverLink struct {
	log   *slog.Logger
	state linkState

	// Of the ping that was sent and not answered.
	pinging bool
	stale   bool // an upload has failed since it was sent
	woken   bool // it answers a [Shipper.RequestPing]

	pingNow     bool      // a ping was requested
	nextPing    time.Time // when to send the next one
	failedPings int       // in a row
	heardAt     time.Time // when the receiver last accepted something

	downSince time.Time // of a link that is not up, as are the fields below
	loggedAt  time.Time // when the log last said so
	err       error
	hint      string // what to do about err
}

// String describes the link for the service manager.
func (l receiverLink) String() string {
	switch {
	case l.state != linkUp:
		return fmt.Sprintf("receiver has not accepted uploads since %s: %s", l.downSince.Format(statusTime), printableCause(l.err.Error()))
	case l.heardAt.IsZero():
		return "asking the receiver"
	}
	return "receiver answers, last at " + l.heardAt.Format(statusTime)
}

// noteResponse records that the receiver accepted something. The next ping follows after
// interval, unless the link is not up.
func (l *receiverLink) noteResponse(now time.Time, interval time.Duration) {
	l.heardAt = now
	if l.state == linkUp {
		l.nextPing = now.Add(addJitter(interval))
	}
}

// requestPing has a ping sent at once. The ping in flight may not reflect what has changed.
func (l *receiverLink) requestPing(now time.Time) { l.pingNow, l.nextPing = true, now }

// notePing records that a ping is sent.
func (l *receiverLink) notePing() { l.pinging, l.woken, l.pingNow = true, l.woken || l.pingNow, false }

// markSuspect stops sending after an upload failed because of this host or the path. A ping
// follows at once, or when the receiver allows it. A single pass does not wait, and sends no
// ping to a receiver that was busy all the time.
func (l *receiverLink) markSuspect(err error, once bool, now time.Time) {
	if l.state != linkUp {
		return // another upload that was in flight
	}
	*l = receiverLink{
		log: l.log, state: linkSuspect, pinging: l.pinging, stale: l.pinging, pingNow: l.pingNow, woken: l.woken,
		heardAt: l.heardAt, nextPing: now, downSince: now, err: err,
	}
	// A lack of space may concern only one large archive: the ping shows.
	if !once && !errors.Is(err, wire.Full) {
		l.nextPing = now.Add(uplink.RetryAfter(err))
	}
	if once && uplink.IsBusy(err) {
		l.state = linkDown
	}
	l.log.Debug("sending paused", "err", err)
}

// handlePing handles the result of a ping. A ping that was sent before an upload failed does
// not make up for that.
func (l *receiverLink) handlePing(p pingResult, now time.Time) {
	stale := l.stale && !p.unsolicited
	if !p.unsolicited {
		l.pinging, l.stale = false, false
	}
	err := p.err
	if err == nil {
		err = p.response.Storage.Err()
	}
	if err == nil {
		if !stale {
			l.markUp(now)
		}
		return
	}
	l.markDown(err, p.hint, now)
}

func (l *receiverLink) markUp(now time.Time) {
	if l.state == linkDown {
		l.log.Info("receiver is back", "after", now.Sub(l.downSince).Round(time.Second))
	}
	*l = receiverLink{log: l.log, pingNow: l.pingNow, nextPing: l.nextPing, heardAt: now}
	if !l.pingNow {
		l.noteResponse(now, pingInterval)
	}
}

func (l *receiverLink) markDown(err error, advice string, now time.Time) {
	l.woken = false
	if l.state == linkUp {
		l.downSince = now
	}
	l.state = linkDown
	isNews := uplink.IsOtherStore(err) && !uplink.IsOtherStore(l.err)
	l.err, l.hint = err, cmp.Or(advice, hint.For(err))
	l.failedPings++
	if l.nextPing = now; !l.pingNow {
		l.nextPing = now.Add(max(minProbeInterval, uplink.BackoffDelay(minProbeInterval, maxProbeInterval, l.failedPings), uplink.RetryAfter(err)))
	}
	switch {
	case l.failedPings == 1 || isNews:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver unavailable, sending paused",
			withHint(l.hint, "err", err)...)
	case now.Sub(l.loggedAt) >= reminderInterval:
		l.loggedAt = now
		l.log.Log(context.Background(), failureLevel(err), "receiver still unavailable",
			withHint(l.hint, "since", l.downSince.UTC().Format(time.DateTime), "attempt", l.failedPings, "err", err)...)
	}
}

// failureLevel returns Error for what an operator must fix, and Warn for what is retried.
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
