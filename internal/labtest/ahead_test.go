package labtest_test

import (
	"testing"

	"cis490/internal/labtest"
)

// TestLargeEpisodeIsSentWhileItIsPacked: nothing is sent twice, and a cut or a kill during the
// upload costs no more than usual. Package shipper tests that it is sent while it is packed.
func TestLargeEpisodeIsSentWhileItIsPacked(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("packs episodes of a hundred megabytes")
	}
	const size = 100 << 20
	for what, c := range map[string]struct {
		fault labtest.Fault
		kill  bool
	}{
		"all goes well":         {},
		"the connection is cut": {fault: labtest.Fault{CutAfter: 20 << 20}},
		"the shipper is killed": {kill: true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, h := newLab(t)
			makeLargeEpisode(t, h, "large", size)
			l.Proxy.Next(c.fault)
			if c.kill {
				p := h.Launch("--once")
				l.Proxy.After(12<<20, p.Shoot)
				p.Wait(t)
				h.Kill(p)
				l.Check(t)
			}
			h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			if sent := l.Proxy.Sent(); sent > size*102/100+4*maxResent {
				t.Errorf("%d bytes were sent for an archive of %d", sent, size)
			}
			l.Settled(t)
		})
	}
}
