package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/scrub"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// maxReadbacks is how many archives are read back for their hosts at once.
const maxReadbacks = 2

// AdmitInventory waits for a slot: an inventory counts as an upload.
func (r *Receiver) AdmitInventory(ctx context.Context, host episode.Name) (release func(), err error) {
	release, err = r.uploadLimiter.Acquire(ctx, host)
	return release, problemOf(err)
}

// Inventory says what is stored of what a host claims. With readBack it reads
// the one archive from the disk first.
func (r *Receiver) Inventory(ctx context.Context, host episode.Name, claims []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	if readBack {
		done, err := r.readbackLimiter.Acquire(ctx, host)
		if err != nil {
			return nil, hostBusy("archives are being read back")
		}
		defer done()
	}
	found := make([]wire.InventoryEntry, 0, len(claims))
	unindexed := map[int]store.Object{} // by their index in found
	var first error
	failed := 0
	for i, c := range claims {
		h, o, err := r.examine(ctx, episode.Key{Host: host, Name: c.Episode}, c, readBack)
		if err != nil && (ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err)) {
			return nil, r.noteFault(err)
		}
		if err != nil { // the other claims get their answers
			if failed++; failed == 1 {
				first = fmt.Errorf("%s: %w", c.Episode, err)
			}
		}
		if err == nil && h.State == wire.Absent && o != (store.Object{}) {
			unindexed[i] = o
		}
		found = append(found, h)
	}
	if err := r.addRows(ctx, host, claims, found, unindexed); err != nil {
		if ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err) {
			return nil, r.noteFault(err)
		}
		first = errors.Join(first, err)
	}
	if first != nil {
		r.log.Error("could not examine stored archives", "host", host, "archives", failed, "err", first, "hint", scrub.UnreadableHint)
	}
	return found, ctx.Err()
}

// readBack verifies an archive for a host that waits, and logs the result.
func (r *Receiver) readBack(ctx context.Context, key episode.Key) (scrub.Result, error) {
	result, err := r.verifier.VerifyNow(ctx, key)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		result.Log(r.log.With("host", key.Host, "episode", key.Name))
	}
	return result, err
}

// examine answers a claim. With an error, the answer says what is known all the same. An
// object that is returned with [wire.Absent] is stored without attributes: its row says
// what it is.
func (r *Receiver) examine(ctx context.Context, key episode.Key, c wire.InventoryQuery, readBack bool) (wire.InventoryEntry, store.Object, error) {
	h := wire.InventoryEntry{Episode: c.Episode, State: wire.Absent}
	o, err := r.store.Stat(key)
	if err == nil && readBack {
		var v scrub.Result
		v, err = r.readBack(ctx, key)
		if err == nil || !v.Object.Digest.IsZero() {
			o = v.Object
		}
		h.Undecodable = errors.Is(v.Err, store.ErrUndecodable)
		switch {
		case v.Err == nil || h.Undecodable || errors.Is(err, fs.ErrNotExist):
		case err == nil && !v.Quarantined: // of a disk that fails as a whole, nothing is believed
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
