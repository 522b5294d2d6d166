package shipper

import (
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/retry"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Backoff of one episode that failed while the link is up.
const (
	firstBackoff = 5 * time.Second
	maxBackoff   = time.Hour
	// pathRetryInterval is the average time after which at least one episode that failed on the path
	// is retried. If pings succeed and uploads do not, only an upload shows that the fault is gone.
	pathRetryInterval = 3 * time.Minute
)

// faultCause says what must change before a failed episode can succeed.
type faultCause int

const (
	ownFault     faultCause = iota // of the episode, as far as is known
	pathFault                      // of the path or the receiver
	receiverFull                   // the receiver has no space
	hostFull                       // this host's disk or the outbox has no space
)

// backoff records how often an episode has failed, and when it may be retried.
type backoff struct {
	failures  int       // of this process: the wait depends on them
	attempts  int       // that failed, also of earlier processes
	firstAt   time.Time // time of the first failed attempt
	lastAt    time.Time
	retryAt   time.Time
	notBefore time.Time // by the receiver's Retry-After
	cause     string    // printable ASCII
	held      bool      // it is held, and retried all the same

	fault  faultCause
	needed int64 // bytes that did not fit; 0 if unknown
	free   int64 // bytes that were free when it failed; negative if unknown
}

// waitsForReceiver reports whether an episode may succeed once an outage has ended.
func (b backoff) waitsForReceiver() bool { return b.fault == pathFault || b.fault == receiverFull }

// afterFailure returns the backoff after one more failure, without its retry time.
func (b backoff) afterFailure(err error, now time.Time) backoff {
	if b.attempts == 0 || b.firstAt.After(now) {
		b.firstAt = now
	}
	b.failures++
	b.attempts++
	b.lastAt, b.cause = now, outbox.PrintableCause(err.Error())
	return b
}

// When an episode is held because it cannot be read. A disk that resets, a loose cable or an NFS
// server that is away for minutes need no operator.
const (
	minReadAttempts = 5
	minReadTime     = 10 * time.Minute
)

// isUnreadable reports whether reading has failed long enough for the episode to be held.
func (b backoff) isUnreadable(err error) bool {
	_, reading := errors.AsType[*durable.ReadError](err)
	return reading && b.attempts >= minReadAttempts && b.lastAt.Sub(b.firstAt) >= minReadTime
}

// faultOf returns the fault of one more failure of an episode, whose backoff was b. A failure of
// the path or the receiver counts as the episode's own if others are delivered meanwhile, until it
// succeeds.
func (d *dispatcher) faultOf(r workResult, act errorAction, b backoff) faultCause {
	switch {
	case act == actionPausePacking:
		return hostFull
	case act != actionPauseSending:
		return ownFault
	case errors.Is(r.err, wire.Full):
		return receiverFull
	case b.failures > 0 && (b.fault == ownFault || d.deliveredAt.After(b.lastAt)):
		return ownFault
	}
	return pathFault
}

// withRetryTime sets the fault and the time of the next attempt.
func (d *dispatcher) withRetryTime(r workResult, f faultCause, b backoff, now time.Time) backoff {
	b.fault, b.needed, b.free = f, r.size, -1
	b.notBefore = now.Add(uplink.RetryAfter(r.err))
	b.retryAt = latestTime(now.Add(retry.Backoff(firstBackoff, maxBackoff, b.failures)), b.notBefore)
	switch f {
	case pathFault:
		d.anyPathFault = true
		if _, answered := errors.AsType[wire.Code](r.err); !answered && !now.Before(d.nextPathRetry) {
			b.retryAt = latestTime(earliestTime(b.retryAt, now.Add(addJitter(pathRetryInterval))), b.notBefore)
			d.nextPathRetry = b.retryAt
		}
	case receiverFull:
		d.anyReceiverFull = true
	case hostFull:
		b.free = d.transfers.FreeForPacking()
		d.anyHostFull = true
	}
	return b
}

// setBackoff records that an episode is retried later.
func (d *dispatcher) setBackoff(name episode.Name, b backoff) {
	d.backoffs[name] = b
	d.scheduleWake(b.retryAt)
	d.reporting.changed = true
}

// clearBackoff records that an episode succeeded, or is gone.
func (d *dispatcher) clearBackoff(name episode.Name) {
	if _, failing := d.backoffs[name]; failing {
		delete(d.backoffs, name)
		d.reporting.changed = true
	}
}

// noteDelivery records that an episode was delivered. Those that failed because of the path are
// retried at once.
func (d *dispatcher) noteDelivery(now time.Time) {
	d.deliveredAt = now
	planned := d.link.nextPing
	d.link.noteResponse(now)
	if d.anyReceiverFull && d.link.state == linkUp { // only a ping tells whether there is space for the others
		d.link.nextPing = earliestTime(planned, now.Add(addJitter(fullPingInterval)))
	}
	if d.anyPathFault {
		d.endBackoffs(now, func(b backoff) bool { return b.fault == pathFault })
	}
}

// endBackoffs ends the backoffs for which over returns true.
func (d *dispatcher) endBackoffs(now time.Time, over func(backoff) bool) {
	d.anyPathFault = false
	d.updateBackoffs(func(_ episode.Name, b backoff) backoff {
		if over(b) {
			b.retryAt = earliestTime(b.retryAt, latestTime(now, b.notBefore))
		}
		return b
	})
}

// updateBackoffs calls f for the backoffs of all episodes that are not held.
func (d *dispatcher) updateBackoffs(f func(episode.Name, backoff) backoff) {
	for name, b := range d.backoffs {
		if b.held {
			continue
		}
		b = f(name, b)
		if b != d.backoffs[name] {
			d.backoffs[name] = b
			d.scheduleWake(b.retryAt)
		}
	}
}

// noteReceiverSpace ends the backoffs that wait for space at the receiver, which has free bytes
// now. It pings rarely if a receiver refuses what it seems to have space for.
func (d *dispatcher) noteReceiverSpace(free int64, now time.Time) {
	if !d.anyReceiverFull {
		return
	}
	d.anyReceiverFull = false
	d.updateBackoffs(func(_ episode.Name, b backoff) backoff {
		if b.fault != receiverFull {
			return b
		}
		d.anyReceiverFull = true
		if b.free >= 0 && free > b.free && free >= b.needed {
			b.retryAt = earliestTime(b.retryAt, latestTime(now, b.notBefore))
		}
		b.free = free
		return b
	})
	if d.anyReceiverFull {
		d.link.nextPing = earliestTime(d.link.nextPing, now.Add(addJitter(fullPingInterval)))
	}
}

func latestTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliestTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
