package admission

import (
	"context"
	"slices"
	"sync"
	"time"

	"cis490/internal/episode"
)

// Limiter bounds how many requests work at the same time, in total and per host.
// While more than half of the slots are in use, a host gets at most an equal share.
//
// A request without a slot waits up to MaxWait. It is refused at once if its host
// already has 2*PerHost active or queued: a waiting upload costs less than a retry.
type Limiter struct {
	Total, PerHost int
	MaxWait        time.Duration

	mu     sync.Mutex // guards the fields below
	active int
	hosts  map[episode.Name]int       // active requests per host
	queue  []*slotWaiter              // in order of arrival
	demand map[episode.Name]time.Time // hosts that had to wait, and since when
}

// slotWaiter is a request that waits for a slot.
type slotWaiter struct {
	host    episode.Name
	granted chan struct{} // closed once it has one
}

// demandTTL is how long a host that was refused keeps its share: it tries again
// within that.
const demandTTL = 20 * time.Second

// Acquire waits for a slot and returns the function that releases it, or a
// [*RefusedError], or the error of ctx. Nothing notices that a sender has gone while
// its body is unread, so such a request waits to the end.
func (l *Limiter) Acquire(ctx context.Context, host episode.Name) (release func(), err error) {
	w, err := l.enqueue(host)
	if err != nil {
		return nil, err
	}
	var timeout <-chan time.Time
	select {
	case <-w.granted:
	default:
		timeout = time.After(l.MaxWait)
	}
	select {
	case <-w.granted:
	case <-timeout:
		err = l.refusalError(w)
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil && l.dequeue(w) {
		return nil, err
	}
	return func() { l.release(host) }, nil
}

// ActiveCount returns how many requests have a slot.
func (l *Limiter) ActiveCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active
}

// QueuedCount returns how many requests wait for a slot.
func (l *Limiter) QueuedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// enqueue adds a request to the queue, where it may be granted a slot at once.
func (l *Limiter) enqueue(host episode.Name) (*slotWaiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hosts == nil {
		l.hosts, l.demand = make(map[episode.Name]int), make(map[episode.Name]time.Time)
	}
	n := l.hosts[host]
	for _, other := range l.queue {
		if other.host == host {
			n++
		}
	}
	if n >= 2*l.PerHost {
		return nil, busyError(HostBusy, "%d requests of this host are active or waiting", n)
	}
	w := &slotWaiter{host, make(chan struct{})}
	l.queue, l.demand[host] = append(l.queue, w), time.Now()
	l.grantLocked()
	return w, nil
}

// refusalError returns why a request has no slot even now: the demand of another host may
// have expired while it waited.
func (l *Limiter) refusalError(w *slotWaiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grantLocked()
	if n := l.hosts[w.host]; n >= l.PerHost {
		return busyError(HostBusy, "%d requests of this host are active", n)
	}
	return busyError(Busy, "all slots are in use")
}

// dequeue removes a request from the queue and reports whether it was still there.
func (l *Limiter) dequeue(w *slotWaiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.queue, w)
	if i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	return i >= 0
}

func (l *Limiter) release(host episode.Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	l.hosts[host]--
	if l.hosts[host] == 0 {
		delete(l.hosts, host)
	}
	l.grantLocked()
}

// grantLocked gives slots to the waiters that may have one, first to the host that
// has the fewest. The caller must hold l.mu.
func (l *Limiter) grantLocked() {
	for l.active < l.Total {
		share := l.fairShareLocked()
		next := -1
		for i, w := range l.queue {
			n := l.hosts[w.host]
			if n >= l.PerHost || 2*l.active > l.Total && n >= share || next >= 0 && n >= l.hosts[l.queue[next].host] {
				continue
			}
			next = i
		}
		if next < 0 {
			return
		}
		w := l.queue[next]
		l.queue = slices.Delete(l.queue, next, next+1)
		delete(l.demand, w.host)
		l.active++
		l.hosts[w.host]++
		close(w.granted)
	}
}

// fairShareLocked returns the number of slots for each host that has some or wants
// some. The caller must hold l.mu.
func (l *Limiter) fairShareLocked() int {
	hosts := len(l.hosts)
	for host, at := range l.demand {
		switch {
		case time.Since(at) > demandTTL:
			delete(l.demand, host)
		case l.hosts[host] == 0:
			hosts++
		}
	}
	return max(1, l.Total/max(1, hosts))
}
