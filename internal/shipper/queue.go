package shipper

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Order says which of the episodes that wait comes next.
type Order string

// The orders. Where more than a page of episodes wait, they hold within a page of
// names.
const (
	Oldest Order = "oldest" // finished first
	Newest Order = "newest" // finished last
	Mixed  Order = "mixed"  // the newest and the oldest in turn: news at once, and nothing waits for ever
)

// UnmarshalText reads an order.
func (o *Order) UnmarshalText(text []byte) error {
	switch read := Order(text); read {
	case Oldest, Newest, Mixed:
		*o = read
		return nil
	}
	return fmt.Errorf(`%+q is no order: write "oldest", "newest" or "mixed"`, text)
}

// endOfQueue returns when an episode would have to be finished to come after those that wait
// now; with [Mixed] it is one of the next. Its marker bears what time its maker likes.
func (o Order) endOfQueue(now time.Time) time.Time {
	if o == Newest {
		return time.Time{}
	}
	return now
}

// queue holds episodes that wait for the same, sorted by when they were finished.
type queue struct {
	order      Order
	items      []candidate
	oldestNext bool // with Mixed: the oldest is next
}

func (q *queue) length() int { return len(q.items) }

// add puts c in its place. What has just been finished goes to the end, and so
// does each of a page that comes sorted.
func (q *queue) add(c candidate) {
	if n := len(q.items); n == 0 || compareAge(q.items[n-1], c) <= 0 {
		q.items = append(q.items, c)
		return
	}
	i, _ := slices.BinarySearchFunc(q.items, c, compareAge)
	q.items = slices.Insert(q.items, i, c)
}

// compareAge orders candidates by their age, and then by their names, so that a pass
// is the same each time.
func compareAge(a, b candidate) int {
	return cmp.Or(a.sortTime.Compare(b.sortTime), cmp.Compare(a.name, b.name))
}

// next returns what [queue.pop] would; there must be something.
func (q *queue) next() candidate {
	if q.takesLast() {
		return q.items[len(q.items)-1]
	}
	return q.items[0]
}

// pop takes the next one out.
func (q *queue) pop() {
	if q.takesLast() {
		q.items = q.items[:len(q.items)-1]
	} else {
		q.items = q.items[1:]
	}
	q.oldestNext = !q.oldestNext
}

func (q *queue) takesLast() bool { return q.order == Newest || q.order == Mixed && !q.oldestNext }

// sizedQueue are two queues to the same workers. Large episodes keep to a part of the
// workers, so that small ones do not wait for them.
type sizedQueue struct {
	small, large queue
	maxLarge     int // large ones at once
	largeActive  int // large ones
}

func newSizedQueue(order Order, most int) sizedQueue {
	return sizedQueue{small: queue{order: order}, large: queue{order: order}, maxLarge: most}
}

func (l *sizedQueue) length() int { return l.small.length() + l.large.length() }

func (l *sizedQueue) add(c candidate) {
	if c.isLarge() {
		l.large.add(c)
	} else {
		l.small.add(c)
	}
}

// next returns the queue whose turn it is, or nil if none may go on now.
func (l *sizedQueue) next() *queue {
	large := l.large.length() > 0 && l.largeActive < l.maxLarge
	switch {
	case large && l.small.length() > 0 && !l.largeFirst():
		return &l.small
	case large:
		return &l.large
	case l.small.length() > 0:
		return &l.small
	}
	return nil
}

// largeFirst reports which of two that may both go on comes first.
func (l *sizedQueue) largeFirst() bool {
	large, small := l.large.next(), l.small.next()
	if l.large.takesLast() {
		large, small = small, large
	}
	return compareAge(large, small) <= 0
}

// started and ended count what is with the workers.
func (l *sizedQueue) started(c candidate) {
	if c.isLarge() {
		l.largeActive++
	}
}

func (l *sizedQueue) finished(c candidate) {
	if c.isLarge() {
		l.largeActive--
	}
}

// maxLargeSends is how many large archives are sent at once: one fills a link, and more
// than a few make each of them late.
const maxLargeSends = 4
