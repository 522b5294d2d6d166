package receiver

import (
	"context"
	"time"

	"cis490/internal/episode"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// unreadableEntry answers for an archive that cannot be examined: a file without permissions,
// or a disk that fails as a whole. Nothing says that the archive is lost. "damaged" and
// "absent" would have its host send it again, into a PUT that meets the same obstacle. So
// it is present or divergent by the digest that is known, and never verified, so that its
// host keeps its copy.
//
// Where no digest is known, the answer is divergent, with a digest of zeros: the host then
// keeps its copy, sends nothing of its own accord, and reports the episode. To say
// "present" would claim what nobody knows, and a person may delete by that.
func unreadableEntry(h wire.InventoryEntry, o store.Object, c wire.InventoryQuery) wire.InventoryEntry {
	o.VerifiedAt = time.Time{}
	h = entryOf(h, o, c)
	h.Unreadable, h.Undecodable = true, false
	if o.Digest.IsZero() {
		h.ReceivedAt = nil
	}
	return h
}

// addRows completes the answers for which no digest is known with what their rows say:
// those of [unreadableEntry], and those of archives without attributes, which are unindexed. A
// file without attributes and without a row was copied in by hand: it is nothing yet, and
// its next upload reads it. One search of the index serves all of them.
func (r *Receiver) addRows(ctx context.Context, host episode.Name, claims []wire.InventoryQuery, found []wire.InventoryEntry, unindexed map[int]store.Object) error {
	var keys []episode.Key
	for i, h := range found {
		if _, needed := unindexed[i]; needed || h.Unreadable && h.Digest.IsZero() {
			keys = append(keys, episode.Key{Host: host, Name: h.Episode})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := r.rowSearches.lookUp(ctx, host, keys...)
	if err != nil {
		return err
	}
	for i, h := range found {
		row, known := rows.Last(episode.Key{Host: host, Name: h.Episode})
		if !known {
			continue
		}
		if o, needed := unindexed[i]; needed {
			o.Digest = row.SHA256
			found[i] = entryOf(h, o, claims[i])
		} else if h.Unreadable && h.Digest.IsZero() {
			o := store.Object{Size: row.Size, Digest: row.SHA256, ReceivedAt: row.ReceivedAt}
			found[i] = unreadableEntry(h, o, claims[i])
		}
	}
	return nil
}
