package wire

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// StallLimits bound how slowly a body may arrive. A slow upload that progresses is never ended. A
// body ends with [Stalled] after no byte for Idle, or after fewer than MinRate bytes per second
// over Window. Only the time spent waiting for the sender counts, not that of our own disk.
type StallLimits struct {
	Idle    time.Duration
	MinRate int64 // bytes per second
	Window  time.Duration
}

// ErrDraining must be the cause with which a stopping server cancels its base context. Senders of
// running uploads get [Draining].
var ErrDraining = errors.New("the receiver is stopping")

// newBody returns the body of r. It ends early with ctx: because the server is draining, the sender
// has disconnected, or the cause is a [*Problem], which the sender gets.
func (p StallLimits) newBody(ctx context.Context, conn *http.ResponseController, r *http.Request) *limitedBody {
	return &limitedBody{StallLimits: p, ctx: ctx, conn: conn, r: r.Body, remaining: r.ContentLength}
}

type limitedBody struct {
	StallLimits
	ctx           context.Context // of the request, or derived from it
	conn          *http.ResponseController
	r             io.Reader
	remaining     int64
	deadlineSetAt time.Time     // when the deadline was last moved
	windowWait    time.Duration // of the current window
	windowBytes   int64         // of the current window
	stopInterrupt func() bool

	mu          sync.Mutex // guards the fields below
	detached    bool       // the connection must not be used any more
	interrupted bool       // the deadline was set to end a read
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.remaining == 0 {
		return 0, io.EOF
	}
	before := time.Now()
	if before.Sub(b.deadlineSetAt) > b.Idle/8 {
		if err := b.conn.SetReadDeadline(before.Add(b.Idle)); err != nil {
			return 0, err
		}
		b.deadlineSetAt = before
	}
	if b.stopInterrupt == nil { // after the first deadline, which must not undo the interruption
		b.stopInterrupt = context.AfterFunc(b.ctx, b.interrupt)
	}
	if err := b.ctx.Err(); err != nil {
		return 0, b.interruptCause(err)
	}
	n, err := b.r.Read(p)
	b.remaining -= int64(n)
	if b.remaining == 0 {
		// The deadline must not end the connection during the fsync.
		b.detach()
		return n, b.conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return n, b.interruptCause(err)
	}
	return n, b.checkRate(n, time.Since(before))
}

// checkRate refuses a sender that is slower than MinRate.
func (b *limitedBody) checkRate(n int, waited time.Duration) error {
	b.windowBytes += int64(n)
	b.windowWait += waited
	if b.windowWait < b.Window {
		return nil
	}
	if float64(b.windowBytes) < float64(b.MinRate)*b.windowWait.Seconds() {
		return Refuse(Stalled, "fewer than %d bytes per second", b.MinRate)
	}
	b.windowBytes, b.windowWait = 0, 0
	return nil
}

// interruptCause returns why the body ended before its length.
func (b *limitedBody) interruptCause(err error) error {
	cause := context.Cause(b.ctx)
	if errors.Is(cause, ErrDraining) {
		return drainingProblem()
	}
	if told, ok := errors.AsType[*Problem](cause); ok {
		return told
	}
	// net/http cancels the context for this as well, so check it before the context.
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(b.deadlineSetAt) >= b.Idle {
		return Refuse(Stalled, "no byte for %v", b.Idle)
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	return err
}

// interrupt ends a read that is in flight. The context calls it, perhaps after the body has ended.
func (b *limitedBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.detached {
		b.interrupted = true
		b.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wasInterrupted reports whether the body was interrupted. Even if all bytes had arrived, net/http
// may take the interruption for the end of the connection, and end the next request on it.
func (b *limitedBody) wasInterrupted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.interrupted
}

// detach stops using the connection, which may be used again. The request's context ends after its
// handler, and must not end the next request as well.
func (b *limitedBody) detach() {
	if b.stopInterrupt != nil {
		b.stopInterrupt()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
}

func drainingProblem() *Problem {
	p := Refuse(Draining, "send it again")
	p.RetryAfter = 5 * time.Second
	return p
}
