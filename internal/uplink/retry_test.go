package uplink_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/uplink"
	"cis490/internal/wire"
)

func busy(code wire.Code) error {
	problem := wire.Refuse(code, "")
	problem.RetryAfter = time.Second
	return problem
}

// TestBusyReceiverIsRetriedUntilTheTimeout, which other open requests of this host restart.
func TestBusyReceiverIsRetriedUntilTheTimeout(t *testing.T) {
	const timeout = time.Minute
	for what, c := range map[string]struct {
		err          error
		openRequests int64 // of others
		min, max     time.Duration
	}{
		"busy":                                  {busy(wire.Busy), 0, timeout / 2, timeout},
		"this host is busy, and has others":     {busy(wire.HostBusy), 1, 10 * timeout, 11 * timeout},
		"this host is busy, and has none":       {busy(wire.HostBusy), 0, timeout / 2, timeout},
		"busy without Retry-After":              {wire.Refuse(wire.Busy, ""), 0, 0, 0},
		"a refusal of the episode":              {busy(wire.Conflict), 0, 0, 0},
		"a fault of the path":                   {errors.New("connection refused"), 0, 0, 0},
		"the receiver answers in the first try": {nil, 0, 0, 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open atomic.Int64
				open.Store(c.openRequests)
				ctx, cancel := context.WithTimeout(t.Context(), 10*timeout)
				defer cancel()
				start := time.Now()
				_, err := uplink.RetryWhileBusy(ctx, timeout, &open, func() (int, error) { return 0, c.err })
				if took := time.Since(start); took < c.min || took > c.max {
					t.Errorf("retried for %v, want %v to %v", took, c.min, c.max)
				}
				if !errors.Is(err, c.err) && ctx.Err() == nil {
					t.Errorf("got %v, want %v", err, c.err)
				}
				if n := open.Load(); n != c.openRequests {
					t.Errorf("%d requests count as open at the end, want %d", n, c.openRequests)
				}
			})
		})
	}
}
