package shipper

import (
	"context"
	"sync"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// workResult is the result of a worker.
type workResult struct {
	name   episode.Name
	stage  Stage
	size   int64       // of the archive, or of the episode with errLarge; otherwise what was known before
	status wire.Status // of Send
	held   bool        // it is held, and was retried all the same
	err    error
}

// workersPerStage is the number of workers per stage. It exceeds packers and senders so that
// episodes that wait for fsync share one commit of the file system.
const workersPerStage = 32

// packWorker packs episodes. It receives one only when it has a packer.
func (d *dispatcher) packWorker(ctx context.Context, id int) error {
	for {
		var p *archive.Packer
		select {
		case p = <-d.packers:
		case <-ctx.Done():
			return nil
		}
		releasePacker := sync.OnceFunc(func() { d.packers <- p })
		c, more := <-d.packc
		if !more {
			releasePacker()
			return nil
		}
		beat, end := d.work.startWork(id)
		size, err := d.packEpisode(ctx, p, c, beat, releasePacker)
		releasePacker()
		end()
		if !sendOrDone(ctx, d.results, workResult{name: c.name, stage: Pack, size: size, err: err}) {
			return nil
		}
	}
}

// sendWorker sends episodes and retires them. It receives one only when it has a send slot.
func (d *dispatcher) sendWorker(ctx context.Context, id int) error {
	for {
		select {
		case d.sendSlots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		releaseSlot := sync.OnceFunc(func() { <-d.sendSlots })
		name, more := <-d.sendc
		if !more {
			releaseSlot()
			return nil
		}
		beat, end := d.work.startWork(id)
		status, err := d.sendEntry(ctx, name, beat, releaseSlot)
		end()
		published := sendOrDone(ctx, d.results, workResult{name: name, stage: Send, status: status, err: err})
		releaseSlot() // not before: the failure may pause sending
		if !published {
			return nil
		}
	}
}

func sendOrDone[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

// stuckAfter is how long a worker may show no progress. It is longer than every wait that is
// bounded by itself. The longest is for a receiver that is slow to answer the announcement, does
// not answer the upload, and does not answer the query about it.
const stuckAfter = 20 * time.Minute

// workTracker records when each active worker last progressed.
type workTracker struct {
	mu           sync.Mutex
	lastProgress map[int]time.Time // guarded by mu; by worker
}

// startWork records that a worker has started. The worker must call beat on progress, and end.
func (w *workTracker) startWork(worker int) (beat, end func()) {
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

// isProgressing reports whether no worker is stuck.
func (w *workTracker) isProgressing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, last := range w.lastProgress {
		if time.Since(last) > stuckAfter {
			return false
		}
	}
	return true
}

// IsAlive reports whether the dispatcher responds and no worker is stuck. It is meant for a
// watchdog.
func (s *Shipper) IsAlive(ctx context.Context) bool {
	answer := make(chan struct{}, 1)
	select {
	case s.livenessProbes <- answer:
	case <-ctx.Done():
		return false
	}
	select {
	case <-answer:
		return s.work.isProgressing()
	case <-ctx.Done():
		return false
	}
}
