package labtest_test

import (
	"fmt"
	"testing"

	"cis490/internal/labtest"
)

// TestManyHostsShareFewPlaces of a receiver, and of one host there are more senders
// than it may have: each brings everything home in one pass, and takes none of it for
// a fault.
func TestManyHostsShareFewPlaces(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, labtest.Set("limits.uploads", "3"), labtest.Set("limits.uploads_per_host", "2"))
	var passes []*labtest.Process
	for n := range 6 {
		h := l.Host(fmt.Sprintf("lab-%02d", n))
		for e := range 8 {
			h.Episode(fmt.Sprintf("run-%d", e))
		}
		passes = append(passes, h.Launch("--once"))
	}
	for _, p := range passes {
		if code := p.Wait(t); code != 0 {
			t.Errorf("a pass ended with %d, want 0\n%s", code, p.Output())
		}
	}
	l.Settled(t)
}
