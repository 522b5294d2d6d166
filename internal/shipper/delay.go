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
	firstDelay = 5 * time.Second
	maxDelay   = time.Hour
	// Of those that fail on the way one at least is tried so often, on average: where pings
	// get through and uploads do not, nothing else shows that it is over.
	scoutEvery = 3 * time.Minute
)

// fault says what has to change before an episode that failed can get on.
type fault int

const (
	ownFault    fault = iota // of the episode, as far as is known
	pathFault                // or the receiver's
	noRoomThere              // at the receiver
	noRoomHere               // on this host's disk, or in the outbox
)

// delay is how often an episode has failed, and when it may be tried again.
type delay struct {
	failed   int       // since this process began: the waits go by it
	attempts int       // in vain, also of earlier processes
	since    time.Time // of the first of those
	last     time.Time
	until    time.Time
	least    time.Time // not before, whatever ends: the receiver said so
	cause    string    // printable ASCII
	held     bool      // it is held, and tried again all the same

	fault fault
	size  int64 // of what there was no room for; zero if it is not known, and not much
	room  int64 // that there was when it failed; negative if that is not known yet
}

// waitsForReceiver reports whether an episode may get on when an outage has ended.
func (l delay) waitsForReceiver() bool { return l.fault == pathFault || l.fault == noRoomThere }

// faultOf returns whose fault one more failure of an episode is, for which l was noted
// before. One that fails for the receiver's or the path's, while others get through, has
// one of its own, until it gets on.
func (d *dispatch) faultOf(r result, v verdict, l delay) fault {
	switch {
	case v == full:
		return noRoomHere
	case v != pause:
		return ownFault
	case errors.Is(r.err, wire.Full):
		return noRoomThere
	case l.failed > 0 && (l.fault == ownFault || d.delivered.After(l.last)):
		return ownFault
	}
	return pathFault
}

// delayed completes the delay of an episode that failed.
func (d *dispatch) delayed(r result, f fault, l delay, now time.Time) delay {
	l.fault, l.size, l.room = f, r.size, -1
	l.least = now.Add(uplink.RetryAfter(r.err))
	l.until = later(now.Add(uplink.Backoff(firstDelay, maxDelay, l.failed)), l.least)
	switch f {
	case pathFault:
		d.blaming = true
		if _, answered := errors.AsType[wire.Code](r.err); !answered && !now.Before(d.scout) {
			l.until = later(earlier(l.until, now.Add(around(scoutEvery))), l.least)
			d.scout = l.until
		}
	case noRoomThere:
		d.lacking = true
	case noRoomHere:
		l.room = d.room()
		d.cramped = true
	}
	return l
}

// delivers notes that an episode was delivered: others are tried at once that were not, for
// the path's fault.
func (d *dispatch) delivers(now time.Time) {
	d.delivered = now
	again := askEvery
	if d.lacking {
		again = askRoom
	}
	d.link.hears(now, again)
	if d.blaming {
		d.retryAtOnce(now, func(l delay) bool { return l.fault == pathFault })
	}
}

// retryAtOnce ends the waits of the episodes for which what they waited for is over.
func (d *dispatch) retryAtOnce(now time.Time, over func(delay) bool) {
	d.blaming = false
	d.change(func(_ episode.Name, l delay) delay {
		if over(l) {
			l.until = earlier(l.until, later(now, l.least))
		}
		return l
	})
}

// change changes the delays of all that are not held.
func (d *dispatch) change(f func(episode.Name, delay) delay) {
	for name, l := range d.later {
		if l.held {
			continue
		}
		if l = f(name, l); l != d.later[name] {
			d.later[name] = l
			d.wakeAt(l.until)
		}
	}
}

// roomThere ends the waits for room at the receiver, of which free bytes are left now. A
// receiver that refuses what it seems to have room for is not asked all the time.
func (d *dispatch) roomThere(free int64, now time.Time) {
	if !d.lacking {
		return
	}
	d.lacking = false
	d.change(func(_ episode.Name, l delay) delay {
		if l.fault != noRoomThere {
			return l
		}
		d.lacking = true
		if l.room >= 0 && free > l.room && free >= l.size {
			l.until = earlier(l.until, later(now, l.least))
		}
		l.room = free
		return l
	})
	if d.lacking {
		d.link.next = earlier(d.link.next, now.Add(around(askRoom)))
	}
}

// lookEvery is how often it is looked whether there is space again.
const lookEvery = 5 * time.Second

// leastGrowth is by how much the space must have grown for another try.
const leastGrowth = 1 << 20

// lookForSpace goes on packing when there is space again.
func (d *dispatch) lookForSpace(now time.Time) {
	if !d.wantsSpace() || now.Before(d.looked.Add(lookEvery)) {
		return
	}
	d.looked = now
	if d.full && d.swept && !d.short() && !d.loaded() {
		d.sweep()
	}
	if !d.cramped {
		return
	}
	d.cramped = false
	room := d.room()
	d.change(func(_ episode.Name, l delay) delay {
		if l.fault != noRoomHere {
			return l
		}
		d.cramped = true
		if grown := room - l.room; grown >= leastGrowth && (room >= l.size || grown >= l.room/4) {
			l.until = earlier(l.until, now)
		}
		return l
	})
}

// wantsSpace reports whether an episode waits for space on this host.
func (d *dispatch) wantsSpace() bool { return !d.once && (d.full || d.cramped) }

// room returns how many bytes can be packed now.
func (d *dispatch) room() int64 {
	free, err := d.out.Dir().Space()
	if err != nil {
		return 0
	}
	room := free - int64(d.cfg.MinFree)
	if waiting := d.out.Bytes(); d.cfg.OutboxMax > 0 && waiting > 0 { // see [floor]
		room = min(room, int64(d.cfg.OutboxMax)-waiting)
	}
	return max(0, room)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
