package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"time"

	"cis490/internal/admission"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Admit waits for a slot. Inventories and probes count as uploads.
func (b *Backend) Admit(ctx context.Context, host episode.Name) (release func(), err error) {
	release, err = b.uploads.Acquire(ctx, host)
	return release, b.refusal(err)
}

// Inventory returns an entry for each query of a host. With readBack it reads the one archive first.
func (b *Backend) Inventory(ctx context.Context, host episode.Name, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	entries := make([]wire.InventoryEntry, 0, len(queries))
	for _, q := range queries {
		e, err := b.examine(ctx, episode.Key{Host: host, Name: q.Episode}, q, readBack)
		if err != nil {
			return nil, b.checkAnswer(ctx, fmt.Errorf("examine %s/%s: %w", host, q.Episode, err))
		}
		entries = append(entries, e)
	}
	return entries, b.checkAnswer(ctx, nil)
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
	if readBack {
		if err := b.verify(ctx, c, &e); err != nil || e.State == wire.StateDamaged {
			return e, err
		}
	}
	e.State = wire.Present
	if c.row.SHA256 != q.Digest {
		e.State = wire.Divergent
	}
	e.Digest, e.Size, e.ReceivedAt = &c.row.SHA256, c.row.Size, &wire.Timestamp{Time: c.row.ReceivedAt}
	return e, nil
}

// verify reads and decodes an archive for its host, and notes the result in e. A host reads one at a time.
func (b *Backend) verify(ctx context.Context, c commit, e *wire.InventoryEntry) error {
	unlock, err := b.readings.LockContext(ctx, c.row.Key.Host)
	if err != nil {
		return err
	}
	defer unlock()
	contents, err := decodeArchive(ctx, b.bucket, c)
	switch {
	case errors.Is(err, errCorrupt):
		e.State = wire.StateDamaged
		if b.opts.Observer != nil {
			b.opts.Observer.NoteDamage(c.row.Key, err.Error(), false)
		}
		return nil
	case errors.Is(err, errUndecodable):
		e.Undecodable = true
		return nil
	case err != nil:
		return err
	}
	e.VerifiedAt, e.Contents = &wire.Timestamp{Time: time.Now()}, &contents
	return nil
}

// unlimitedSpace is the space of an object store: only it knows when it is full.
func unlimitedSpace() (admission.Space, error) {
	return admission.Space{Bytes: math.MaxInt64, Inodes: math.MaxInt64}, nil
}

// Storage returns how much may still be stored for a host, for a ping.
func (b *Backend) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	disk := admission.NewDisk(unlimitedSpace, b.quota)
	left, err := disk.SpaceLeft(host)
	if err != nil {
		return wire.Storage{}, b.checkAnswer(ctx, err)
	}
	s := wire.Storage{FreeBytes: max(left.Bytes, 0), Accepting: true}
	err = disk.CheckReserve(host, 0, 1)
	if refused, ok := errors.AsType[*admission.RefusedError](err); ok {
		s.Accepting, s.Detail, err = false, refused.Detail, nil
	}
	return s, b.checkAnswer(ctx, err)
}
