package shipped_test

import (
	"testing"
	"time"

	"cis490/internal/digest"
	"cis490/internal/shipped"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// The invariant of deleting, whatever a receiver answers.
func TestDeletingNeedsTheVerySameBytesReadBack(t *testing.T) {
	ours, other := digest.Digest{1}, digest.Digest{2}
	at := func(h int) *wire.Timestamp { return &wire.Timestamp{Time: time.Unix(int64(h)*3600, 0)} }
	good := source.Retired{HasReceipt: true, Receipt: source.Receipt{Digest: ours}}
	for what, c := range map[string]struct {
		r   source.Retired
		h   wire.InventoryEntry
		may bool
	}{
		"read back since":       {good, wire.InventoryEntry{State: wire.Present, Digest: &ours, ReceivedAt: at(1), VerifiedAt: at(2)}, true},
		"read back before":      {good, wire.InventoryEntry{State: wire.Present, Digest: &ours, ReceivedAt: at(2), VerifiedAt: at(1)}, false},
		"read back just then":   {good, wire.InventoryEntry{State: wire.Present, Digest: &ours, ReceivedAt: at(1), VerifiedAt: at(1)}, false},
		"never read back":       {good, wire.InventoryEntry{State: wire.Present, Digest: &ours, ReceivedAt: at(1)}, false},
		"received at no time":   {good, wire.InventoryEntry{State: wire.Present, Digest: &ours, VerifiedAt: at(2)}, false},
		"other bytes":           {good, wire.InventoryEntry{State: wire.Present, Digest: &other, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"no bytes":              {good, wire.InventoryEntry{State: wire.Present, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"divergent":             {good, wire.InventoryEntry{State: wire.Divergent, Digest: &ours, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"absent":                {good, wire.InventoryEntry{State: wire.Absent}, false},
		"not asked":             {good, wire.InventoryEntry{}, false},
		"it carries no receipt": {source.Retired{}, wire.InventoryEntry{State: wire.Present, Digest: &digest.Digest{}, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
	} {
		if why := shipped.ReasonToKeep(c.r, c.h); (why == "") != c.may {
			t.Errorf("%s: kept for %q", what, why)
		}
	}
}
