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

// Pace is how slowly a body may come. A slow upload that moves is never cut off;
// one that stalls does not sit: no byte for Idle, or fewer than Rate a second
// over Window, and it ends with [Stalled]. Only time spent waiting for the
// sender counts, not what our own disk takes.
type Pace struct {
	Idle   time.Duration
	Rate   int64 // bytes a second
	Window time.Duration
}

// ErrDraining is the cause with which a server's base context must be cancelled
// to end uploads: their senders are told [Draining].
var ErrDraining = errors.New("the receiver is stopping")

// body returns the body of r. It ends early with ctx: if the server drains, the
// sender leaves, or the cause is a [*Problem], which the sender is told.
func (p Pace) body(ctx context.Context, conn *http.ResponseController, r *http.Request) *pacedBody {
	return &pacedBody{Pace: p, ctx: ctx, conn: conn, r: r.Body, left: r.ContentLength}
}

// end lets go of the connection, which may live on: the request's context ends
// after its handler, and must not end the next request as well.
func (b *pacedBody) end() {
	if b.stop != nil {
		b.stop()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
}

// interrupt ends a read that is under way. It comes from the context, and perhaps
// late.
func (b *pacedBody) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.cut = true
		b.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wasCut reports whether the body was interrupted. Even if all of it had come by
// then, net/http may have taken that for the end of the connection, and would end
// the next request on it.
func (b *pacedBody) wasCut() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cut
}

type pacedBody struct {
	Pace
	ctx    context.Context // of the request, or a part of that
	conn   *http.ResponseController
	r      io.Reader
	left   int64
	set    time.Time     // when the deadline was last moved
	waited time.Duration // in this window
	got    int64         // in this window
	stop   func() bool

	mu   sync.Mutex // guards the fields below
	over bool       // the connection is not ours any more
	cut  bool       // it was interrupted
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	before := time.Now()
	if before.Sub(b.set) > b.Idle/8 {
		if err := b.conn.SetReadDeadline(before.Add(b.Idle)); err != nil {
			return 0, err
		}
		b.set = before
	}
	if b.stop == nil { // after the first deadline, which must not undo this one
		b.stop = context.AfterFunc(b.ctx, b.interrupt)
	}
	if err := b.ctx.Err(); err != nil {
		return 0, b.ended(err)
	}
	n, err := b.r.Read(p)
	b.left -= int64(n)
	if b.left == 0 {
		// The deadline must not end the connection while we sync.
		b.end()
		return n, b.conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return n, b.ended(err)
	}
	return n, b.keepsPace(n, time.Since(before))
}

// keepsPace refuses a sender that sends, but hardly.
func (b *pacedBody) keepsPace(n int, waited time.Duration) error {
	b.got += int64(n)
	b.waited += waited
	if b.waited < b.Window {
		return nil
	}
	if float64(b.got) < float64(b.Rate)*b.waited.Seconds() {
		return Refuse(Stalled, "fewer than %d bytes a second", b.Rate)
	}
	b.got, b.waited = 0, 0
	return nil
}

// ended says why a body ended before its length.
func (b *pacedBody) ended(err error) error {
	cause := context.Cause(b.ctx)
	if errors.Is(cause, ErrDraining) {
		return draining()
	}
	if told, ok := errors.AsType[*Problem](cause); ok {
		return told
	}
	// net/http cancels the context for this as well, so it comes before that.
	if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(b.set) >= b.Idle {
		return Refuse(Stalled, "no byte for %v", b.Idle)
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	return err
}

func draining() *Problem {
	p := Refuse(Draining, "send it again")
	p.RetryAfter = 5 * time.Second
	return p
}
