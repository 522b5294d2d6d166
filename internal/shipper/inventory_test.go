package shipper_test

import (
	"context"
	"io"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// archiveStates is what a test makes of the receiver's stored archives.
type archiveStates struct {
	verified    map[episode.Name]time.Time
	contents    map[episode.Name]digest.Digest // of what is an archive
	corrupt     map[episode.Name]bool
	slow        map[episode.Name]bool // takes longer to read than an answer may
	unreadable  map[episode.Name]bool // it cannot be examined
	queries     int                   // claims
	reads       int                   // archives read back
	busyAnswers int                   // refusals to come
	storedAgo   time.Duration         // how long ago it was stored, by the receiver's answer
}

// Inventory implements the receiver's contract.
func (r *receiver) Inventory(ctx context.Context, asked []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, *wire.Store, error) {
	if r.during != nil {
		defer r.during()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil {
		return nil, nil, r.down
	}
	if err := r.checkStoreLocked(ctx); err != nil {
		return nil, nil, err
	}
	if len(asked) == 0 || len(asked) > wire.MaxQueries || readBack && len(asked) != 1 {
		r.t.Errorf("asked about %d episodes (read back: %v)", len(asked), readBack)
	}
	if r.archives.busyAnswers > 0 {
		r.archives.busyAnswers--
		busy := wire.Refuse(wire.HostBusy, "later")
		busy.RetryAfter = time.Second
		return nil, nil, busy
	}
	if readBack && r.archives.slow[asked[0].Episode] {
		return nil, nil, context.DeadlineExceeded
	}
	said := make([]wire.InventoryEntry, 0, len(asked))
	for _, c := range asked {
		r.archives.queries++
		said = append(said, r.lookUp(c, readBack))
	}
	return said, r.storeInfo(), nil
}

func (r *receiver) lookUp(c wire.InventoryQuery, readBack bool) wire.InventoryEntry {
	h := wire.InventoryEntry{Episode: c.Episode, State: wire.Absent}
	stored, found := r.stored[c.Episode]
	if !found {
		return h
	}
	if readBack {
		r.archives.reads++
		if r.archives.corrupt[c.Episode] {
			delete(r.stored, c.Episode)
			h.State = wire.StateDamaged
			return h
		}
		r.markVerified(c.Episode, time.Now())
	}
	h.State, h.Digest, h.Size, h.ReceivedAt = wire.Present, &stored.Digest, stored.Size, &stored.ReceivedAt
	if stored.Digest != c.Digest {
		h.State = wire.Divergent
	}
	h.Unreadable = r.archives.unreadable[c.Episode]
	if h.Unreadable {
		return h
	}
	if at, found := r.archives.verified[c.Episode]; found {
		h.VerifiedAt = &wire.Timestamp{Time: at}
		if contents, ok := r.archives.contents[c.Episode]; ok {
			h.Contents = &contents
		}
	}
	return h
}

// markVerified sets when an archive was verified. The caller must hold the lock.
func (r *receiver) markVerified(name episode.Name, at time.Time) {
	if r.archives.verified == nil {
		r.archives.verified = map[episode.Name]time.Time{}
	}
	r.archives.verified[name] = at
}

func contentDigest(r io.ReaderAt, size int64) (digest.Digest, error) {
	return archive.ContentDigest(io.NewSectionReader(r, 0, size), io.Discard)
}
