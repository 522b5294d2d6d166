package shipper

import (
	"errors"
	"time"

	"cis490/internal/episode"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// Waits of one episode that failed though the link is up.
const (
	firstBackoff = 5 * time.Second
	maxBackoff   = time.Hour
	// Of those that fail on the way one at least is tried so often, on average: where pings
	// get through and uploads do not, nothing else shows that it is over.
	pathRetryInterval = 3 * time.Minute
)

// fault says what has to change before an episode that failed can get on.
type fault int

const (
	ownFault     fault = iota // of the episode, as far as is known
	pathFault                 // or the receiver's
	receiverFull              // at the receiver
	hostFull                  // on this host's disk, or in the outbox
)

// backoff is how often an episode has failed, and when it may be tried again.
type backoff struct {
	failures  int       // since this process began: the waits go by it
	attempts  int       // in vain, also of earlier processes
	firstAt   time.Time // of the first of those
	lastAt    time.Time
	retryAt   time.Time
	notBefore time.Time // not before, whatever ends: the receiver said so
	cause     string    // printable ASCII
	held      bool      // it is held, and tried again all the same

	fault  fault
	needed int64 // of what there was no room for; zero if it is not known, and not much
	free   int64 // that there was when it failed; negative if that is not known yet
}

// waitsForReceiver reports whether an episode may get on when an outage has ended.
func (b backoff) waitsForReceiver() bool { return b.fault == pathFault || b.fault == receiverFull }

// faultOf returns whose fault one more failure of an episode is, for which b was noted
// before. One that fails for the receiver's or the path's, while others get through, has
// one of its own, until it gets on.
func (d *dispatcher) faultOf(r result, v action, b backoff) fault {
	switch {
	case v == actionPausePacking:
		return hostFull
	case v != actionPauseSending:
		return ownFault
	case errors.Is(r.err, wire.Full):
		return receiverFull
	case b.failures > 0 && (b.fault == ownFault || d.deliveredAt.After(b.lastAt)):
		return ownFault
	}
	return pathFault
}

// withRetryTime completes the delay of an episode that failed.
func (d *dispatcher) withRetryTime(r result, f fault, b backoff, now time.Time) backoff {
	b.fault, b.needed, b.free = f, r.size, -1
	b.notBefore = now.Add(uplink.RetryAfter(r.err))
	b.retryAt = latest(now.Add(uplink.Backoff(firstBackoff, maxBackoff, b.failures)), b.notBefore)
	switch f {
	case pathFault:
		d.anyPathFault = true
		if _, answered := errors.AsType[wire.Code](r.err); !answered && !now.Before(d.nextPathRetry) {
			b.retryAt = latest(earliest(b.retryAt, now.Add(jitter(pathRetryInterval))), b.notBefore)
			d.nextPathRetry = b.retryAt
		}
	case receiverFull:
		d.anyReceiverFull = true
	case hostFull:
		b.free = d.freeForPacking()
		d.anyHostFull = true
	}
	return b
}

// noteDelivery notes that an episode was delivered: others are tried at once that were not, for
// the path's fault.
func (d *dispatcher) noteDelivery(now time.Time) {
	d.deliveredAt = now
	again := pingInterval
	if d.anyReceiverFull {
		again = fullPingInterval
	}
	d.link.noteResponse(now, again)
	if d.anyPathFault {
		d.endBackoffs(now, func(b backoff) bool { return b.fault == pathFault })
	}
}

// endBackoffs ends the waits of the episodes for which what they waited for is over.
func (d *dispatcher) endBackoffs(now time.Time, over func(backoff) bool) {
	d.anyPathFault = false
	d.updateBackoffs(func(_ episode.Name, b backoff) backoff {
		if over(b) {
			b.retryAt = earliest(b.retryAt, latest(now, b.notBefore))
		}
		return b
	})
}

// updateBackoffs changes the delays of all that are not held.
func (d *dispatcher) updateBackoffs(f func(episode.Name, backoff) backoff) {
	for name, b := range d.backoffs {
		if b.held {
			continue
		}
		if b = f(name, b); b != d.backoffs[name] {
			d.backoffs[name] = b
			d.scheduleWake(b.retryAt)
		}
	}
}

// noteReceiverSpace ends the waits for room at the receiver, of which free bytes are left now. A
// receiver that refuses what it seems to have room for is not asked all the time.
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
			b.retryAt = earliest(b.retryAt, latest(now, b.notBefore))
		}
		b.free = free
		return b
	})
	if d.anyReceiverFull {
		d.link.nextPing = earliest(d.link.nextPing, now.Add(jitter(fullPingInterval)))
	}
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
