package shipper

import (
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// bad reports what cannot be held, for want of a name to hold it under, and what never
// ships.
func (d *dispatch) bad(err error) {
	if stray, ok := errors.AsType[*source.StrayError](err); ok {
		d.tellStray(stray)
		return
	}
	d.tally.count(func(t *Tally) { t.Scanned++; t.Held++ })
	d.met++
	if durable.IsReadFailure(err) {
		d.log.Error("cannot ship an episode; see the kernel's log, then mend the disk or the mount", "err", err)
		return
	}
	d.log.Error("cannot ship an episode; rename it or mend its permissions", "err", err)
}

// queue puts an episode where its stage says.
func (d *dispatch) queue(c candidate, now time.Time) error {
	if c.stage != Held && d.later[c.name].held {
		d.forget(c.name) // a person has released it
	}
	if c.stage == Held {
		d.met++
	}
	if _, at := d.hand[c.name]; at || now.Before(d.later[c.name].until) && c.stage != Held {
		return nil
	}
	switch c.stage {
	case Nothing:
		return nil
	case Stale:
		if err := d.out.Forget(c.name); errors.Is(err, durable.ErrFault) {
			return err
		}
		return nil // the next sweep meets it again
	}
	d.tally.count(func(t *Tally) { t.Scanned++ })
	switch c.stage {
	case Held:
		d.queueHeld(c, now)
	case Seal:
		d.queueSeal(c, now)
	case Send:
		d.queueSend(c)
	}
	return nil
}

func (d *dispatch) queueSeal(c candidate, now time.Time) {
	if d.full {
		d.leave(c)
		return
	}
	if until, settles := settling.Earliest(d.cfg.Settle.Std(), c.changed, now); settles {
		d.await(c, until, now)
		return
	}
	d.toSeal.add(c)
	d.hand[c.name] = c
}

// queueSend queues an episode for sending. While the link is down the outbox is
// the queue: it may hold more names than memory should.
func (d *dispatch) queueSend(c candidate) {
	if d.link.down && (!d.once || d.link.failed > 0) {
		d.leave(c)
		return
	}
	d.toSend.add(c)
	d.hand[c.name] = c
}

// drop takes whole queues out of hand. The names stay in their folders.
func (d *dispatch) drop(queues ...*queue) {
	for _, q := range queues {
		for _, c := range q.all {
			d.leave(c)
			delete(d.hand, c.name)
		}
		q.all = nil
	}
}

func (d *dispatch) transient(n int) { d.tally.count(func(t *Tally) { t.Transient += n }) }

// leave counts an episode that is not tried now.
func (d *dispatch) leave(c candidate) {
	if c.held {
		d.tally.count(func(t *Tally) { t.Held++ })
		return
	}
	d.transient(1)
}

// take looks at one episode, out of turn, or at all of them if it has no name:
// some were missed.
func (d *dispatch) take(name episode.Name, now time.Time) error {
	if name == "" {
		d.sweep()
		return nil
	}
	c, err := d.look(name)
	switch {
	case err != nil:
		return nil // the next scan says what is wrong
	case c.stage == Held && d.later[name].held:
		d.retryHeld(c, now)
		return nil
	case c.stage != Seal && c.stage != Send:
		d.forget(name)
		return nil
	}
	return d.queue(c, now)
}
