package shipper

import (
	"context"
	"sync"
	"time"
)

// stuckAfter is how long a piece of work may show no progress: longer than
// every wait that is bounded by itself, of which the longest is that for a receiver
// which is slow to answer to an announcement, does not answer to the upload, nor to
// the question what became of it.
const stuckAfter = 20 * time.Minute

// work knows what the packers and senders have in hand, and when each last got
// on with it.
type work struct {
	mu   sync.Mutex
	last map[int]time.Time // guarded by mu; by worker
}

// begin notes that a worker has something in hand, and returns what it must
// call whenever it gets on, and at the end.
func (w *work) begin(worker int) (beat, end func()) {
	beat = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.last == nil {
			w.last = make(map[int]time.Time)
		}
		w.last[worker] = time.Now()
	}
	beat()
	return beat, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.last, worker)
	}
}

// moves reports whether nothing is stuck.
func (w *work) moves() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, last := range w.last {
		if time.Since(last) > stuckAfter {
			return false
		}
	}
	return true
}

// Alive reports whether the shipper gets on: whoever decides answers, and no
// worker is stuck. It is what a watchdog should ask.
func (s *Shipper) Alive(ctx context.Context) bool {
	answer := make(chan struct{}, 1)
	select {
	case s.beats <- answer:
	case <-ctx.Done():
		return false
	}
	select {
	case <-answer:
		return s.work.moves()
	case <-ctx.Done():
		return false
	}
}
