package shipper

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"cis490/internal/digest"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// maxKnownPages bounds how many pages of retired episodes a store is asked about before it
// is taken for one that knows none of them.
const maxKnownPages = 10

// isKnownTo returns an [*OtherStoreError] if the receiver knows none of the episodes that
// this host has retired, and retired ones there are. Of another digest under a name
// nothing follows: it may have come of an upload whose receipt was refused. Only an
// episode that carries no receipt is known by its name.
func (a *adoption) isKnownTo(ctx context.Context, said *wire.Store) error {
	var batch []wire.InventoryQuery
	pages := 0
	ask := func() (bool, error) {
		known, err := a.isAnyKnown(ctx, said, batch)
		batch, pages = batch[:0], pages+1
		return known, err
	}
	for r, err := range a.src.Shipped() {
		if err != nil {
			return err
		}
		if batch = append(batch, claimOf(r)); len(batch) < wire.MaxQueries {
			continue
		}
		if known, err := ask(); known || err != nil {
			return err
		}
		if pages == maxKnownPages {
			return &OtherStoreError{Said: *said}
		}
	}
	if len(batch) > 0 {
		if known, err := ask(); known || err != nil {
			return err
		}
	}
	if pages == 0 {
		return nil // nothing is retired
	}
	return &OtherStoreError{Said: *said}
}

// isAnyKnown asks about a page. A refusal is of the way, and not of an episode.
func (a *adoption) isAnyKnown(ctx context.Context, said *wire.Store, claims []wire.InventoryQuery) (bool, error) {
	type answer struct {
		held  []wire.InventoryEntry
		store *wire.Store
	}
	got, err := patiently(ctx, patience, new(atomic.Int64), func() (answer, error) {
		held, store, err := a.up.Inventory(ctx, claims, false)
		return answer{held, store}, err
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return false, &sendError{fmt.Errorf("ask the receiver about retired episodes: %v", err)}
	case got.store == nil || got.store.ID != said.ID:
		return false, &sendError{errors.New("the receiver changed its store while it was asked")}
	}
	for i, h := range got.held {
		if h.State == wire.Present || h.State == wire.StateDamaged || h.State == wire.Divergent && claims[i].Digest == anyDigest {
			return true, nil
		}
	}
	return false, nil
}

// anyDigest stands for that of an archive whose receipt is not known: it is of no bytes.
var anyDigest = digest.Digest(sha256.Sum256(nil))

func claimOf(r source.Retired) wire.InventoryQuery {
	if !r.Known {
		return wire.InventoryQuery{Episode: r.Name, Digest: anyDigest}
	}
	return wire.InventoryQuery{Episode: r.Name, Digest: r.Receipt.Digest}
}

// stock asks for inventories, and takes the answers of the adopted store only.
type stock struct {
	up    stocktaker
	store *adoption

	said  *wire.Store // of the last answer
	known bool        // a retired episode was present in an answer
}

func (s *stock) inventory(ctx context.Context, asked []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	before, ctx := s.store.ask(ctx)
	held, said, err := s.up.Inventory(ctx, asked, readBack)
	if err := s.store.answered(said, before, err); err != nil {
		return nil, err
	}
	if s.said = said; said != nil {
		s.store.grew(said)
	}
	for _, h := range held {
		s.known = s.known || h.State == wire.Present
	}
	return held, nil
}

// isOurs returns an error if the receiver that answered last may have another store, where
// this host has adopted none: all would be missing there, and be sent to it again.
func (s *stock) isOurs(ctx context.Context) error {
	if s.said == nil || s.known || s.store.known().ID != "" || s.said.Follows(wire.Unnamed) {
		return nil
	}
	err := s.store.isKnownTo(ctx, s.said)
	if _, sending := errors.AsType[*sendError](err); sending || isOtherStore(err) {
		return &UnreachableError{err}
	}
	s.known = err == nil
	return err
}
