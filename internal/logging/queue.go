package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// maxQueued bounds the queued log lines in bytes.
const maxQueued = 1 << 20

// Queue is a writer of log lines that never waits for its reader, because a daemon must continue
// when nothing reads its log. A line that does not fit is dropped, and the next line says how many
// were. A queue must be closed.
type Queue struct {
	w     io.Writer
	style Style
	wake  chan struct{} // holds a value if lines may be queued
	done  chan struct{} // closed once all lines are written after Close

	mu      sync.Mutex // guards the fields below
	lines   [][]byte
	bytes   int // of lines
	dropped int // since the last line that was queued
	closed  bool
}

// NewQueue returns a queue that writes to w. The style is for the lines that the queue adds.
func NewQueue(w io.Writer, style Style) *Queue {
	q := &Queue{w: w, style: style, wake: make(chan struct{}, 1), done: make(chan struct{})}
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
	q.addLine(append([]byte(nil), line...))
	return len(line), nil
}

// reportDropped queues a line with the number of lines dropped before it. The caller must hold
// q.mu.
func (q *Queue) reportDropped() {
	if q.dropped == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines dropped", 0)
	r.Add("dropped", q.dropped)
	h := handler{style: q.style}
	if line, err := h.formatLine(context.Background(), r); err == nil { // never fails: a number can be formatted
		q.addLine([]byte(line + "\n"))
	}
	q.dropped = 0
}

// addLine queues a line. The caller must hold q.mu.
func (q *Queue) addLine(line []byte) {
	q.lines = append(q.lines, line)
	q.bytes += len(line)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Close refuses further lines, and waits up to the given time until the queued ones are written.
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

// run writes queued lines until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	for range q.wake {
		for _, line := range q.takeAll() {
			q.w.Write(line) // this is the log: there is no place to report an error
			q.markWritten(len(line))
		}
	}
}

// takeAll returns the queued lines. They count as queued until they are written.
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
