package diskbackend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/refusal"
	"cis490/internal/scrub"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// maxReadbacks is how many archives are read back for their hosts at once.
const maxReadbacks = 2

// Admit waits for a slot. Inventories and probes count as uploads.
func (b *Backend) Admit(ctx context.Context, host episode.Name) (release func(), err error) {
	release, err = b.uploadLimiter.Acquire(ctx, host)
	return release, refusal.FromAdmission(err)
}

// Inventory returns an entry for each query of a host. With readBack it verifies the one
// archive first.
func (b *Backend) Inventory(ctx context.Context, host episode.Name, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	entries, err := b.examineEntries(ctx, host, queries, readBack)
	return entries, b.checkAnswer(ctx, err)
}

func (b *Backend) examineEntries(ctx context.Context, host episode.Name, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	if readBack {
		done, err := b.readbackLimiter.Acquire(ctx, host)
		if err != nil {
			return nil, hostBusy("archives are being read back")
		}
		defer done()
	}
	entries := make([]wire.InventoryEntry, 0, len(queries))
	unattributed := map[int]store.Object{} // by their index in entries
	var first error
	failed := 0
	for i, c := range queries {
		h, o, err := b.examineEntry(ctx, episode.Key{Host: host, Name: c.Episode}, c, readBack)
		if err != nil && (ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err)) {
			return nil, err
		}
		if err != nil { // the other queries get their entries
			failed++
			if failed == 1 {
				first = fmt.Errorf("%s: %w", c.Episode, err)
			}
		}
		if err == nil && h.State == wire.Absent && o != (store.Object{}) {
			unattributed[i] = o
		}
		entries = append(entries, h)
	}
	if err := b.addRows(ctx, host, queries, entries, unattributed); err != nil {
		if ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
			return nil, err
		}
		first = errors.Join(first, err)
	}
	if first != nil {
		b.log.Error("could not examine stored archives", "host", host, "archives", failed, "err", first, "hint", scrub.UnreadableHint)
	}
	return entries, ctx.Err()
}

// readBack verifies an archive for a host that waits, and logs the result.
func (b *Backend) readBack(ctx context.Context, key episode.Key) (scrub.Result, error) {
	result, err := b.verifier.VerifyNow(ctx, key)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		result.LogTo(b.log.With("host", key.Host, "episode", key.Name))
	}
	if result.Quarantined {
		b.observer.NoteDamage(key, findingOf(result.Err), true)
	}
	return result, err
}

// examineEntry returns the entry of an archive. With an error, the entry has what is known. An
// object that is returned with [wire.Absent] is stored without attributes: its row has its
// digest.
func (b *Backend) examineEntry(ctx context.Context, key episode.Key, c wire.InventoryQuery, readBack bool) (wire.InventoryEntry, store.Object, error) {
	h := wire.InventoryEntry{Episode: c.Episode, State: wire.Absent}
	o, err := b.store.Stat(key)
	if err == nil && readBack {
		var v scrub.Result
		v, err = b.readBack(ctx, key)
		if err == nil || !v.Object.Digest.IsZero() {
			o = v.Object
		}
		h.Undecodable = errors.Is(v.Err, store.ErrUndecodable)
		switch {
		case v.Err == nil || h.Undecodable || errors.Is(err, fs.ErrNotExist):
		case err == nil && !v.Quarantined: // the disk fails as a whole: its result proves nothing
			return unreadableEntry(h, o, c), o, nil
		default:
			h.State = wire.StateDamaged
			return h, o, err
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return h, store.Object{}, nil
	case err != nil:
		return unreadableEntry(h, o, c), o, err
	case o.Digest.IsZero():
		return h, o, nil
	}
	return entryOf(h, o, c), o, nil
}

// entryOf completes h from the stored object.
func entryOf(h wire.InventoryEntry, o store.Object, c wire.InventoryQuery) wire.InventoryEntry {
	h.State = wire.Present
	if o.Digest != c.Digest {
		h.State = wire.Divergent
	}
	h.Digest, h.Size, h.ReceivedAt = &o.Digest, o.Size, &wire.Timestamp{Time: o.ReceivedAt}
	if !o.VerifiedAt.IsZero() {
		h.VerifiedAt = &wire.Timestamp{Time: o.VerifiedAt}
	}
	if !o.VerifiedAt.IsZero() && !o.Contents.IsZero() {
		h.Contents = &o.Contents
	}
	return h
}

// unreadableEntry returns the entry of an archive that cannot be read: a file without
// permissions, or a disk that fails as a whole. The archive may be intact. For "damaged" or
// "absent" its host would send it again, into a PUT that meets the same error. So the entry is
// present or divergent by the digest that is known, and never verified: the host keeps its
// copy.
//
// If no digest is known the entry is divergent, with a digest of zeros: the host keeps its
// copy, sends nothing and reports the episode. "present" would be a guess, and an operator may
// delete the copy for it.
func unreadableEntry(h wire.InventoryEntry, o store.Object, c wire.InventoryQuery) wire.InventoryEntry {
	o.VerifiedAt = time.Time{}
	h = entryOf(h, o, c)
	h.Unreadable, h.Undecodable = true, false
	if o.Digest.IsZero() {
		h.ReceivedAt = nil
	}
	return h
}

// addRows completes the entries without a digest from their rows: those of [unreadableEntry],
// and those of archives without attributes, which are in unattributed by their index in
// entries. A file with neither attributes nor a row was copied in by hand. It stays absent
// until its next upload. One search of the index serves all entries.
func (b *Backend) addRows(ctx context.Context, host episode.Name, queries []wire.InventoryQuery, entries []wire.InventoryEntry, unattributed map[int]store.Object) error {
	var keys []episode.Key
	for i, h := range entries {
		if _, needed := unattributed[i]; needed || h.Unreadable && h.Digest.IsZero() {
			keys = append(keys, episode.Key{Host: host, Name: h.Episode})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := b.rowSearches.lookUp(ctx, host, keys...)
	if err != nil {
		return err
	}
	for i, h := range entries {
		row, known := rows.LastRow(episode.Key{Host: host, Name: h.Episode})
		if !known {
			continue
		}
		if o, needed := unattributed[i]; needed {
			o.Digest = row.SHA256
			entries[i] = entryOf(h, o, queries[i])
		} else if h.Unreadable && h.Digest.IsZero() {
			o := store.Object{Size: row.Size, Digest: row.SHA256, ReceivedAt: row.ReceivedAt}
			entries[i] = unreadableEntry(h, o, queries[i])
		}
	}
	return nil
}
