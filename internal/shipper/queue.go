package shipper

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// Order says which waiting episode comes next.
type Order string

// The orders. If more than a page of episodes wait, they apply within a page of names.
const (
	Oldest Order = "oldest" // finished first
	Newest Order = "newest" // finished last
	Mixed  Order = "mixed"  // alternating: new ones are not late, and old ones are not starved
)

// UnmarshalText parses an order.
func (o *Order) UnmarshalText(text []byte) error {
	switch read := Order(text); read {
	case Oldest, Newest, Mixed:
		*o = read
		return nil
	}
	return fmt.Errorf(`%+q is not a valid order: write "oldest", "newest" or "mixed"`, text)
}

// endOfQueue returns a time that sorts an episode behind those that wait now; with [Mixed] among
// the next. The time of a marker may be any.
func (o Order) endOfQueue(now time.Time) time.Time {
	if o == Newest {
		return time.Time{}
	}
	return now
}

// queue holds waiting episodes, sorted by when they were finished.
type queue struct {
	order      Order
	items      []candidate
	oldestNext bool // with [Mixed]
}

func (q *queue) size() int { return len(q.items) }

// add inserts c. An episode that has just been finished goes to the end, and so does each episode
// of a sorted page.
func (q *queue) add(c candidate) {
	if n := len(q.items); n == 0 || compareAge(q.items[n-1], c) <= 0 {
		q.items = append(q.items, c)
		return
	}
	i, _ := slices.BinarySearchFunc(q.items, c, compareAge)
	q.items = slices.Insert(q.items, i, c)
}

// compareAge orders candidates by age, and then by name, so that each pass is the same.
func compareAge(a, b candidate) int {
	return cmp.Or(a.sortTime.Compare(b.sortTime), cmp.Compare(a.name, b.name))
}

// next returns the candidate that [queue.pop] removes. The queue must not be empty.
func (q *queue) next() candidate {
	if q.takesLast() {
		return q.items[len(q.items)-1]
	}
	return q.items[0]
}

// pop removes the next candidate.
func (q *queue) pop() {
	if q.takesLast() {
		q.items = q.items[:len(q.items)-1]
	} else {
		q.items = q.items[1:]
	}
	q.oldestNext = !q.oldestNext
}

func (q *queue) takesLast() bool { return q.order == Newest || q.order == Mixed && !q.oldestNext }

// sizedQueue is a pair of queues to the same workers. Large episodes get only some of the workers,
// so that small ones do not wait for them.
type sizedQueue struct {
	small, large queue
	maxLarge     int // the maximum of largeActive
	largeActive  int // large episodes with a worker
}

func newSizedQueue(order Order, most int) sizedQueue {
	return sizedQueue{small: queue{order: order}, large: queue{order: order}, maxLarge: most}
}

func (q *sizedQueue) size() int { return q.small.size() + q.large.size() }

func (q *sizedQueue) add(c candidate) {
	if c.isLarge() {
		q.large.add(c)
	} else {
		q.small.add(c)
	}
}

// next returns the queue that is next, or nil if no episode may start now.
func (q *sizedQueue) next() *queue {
	large := q.large.size() > 0 && q.largeActive < q.maxLarge
	switch {
	case large && q.small.size() > 0 && !q.largeFirst():
		return &q.small
	case large:
		return &q.large
	case q.small.size() > 0:
		return &q.small
	}
	return nil
}

// largeFirst reports whether the large queue comes first if both may start.
func (q *sizedQueue) largeFirst() bool {
	large, small := q.large.next(), q.small.next()
	if q.large.takesLast() {
		large, small = small, large
	}
	return compareAge(large, small) <= 0
}

// countStarted and finished count what is with the workers.
func (q *sizedQueue) countStarted(c candidate) {
	if c.isLarge() {
		q.largeActive++
	}
}

func (q *sizedQueue) countFinished(c candidate) {
	if c.isLarge() {
		q.largeActive--
	}
}

// maxLargeSends is the maximum number of large archives that are sent at once: one fills a link,
// and more of them delay one another.
const maxLargeSends = 4

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
	d.countToSend(1, c)
}

// dropQueues empties queues. The names stay in their directories.
func (d *dispatcher) dropQueues(queues ...*queue) {
	for _, q := range queues {
		for _, c := range q.items {
			d.countSkipped(c)
			delete(d.inFlight, c.name)
			if c.stage == Send {
				d.countToSend(-1, c)
			}
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
