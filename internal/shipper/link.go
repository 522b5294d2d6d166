package shipper

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"cis490/internal/wire"
)

// Waits of the link: how long after the receiver failed it is asked again.
const (
	firstProbe = 5 * time.Second
	maxProbe   = 2 * time.Minute
)

// link is what the shipper believes of the way to the receiver. While it is
// down nothing is sent but one ping a step, however many episodes wait. Owned
// by [dispatch].
type link struct {
	log     *slog.Logger
	down    bool
	probing bool      // a ping is on its way
	next    time.Time // when to ask again
	failed  int       // pings in a row
	since   time.Time
	err     error
}

// fail takes the link down, after a send that the host or the path is to blame
// for. The first ping follows at once, or when the receiver said, unless this
// is a single pass, which waits for nothing.
func (l *link) fail(err error, once bool, now time.Time) {
	if l.down {
		return // another send that was under way
	}
	*l = link{log: l.log, down: true, next: now, since: now, err: err}
	// No space may be meant of one large archive only: the ping says.
	if !once && !errors.Is(err, wire.Full) {
		l.next = now.Add(retryAfter(err))
	}
	l.log.Debug("stopped sending", "err", err)
}

// answered takes in what came of a ping.
func (l *link) answered(pong wire.Pong, err error, now time.Time) {
	l.probing = false
	if err == nil && !pong.Storage.Accepting {
		err = wire.Refuse(wire.Full, "it answers, and accepts nothing")
	}
	if err == nil {
		if l.failed > 0 {
			l.log.Info("receiver is back", "after", now.Sub(l.since).Round(time.Second))
		}
		*l = link{log: l.log}
		return
	}
	l.err = err
	if l.failed == 0 {
		l.log.Log(context.Background(), severity(err), "receiver does not take anything; nothing is lost, sending goes on when it does",
			"err", err, "hint", wire.Hint(err))
	}
	l.failed++
	l.next = now.Add(max(backoff(firstProbe, maxProbe, l.failed), retryAfter(err)))
}

// retryAfter returns the least wait that the receiver asked for.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}

// severity tells what mends itself from what a person must see to.
func severity(err error) slog.Level {
	for _, code := range []wire.Code{wire.TokenRefused, wire.Forbidden, wire.HostMismatch} {
		if errors.Is(err, code) {
			return slog.LevelError
		}
	}
	if _, ok := errors.AsType[*wire.PathError](err); ok {
		return slog.LevelError
	}
	return slog.LevelWarn
}

// backoff returns a wait that doubles from base with each attempt up to a
// ceiling, somewhere in its upper half: hosts that failed together shall not
// come back together.
func backoff(base, ceiling time.Duration, attempt int) time.Duration {
	d := min(ceiling, base<<min(attempt-1, 20))
	return d/2 + rand.N(d/2+1)
}
