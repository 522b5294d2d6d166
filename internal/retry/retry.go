// Package retry decides how long to wait before another attempt.
package retry

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Backoff returns a random wait below a bound that doubles from base with each attempt, up to ceiling:
// hosts that failed together must not return together.
func Backoff(base, ceiling time.Duration, attempt int) time.Duration {
	return rand.N(min(ceiling, base<<min(attempt, 20))) + 1
}

// ParseAfter parses the value of a Retry-After header: seconds, or a date. It returns 0 if it is neither, or
// past. The sender chose it, so the caller must limit it.
func ParseAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(n, uint64(math.MaxInt64/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// Sleep waits, and reports whether it waited to the end: not if ctx ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
