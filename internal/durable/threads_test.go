package durable

import (
	"runtime"
	"testing"
)

// TestMoreThreadsForGoCode while there is work, and the former number afterwards.
func TestMoreThreadsForGoCode(t *testing.T) {
	cores := runtime.GOMAXPROCS(0)
	now := func(what string, want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%s: %d threads, want %d", what, got, want)
		}
	}
	end := RaiseGOMAXPROCS()
	now("work", 2*cores)
	end()
	now("the end", cores)

	t.Setenv("GOMAXPROCS", "1")
	defer RaiseGOMAXPROCS()()
	now("where somebody has said how many", cores)
}
