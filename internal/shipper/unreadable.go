package shipper

import "cis490/internal/wire"

// noteUnreadable notes in found that the receiver could not examine its copy. It reports
// whether not even the digest of that copy is known: the finding is then [Unknown].
func noteUnreadable(h wire.InventoryEntry, found *Audited) bool {
	found.Detail = "not read back: the receiver could not examine its copy, see its journal; keep the episode"
	return h.Digest == nil || h.Digest.IsZero()
}
