package shipper

import (
	"context"
	"sync"
	"sync/atomic"
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
func (d *dispatcher) packWorker(ctx context.Context) error {
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
		w := d.work.startWork(c.name, Pack)
		size, err := d.packEpisode(ctx, p, c, w.recordWrite, releasePacker)
		releasePacker()
		d.work.endWork(w)
		if !sendOrDone(ctx, d.results, workResult{name: c.name, stage: Pack, size: size, err: err}) {
			return nil
		}
	}
}

// sendWorker sends episodes and retires them. It receives one only when it has a send slot.
func (d *dispatcher) sendWorker(ctx context.Context) error {
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
		w := d.work.startWork(name, Send)
		status, err := d.sendEntry(ctx, name, w, releaseSlot)
		d.work.endWork(w)
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

// work is the processing of one episode by a worker.
type work struct {
	name      episode.Name
	stage     Stage
	startedAt time.Time

	lastProgress atomic.Int64 // a [time.Duration] since startedAt
	size         atomic.Int64 // of the archive; 0 while it is unknown
	position     atomic.Int64 // bytes of the archive that are written or sent
	moved        atomic.Int64 // bytes that were written or read to be sent, repetitions included
	delivered    atomic.Bool  // the receiver has confirmed the archive
}

// beat records progress. A worker that makes none for stuckAfter is stuck.
func (w *work) beat() { w.lastProgress.Store(int64(time.Since(w.startedAt))) }

// advance records that n bytes of the archive, which end at position, were processed.
func (w *work) advance(n int, position int64) {
	w.moved.Add(int64(n))
	if position > w.position.Load() { // a repeated request starts at an earlier position
		w.position.Store(position)
	}
}

// recordWrite records a write of n bytes to an archive, which now has total bytes.
func (w *work) recordWrite(n int, total int64) {
	w.beat()
	w.advance(n, total)
}

// workTracker tracks the work of all workers.
type workTracker struct {
	mu     sync.Mutex
	active map[*work]struct{} // guarded by mu
}

// startWork records that a worker has started. The worker must call beat on progress, and then
// endWork.
func (t *workTracker) startWork(name episode.Name, stage Stage) *work {
	w := &work{name: name, stage: stage, startedAt: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active == nil {
		t.active = make(map[*work]struct{})
	}
	t.active[w] = struct{}{}
	return w
}

func (t *workTracker) endWork(w *work) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.active, w)
}

// isProgressing reports whether no worker is stuck.
func (t *workTracker) isProgressing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for w := range t.active {
		if time.Since(w.startedAt)-time.Duration(w.lastProgress.Load()) > stuckAfter {
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
