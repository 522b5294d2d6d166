package logging

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// maxQueued bounds the bytes of log lines that wait for whoever reads them.
const maxQueued = 1 << 20

// Queue is a writer of log lines that never waits for its reader: a daemon must go on
// when nobody reads its log. Lines that do not fit into the queue are dropped, and
// counted in a line of their own. It must be closed.
type Queue struct {
	w    io.Writer
	form Form
	wake chan struct{} // holds a value if there may be something to write
	done chan struct{} // closed when everything was written after Close

	mu      sync.Mutex // guards the fields below
	lines   [][]byte
	bytes   int // of lines
	dropped int // since the last line that was queued
	closed  bool
}

// NewQueue returns a queue that writes to w, in lines of a form.
func NewQueue(w io.Writer, form Form) *Queue {
	q := &Queue{w: w, form: form, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues a line, or drops it. It returns no error.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.bytes+len(line) > maxQueued {
		q.dropped++
		return len(line), nil
	}
	q.reportDropped()
	q.add(append([]byte(nil), line...))
	return len(line), nil
}

// reportDropped queues a line that counts those that were dropped before it. The caller
// must hold q.mu.
func (q *Queue) reportDropped() {
	if q.dropped == 0 {
		return
	}
	h := handler{form: q.form}
	head := h.formatHead(slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped", 0))
	q.add(fmt.Appendf(nil, "%s dropped=%d\n", head, q.dropped))
	q.dropped = 0
}

// add queues a line. The caller must hold q.mu.
func (q *Queue) add(line []byte) {
	q.lines = append(q.lines, line)
	q.bytes += len(line)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close stops taking lines, and waits for at most that long until those that are queued
// are written.
func (q *Queue) Close(within time.Duration) {
	q.mu.Lock()
	if !q.closed {
		q.reportDropped()
		q.closed = true
		close(q.wake)
	}
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(within):
	}
}

// run writes what is queued until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	for range q.wake {
		for _, line := range q.takeAll() {
			q.w.Write(line) // an error has no place to go: this is the log
			q.markWritten(len(line))
		}
	}
}

// takeAll returns the lines that are queued. They count until they are written.
func (q *Queue) takeAll() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines := q.lines
	q.lines = nil
	return lines
}

func (q *Queue) markWritten(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= n
}
