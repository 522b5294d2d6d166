package uplink

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"cis490/internal/retry"
	"cis490/internal/wire"
)

// BusyTimeout is for how long a request is retried while the receiver is busy.
const BusyTimeout = 2 * time.Minute

// maxRetryJitter is the maximum wait that is added to the Retry-After of the receiver.
const maxRetryJitter = 8 * time.Second

// RetryWhileBusy calls request until the receiver is not busy, and gives up when timeout has
// passed since the first refusal. The caller keeps its slot meanwhile, so that fewer requests
// compete. OpenRequests counts the requests that are waiting for a response: while others of
// this host are, a refusal for the host's own limit restarts the timeout, because those end.
func RetryWhileBusy[T any](ctx context.Context, timeout time.Duration, openRequests *atomic.Int64, request func() (T, error)) (T, error) {
	var deadline time.Time
	for n := 1; ; n++ {
		openRequests.Add(1)
		got, err := request()
		others := openRequests.Add(-1) > 0
		minWait := RetryAfter(err)
		if !IsBusy(err) || minWait == 0 {
			return got, err
		}
		now := time.Now()
		if deadline.IsZero() || errors.Is(err, wire.HostBusy) && others {
			deadline = now.Add(timeout)
		}
		wait := minWait + retry.Backoff(time.Second, maxRetryJitter, n)
		if now.Add(wait).After(deadline) {
			return got, err
		}
		if !retry.Sleep(ctx, wait) {
			return got, ctx.Err()
		}
	}
}

// IsBusy reports whether the receiver asks to retry soon.
func IsBusy(err error) bool {
	return errors.Is(err, wire.HostBusy) || errors.Is(err, wire.Busy) || errors.Is(err, wire.Draining)
}

// RetryAfter returns the minimum wait that the receiver asked for.
func RetryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.RetryAfter
	}
	return 0
}
