package labtest_test

import (
	"fmt"
	"testing"

	"cis490/internal/labtest"
)

// TestManyHostsShareFewSlots: a receiver has fewer slots than there are senders, on one host
// too. Each host delivers everything in one pass, and reports no fault.
func TestManyHostsShareFewSlots(t *testing.T) {
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

// TestAHostThatHasItsPartOfTheDiskWaits, and no other does. With a larger quota it delivers
// everything.
func TestAHostThatHasItsPartOfTheDiskWaits(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, labtest.Set("limits.host_bytes", `"2500KiB"`))
	h, other := l.Host("lab-01"), l.Host("lab-02")
	for n := range 3 {
		makeLargeEpisode(t, h, fmt.Sprintf("run-%d", n), 2<<20)
	}
	h.Set("senders", "1")
	pass := h.Once().Must(t, 1, labtest.Tally{Scanned: 3, Shipped: 1, Transient: 2})
	mustContain(t, "the pass", pass.Stderr, " attempt=1 err=\"the receiver refused: insufficient-storage: this host's archives")
	ping := h.Run("--ping")
	ping.MustExit(t, 0)
	// 2500 KiB minus 513 blocks of 4 KiB and an inode, rounded.
	mustContain(t, "the ping", ping.Stdout, "448 KiB available to this host")
	l.Process().WaitLine(t, "a host comes near limits.host_bytes host=lab-01")
	makeLargeEpisode(t, other, "run-0", 2<<20)
	other.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	wantNoHolds(t, h)
	l.Set("limits.host_bytes", `"1GiB"`)
	l.Restart()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	l.Settled(t)
}
