package admission

import "testing"

// TestOneAddressLeavesConnectionsToOthers, whatever is configured.
func TestOneAddressLeavesConnectionsToOthers(t *testing.T) {
	for _, uploads := range []int{1, 64, 512, 4096} {
		c := NewConns(uploads, 8)
		if c.perAddress < minUnidentified || 4*c.perAddress > c.max {
			t.Errorf("%d uploads: one address may have %d of %d connections", uploads, c.perAddress, c.max)
		}
	}
}
