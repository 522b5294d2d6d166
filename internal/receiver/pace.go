package receiver

import (
	"context"
	"errors"

	"golang.org/x/time/rate"
)

// Costs of what is no reading, in bytes that could be read meanwhile.
const (
	seekCost = 64 << 10 // to begin a file
	skipCost = 1 << 10  // to pass over an archive that came lately
	listCost = 64       // to see a name in a directory
)

// busySlowdown is how many times slower a scrub is while uploads are under way.
const busySlowdown = 8

// pacer says how fast a scrub may read, and counts what its work has cost. It is for one
// goroutine.
type pacer struct {
	limit *rate.Limiter
	burst int
	busy  func() bool
	// tick, unless nil, is called before each wait, so that a long reading does not keep
	// the scrub from noting where it is. It returns no error: that would pass for one of
	// the archive.
	tick  func()
	spent int64 // so many bytes were paid for
}

// newPacer returns a pacer for so many bytes a second; 0 is as fast as can be.
func newPacer(perSecond int64, busy func() bool) *pacer {
	if perSecond <= 0 {
		return &pacer{limit: rate.NewLimiter(rate.Inf, 0), burst: 1 << 30, busy: busy}
	}
	burst := int(min(max(perSecond, 4<<10), 1<<20))
	return &pacer{limit: rate.NewLimiter(rate.Limit(perSecond), burst), burst: burst, busy: busy}
}

// charge counts n bytes without waiting for them.
func (p *pacer) charge(n int) { p.spent += int64(n) }

// wait waits until n bytes may be read.
func (p *pacer) wait(ctx context.Context, n int) error {
	p.charge(n)
	if p.tick != nil {
		p.tick()
	}
	if p.busy() {
		n *= busySlowdown
	}
	for n > 0 {
		some := min(n, p.burst)
		if err := p.limit.WaitN(ctx, some); err != nil {
			return errors.Join(ctx.Err(), err)
		}
		n -= some
	}
	return ctx.Err()
}
