package retry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/retry"
)

func TestBackoffDoublesUpToItsCeiling(t *testing.T) {
	const base, ceiling = time.Second, 10 * time.Second
	for attempt, bound := range map[int]time.Duration{0: base, 1: 2 * base, 3: 8 * base, 4: ceiling, 1000: ceiling} {
		longest := time.Duration(0)
		for range 1000 {
			got := retry.Backoff(base, ceiling, attempt)
			longest = max(longest, got)
			if got <= 0 || got > bound {
				t.Fatalf("attempt %d: got %v, want at most %v", attempt, got, bound)
			}
		}
		if longest < bound/2 {
			t.Errorf("attempt %d: at most %v of 1000 waits, want some near %v", attempt, longest, bound)
		}
	}
}

func TestParseAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const century = 100 * 365 * 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "1.5": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := retry.ParseAfter(text, now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"99999999999", "18446744073709551615"} {
		if got := retry.ParseAfter(text, now); got < century {
			t.Errorf("%q: got %v, want a very long time", text, got)
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if !retry.Sleep(ctx, 0) || !retry.Sleep(ctx, time.Minute) {
			t.Error("a wait within the context was cut off")
		}
		before := time.Now()
		if retry.Sleep(ctx, 2*time.Hour) || time.Since(before) != 59*time.Minute {
			t.Errorf("it waited for %v", time.Since(before))
		}
		if retry.Sleep(ctx, 0) || retry.Sleep(ctx, time.Minute) {
			t.Error("a context that has ended does not count")
		}
	})
}
