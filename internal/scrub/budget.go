package scrub

import (
	"context"
	"errors"

	"golang.org/x/time/rate"
)

// Costs of work other than reading, in bytes that could be read in the same time.
const (
	seekCost = 64 << 10 // to start reading a file
	skipCost = 1 << 10  // to skip an archive that arrived recently
	listCost = 64       // to read a name in a directory
)

// busySlowdown is how many times slower a scrub is while uploads are in flight.
const busySlowdown = 8

// Budget limits the bytes per second that a pass may cost, and counts them. It must be
// used by one goroutine.
type Budget struct {
	limiter *rate.Limiter
	busy    func() bool
	// BeforeWait, unless nil, is called before each wait, so that the position is saved
	// during a long reading. It returns no error, which would be taken for one of the
	// archive.
	BeforeWait func()
	spent      int64 // bytes, in total
}

// NewBudget returns a budget of bytes per second. 0 means unlimited. While busy reports true, a scrub is
// slowed down.
func NewBudget(perSecond int64, busy func() bool) *Budget {
	limit, burst := rate.Limit(perSecond), int(min(max(perSecond, 4<<10), 1<<20))
	if perSecond <= 0 {
		limit, burst = rate.Inf, 1<<30
	}
	return &Budget{limiter: rate.NewLimiter(limit, burst), busy: busy}
}

// chargeBytes counts n bytes and does not wait.
func (b *Budget) chargeBytes(n int) { b.spent += int64(n) }

// WaitSeek waits until another archive may be opened.
func (b *Budget) WaitSeek(ctx context.Context) error { return b.waitBytes(ctx, seekCost) }

// waitBytes counts n bytes and waits until they may be read.
func (b *Budget) waitBytes(ctx context.Context, n int) error {
	b.chargeBytes(n)
	if b.BeforeWait != nil {
		b.BeforeWait()
	}
	if b.busy() {
		n *= busySlowdown
	}
	for n > 0 {
		portion := min(n, b.limiter.Burst())
		if err := b.limiter.WaitN(ctx, portion); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		n -= portion
	}
	return ctx.Err()
}
