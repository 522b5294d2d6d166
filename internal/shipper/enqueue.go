package shipper

import (
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// reportUnshippable logs an entry that never ships, or that cannot even be held because it has no
// valid name.
func (d *dispatcher) reportUnshippable(err error) {
	if stray, ok := errors.AsType[*source.StrayError](err); ok {
		d.logStray(stray)
		return
	}
	d.tally.update(func(t *Tally) { t.Scanned++; t.Held++ })
	d.heldSeen++
	hint := "rename it or fix its permissions"
	if durable.IsReadFailure(err) {
		hint = "see the kernel's log, then fix the disk or the mount"
	}
	d.log.Error("cannot ship an episode", "err", err, "hint", hint)
}

// enqueueCandidate puts an episode into the queue of its stage.
func (d *dispatcher) enqueueCandidate(c candidate, now time.Time) error {
	if c.stage != Held && d.backoffs[c.name].held {
		d.clearBackoff(c.name) // an operator has released it
	}
	if c.stage == Held {
		d.heldSeen++
	}
	if _, at := d.inFlight[c.name]; at || now.Before(d.backoffs[c.name].retryAt) && c.stage != Held {
		return nil
	}
	switch c.stage {
	case Nothing:
		return nil
	case Stale:
		if err := d.out.RemoveHold(c.name); errors.Is(err, durable.ErrFault) {
			return err
		}
		return nil // the next scan finds it again
	}
	d.tally.update(func(t *Tally) { t.Scanned++ })
	switch c.stage {
	case Held:
		d.enqueueHeld(c, now)
	case Pack:
		d.enqueuePack(c, now)
	case Send:
		d.enqueueSend(c)
	}
	return nil
}

func (d *dispatcher) enqueuePack(c candidate, now time.Time) {
	if d.packing == packingPaused {
		d.countSkipped(c)
		return
	}
	if until, settles := settling.EarliestSettled(d.cfg.Settle.Std(), c.changedAt, now); settles {
		d.awaitSettled(c, until, now)
		return
	}
	d.toPack.add(c)
	d.inFlight[c.name] = c
}

// enqueueSend queues an episode for sending. While the link is not up, the outbox is the queue: it
// may hold more names than memory should.
func (d *dispatcher) enqueueSend(c candidate) {
	if d.link.state == linkDown || d.link.state == linkSuspect && !d.once {
		d.countSkipped(c)
		return
	}
	d.toSend.add(c)
	d.inFlight[c.name] = c
}

// dropQueues empties queues. The names stay in their directories.
func (d *dispatcher) dropQueues(queues ...*queue) {
	for _, q := range queues {
		for _, c := range q.items {
			d.countSkipped(c)
			delete(d.inFlight, c.name)
		}
		q.items = nil
	}
}

func (d *dispatcher) countTransient(n int) { d.tally.update(func(t *Tally) { t.Transient += n }) }

// countSkipped counts an episode that is not tried now.
func (d *dispatcher) countSkipped(c candidate) {
	if c.held {
		d.tally.update(func(t *Tally) { t.Held++ })
		return
	}
	d.countTransient(1)
}

// enqueueNow enqueues one episode between scans, or starts a scan if name is empty.
func (d *dispatcher) enqueueNow(name episode.Name, now time.Time) error {
	if name == "" {
		d.restartScan()
		return nil
	}
	c, err := d.inspectEpisode(name)
	switch {
	case err != nil:
		return nil // the next scan reports it
	case c.stage == Held && d.backoffs[name].held:
		d.retryHeld(c, now)
		return nil
	case c.stage != Pack && c.stage != Send:
		d.clearBackoff(name)
		return nil
	}
	return d.enqueueCandidate(c, now)
}
