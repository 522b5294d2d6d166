package shipper

import (
	"runtime"
	"testing"
)

// TestPlacesForGoCodeFollowTheWork, and are what they were in the end.
func TestPlacesForGoCodeFollowTheWork(t *testing.T) {
	cores := runtime.GOMAXPROCS(0)
	now := func(what string, want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%s: %d places, want %d", what, got, want)
		}
	}
	p := newProcs()
	end := p.begin()
	now("small episodes", 2*cores)
	first := p.alone()
	second := p.alone()
	now("two large ones", cores)
	first()
	now("a large one", cores)
	second()
	now("small ones again", 2*cores)
	end()
	now("the end", cores)

	t.Setenv("GOMAXPROCS", "1")
	defer newProcs().begin()()
	now("where somebody has said how many", cores)
}
