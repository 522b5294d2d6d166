package shipper

import (
	"context"
	"sync"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// result is what a worker's piece of work came to.
type result struct {
	name   episode.Name
	stage  Stage
	size   int64       // of the archive, or of the episode if it is errLarge; else what was known before
	status wire.Status // of Send
	held   bool        // it is held, and was tried again all the same
	err    error
}

// workersPerStage is how many episodes may be in the hands of sealers, and as many in those of
// senders. The configuration bounds how many of them are packed and sent at one time;
// the others wait for the disk to have synced what was packed or delivered, which it
// does for many at the price of one.
const workersPerStage = 32

// packWorker packs the episodes that it is given, and seals them. It takes one only
// when it has a packer for it.
func (d *dispatcher) packWorker(ctx context.Context, id int) error {
	for {
		var p *archive.Packer
		select {
		case p = <-d.packers:
		case <-ctx.Done():
			return nil
		}
		giveBack := sync.OnceFunc(func() { d.packers <- p })
		c, more := <-d.packc
		if !more {
			giveBack()
			return nil
		}
		beat, end := d.work.start(id)
		size, err := d.packEpisode(ctx, p, c, beat, giveBack)
		giveBack()
		end()
		if !publish(ctx, d.results, result{name: c.name, stage: Pack, size: size, err: err}) {
			return nil
		}
	}
}

// sendWorker sends the episodes that it is given, and retires them. It takes one only
// when it may send it.
func (d *dispatcher) sendWorker(ctx context.Context, id int) error {
	for {
		select {
		case d.sendSlots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		giveUp := sync.OnceFunc(func() { <-d.sendSlots })
		name, more := <-d.sendc
		if !more {
			giveUp()
			return nil
		}
		beat, end := d.work.start(id)
		status, err := d.send(ctx, name, beat, giveUp)
		end()
		told := publish(ctx, d.results, result{name: name, stage: Send, status: status, err: err})
		giveUp() // not before: what failed may be a reason to send nothing more
		if !told {
			return nil
		}
	}
}

func publish[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// stuckAfter is how long a piece of work may show no progress: longer than
// every wait that is bounded by itself, of which the longest is that for a receiver
// which is slow to answer to an announcement, does not answer to the upload, nor to
// the question what became of it.
const stuckAfter = 20 * time.Minute

// workTracker knows what the packers and senders have in hand, and when each last got
// on with it.
type workTracker struct {
	mu           sync.Mutex
	lastProgress map[int]time.Time // guarded by mu; by worker
}

// start notes that a worker has something in hand, and returns what it must
// call whenever it gets on, and at the end.
func (w *workTracker) start(worker int) (beat, end func()) {
	beat = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.lastProgress == nil {
			w.lastProgress = make(map[int]time.Time)
		}
		w.lastProgress[worker] = time.Now()
	}
	beat()
	return beat, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.lastProgress, worker)
	}
}

// progressing reports whether nothing is stuck.
func (w *workTracker) progressing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, last := range w.lastProgress {
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
	case s.livenessProbes <- answer:
	case <-ctx.Done():
		return false
	}
	select {
	case <-answer:
		return s.work.progressing()
	case <-ctx.Done():
		return false
	}
}
