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

// behind returns when an episode would have to be finished to come after those that wait
// now; with [Mixed] it is one of the next. Its marker bears what time its maker likes.
func (o Order) behind(now time.Time) time.Time {
	if o == Newest {
		return time.Time{}
	}
	return now
}

// queue holds episodes that wait for the same, sorted by when they were finished.
type queue struct {
	order Order
	all   []candidate
	odd   bool // with Mixed: the oldest is next
}

func (q *queue) len() int { return len(q.all) }

// add puts c in its place. What has just been finished goes to the end, and so
// does each of a page that comes sorted.
func (q *queue) add(c candidate) {
	if n := len(q.all); n == 0 || compare(q.all[n-1], c) <= 0 {
		q.all = append(q.all, c)
		return
	}
	i, _ := slices.BinarySearchFunc(q.all, c, compare)
	q.all = slices.Insert(q.all, i, c)
}

// compare orders candidates by their age, and then by their names, so that a pass
// is the same each time.
func compare(a, b candidate) int {
	return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.name, b.name))
}

// next returns what [queue.pop] would; there must be something.
func (q *queue) next() candidate {
	if q.fromEnd() {
		return q.all[len(q.all)-1]
	}
	return q.all[0]
}

// pop takes the next one out.
func (q *queue) pop() {
	if q.fromEnd() {
		q.all = q.all[:len(q.all)-1]
	} else {
		q.all = q.all[1:]
	}
	q.odd = !q.odd
}

func (q *queue) fromEnd() bool { return q.order == Newest || q.order == Mixed && !q.odd }

// lanes are two queues to the same workers. Large episodes keep to a part of the
// workers, so that small ones do not wait for them.
type lanes struct {
	small, large queue
	most         int // large ones at once
	underWay     int // large ones
}

func newLanes(order Order, most int) lanes {
	return lanes{small: queue{order: order}, large: queue{order: order}, most: most}
}

func (l *lanes) len() int { return l.small.len() + l.large.len() }

func (l *lanes) add(c candidate) {
	if c.large() {
		l.large.add(c)
	} else {
		l.small.add(c)
	}
}

// next returns the queue whose turn it is, or nil if none may go on now.
func (l *lanes) next() *queue {
	large := l.large.len() > 0 && l.underWay < l.most
	switch {
	case large && l.small.len() > 0 && !l.largeFirst():
		return &l.small
	case large:
		return &l.large
	case l.small.len() > 0:
		return &l.small
	}
	return nil
}

// largeFirst reports which of two that may both go on comes first.
func (l *lanes) largeFirst() bool {
	large, small := l.large.next(), l.small.next()
	if l.large.fromEnd() {
		large, small = small, large
	}
	return compare(large, small) <= 0
}

// began and ended count what is with the workers.
func (l *lanes) began(c candidate) {
	if c.large() {
		l.underWay++
	}
}

func (l *lanes) ended(c candidate) {
	if c.large() {
		l.underWay--
	}
}

// mostLargeSent is how many large archives are sent at once: one fills a link, and more
// than a few make each of them late.
const mostLargeSent = 4
