package shipper

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/settling"
	"cis490/internal/wire"
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

// candidate is an episode that waits for something.
type candidate struct {
	backlog.Episode           // its size may also be that of its files, if a packer found it to be large
	sortTime        time.Time // when it was finished; of a settling one, when to check again
	held            bool      // it is tried although it is held

	lastObservation *settling.Observation // by the last check, if there is a ctime in the future
	waitingSince    time.Time             // since when it has been settling; zero if it has not

	restless bool // others come first, because it has been settling for long
	logged   bool // that it does not settle
}

func newCandidate(e backlog.Episode) candidate { return candidate{Episode: e, sortTime: e.At} }

// isLarge reports whether it is large for its queue: an archive that takes more than one request,
// or an episode that a packer found to be large. A restless one counts as large, because it may be
// checked again and again.
func (c candidate) isLarge() bool { return c.Size >= wire.MinAnnounced || c.restless }

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
	return cmp.Or(a.sortTime.Compare(b.sortTime), cmp.Compare(a.Name, b.Name))
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
