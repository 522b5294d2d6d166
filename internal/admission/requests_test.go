package admission_test

import (
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/admission"
	"cis490/internal/fixture"
)

// TestAHostThatSendsTooManyRequestsWaits, and no other does.
func TestAHostThatSendsTooManyRequestsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r admission.Requests
		start := time.Now()
		for range 12000 {
			fixture.Must(t, r.Wait(t.Context(), "h"))
		}
		if took := time.Since(start); took < 1900*time.Millisecond || took > 2*time.Second {
			t.Errorf("12000 requests took %v, want 2 s", took)
		}
		start = time.Now()
		fixture.Must(t, r.Wait(t.Context(), "other"))
		if took := time.Since(start); took != 0 {
			t.Errorf("another host waited for %v", took)
		}
	})
}
