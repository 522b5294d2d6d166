package s3backend

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"cis490/internal/access"
	"cis490/internal/admission"
	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Admit waits for a slot. Inventories and probes count as uploads.
func (b *Backend) Admit(ctx context.Context, host episode.Name) (release func(), err error) {
	release, err = b.uploads.Acquire(ctx, host)
	return release, b.forSender(err)
}

const (
	// maxVerifies is how many archives are read for their hosts at once.
	maxVerifies = 2
	// examinedAtOnce is how many entries of an inventory are examined at the same time.
	examinedAtOnce = 8
)

// Inventory returns an entry for each query of a host. With readBack it reads the one archive first.
func (b *Backend) Inventory(ctx context.Context, host episode.Name, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	if readBack {
		done, err := b.verifies.Acquire(ctx, host)
		if err != nil {
			p := wire.Refuse(wire.HostBusy, "archives are being read back")
			p.RetryAfter = time.Second
			return nil, b.checkAnswer(ctx, p)
		}
		defer done()
	}
	entries := make([]wire.InventoryEntry, len(queries))
	var g errgroup.Group
	g.SetLimit(examinedAtOnce)
	for i, q := range queries {
		g.Go(func() error {
			var err error
			entries[i], err = b.examine(ctx, episode.Key{Host: host, Name: q.Episode}, q, readBack)
			if err != nil && ctx.Err() == nil { // the other queries get their entries
				b.log.Error("could not examine a stored archive", "host", host, "episode", q.Episode, "err", err)
				entries[i] = unreadable(q)
			}
			return nil
		})
	}
	_ = g.Wait()
	err := ctx.Err()
	if err == nil {
		err = b.index.CatchUp(ctx) // hosts delete episodes for what the place of the store says
	}
	return entries, b.checkAnswer(ctx, err)
}

// unreadable returns the entry of an archive of which nothing is known: its host keeps its copy, sends
// nothing and reports the episode.
func unreadable(q wire.InventoryQuery) wire.InventoryEntry {
	return wire.InventoryEntry{Episode: q.Episode, State: wire.Divergent, Digest: new(digest.Digest), Unreadable: true}
}

func (b *Backend) examine(ctx context.Context, key episode.Key, q wire.InventoryQuery, readBack bool) (wire.InventoryEntry, error) {
	e := wire.InventoryEntry{Episode: q.Episode, State: wire.Absent}
	c, err := b.newestCommit(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	info, err := b.bucket.Stat(ctx, c.object)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil // its host sends it again
	}
	if err != nil {
		return e, err
	}
	isQuarantined, err := b.addVerified(ctx, c, info, &e)
	if err != nil || isQuarantined {
		return e, err // its host sends it again
	}
	if readBack {
		err = b.verify(ctx, c, &e)
	}
	if err != nil || e.State == wire.StateDamaged {
		return e, err
	}
	e.State = wire.Present
	if c.row.SHA256 != q.Digest {
		e.State = wire.Divergent
	}
	e.Digest, e.Size, e.ReceivedAt = &c.row.SHA256, c.row.Size, &wire.Timestamp{Time: c.row.ReceivedAt}
	return e, nil
}

// addVerified adds to e when the archive was last verified, if it is the same object. It reports whether
// the archive was quarantined.
func (b *Backend) addVerified(ctx context.Context, c commit, info bucket.Info, e *wire.InventoryEntry) (isQuarantined bool, err error) {
	v, known, err := b.readVerification(ctx, c)
	if err != nil {
		return false, err
	}
	// In this order: a receiver may record its reading after another one has quarantined the archive.
	if isQuarantined, err = b.isQuarantined(ctx, c); isQuarantined || err != nil {
		return isQuarantined, err
	}
	if known && v.ETag == info.ETag {
		e.VerifiedAt, e.Contents = &v.At, &v.Contents
	}
	return false, nil
}

// verify reads and decodes an archive for its host, and notes the result in e. It continues if the
// sender disconnects, so that the next attempt finds the result.
func (b *Backend) verify(ctx context.Context, c commit, e *wire.InventoryEntry) error {
	unlock, err := b.readings.LockContext(ctx, c.row.Key.Host)
	if err != nil {
		return err
	}
	defer unlock()
	work := b.workContext(ctx)
	r := archiveReader{backend: b, quarantine: true}
	result, v, err := r.verify(work, c, verification{})
	if err != nil {
		return access.CauseOf(work, err)
	}
	if errors.Is(result.Err, store.ErrUnreadable) {
		return result.Err
	}
	result.LogTo(b.log.With("host", c.row.Key.Host, "episode", c.row.Key.Name))
	switch {
	case errors.Is(result.Err, store.ErrUndecodable):
		e.Undecodable, e.VerifiedAt, e.Contents = true, nil, nil
	case result.Err != nil:
		e.State, e.VerifiedAt, e.Contents = wire.StateDamaged, nil, nil
		if b.opts.Observer != nil {
			b.opts.Observer.NoteDamage(c.row.Key, "damaged", result.Quarantined)
		}
	case !v.At.IsZero():
		e.VerifiedAt, e.Contents = &v.At, &v.Contents
	}
	return nil
}

// unlimitedSpace is the space of an object store: only it knows when it is full.
func unlimitedSpace() (admission.Space, error) {
	return admission.Space{Bytes: math.MaxInt64, Inodes: math.MaxInt64}, nil
}

// Storage returns how much may still be stored for a host, for a ping.
func (b *Backend) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	if err := b.index.Moved(); err != nil {
		return wire.Storage{}, b.checkAnswer(ctx, err)
	}
	left, err := b.disk.SpaceLeft(host)
	if err != nil {
		return wire.Storage{}, b.checkAnswer(ctx, err)
	}
	s := wire.Storage{FreeBytes: max(left.Bytes, 0), Accepting: true}
	err = b.disk.CheckReserve(host, 0, 1)
	if refused, ok := errors.AsType[*admission.RefusedError](err); ok {
		s.Accepting, s.Detail, err = false, refused.Detail, nil
	}
	if unfit := b.CheckSpace(); err == nil && unfit != nil {
		s.Accepting, s.Detail = false, "the object store does not answer, or data_dir is full: see the receiver's log"
		b.log.Warn("uploads are refused", "err", unfit)
	}
	return s, b.checkAnswer(ctx, err)
}
