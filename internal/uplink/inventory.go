package uplink

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

// Inventory asks which archives the receiver has, and accepts only responses of the adopted
// store. It is for one goroutine.
type Inventory struct {
	client InventoryClient
	store  *Adoption

	reported   *wire.Store // by the last response
	anyPresent bool        // a response had a retired episode as present
}

// NewInventory returns an inventory that checks responses against store.
func NewInventory(client InventoryClient, store *Adoption) *Inventory {
	return &Inventory{client: client, store: store}
}

// Query returns the receiver's entries for the queries, in their order. It retries while
// the receiver is busy. If the receiver cannot be asked, the error is an
// [*UnreachableError].
func (i *Inventory) Query(ctx context.Context, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	entries, err := RetryWhileBusy(ctx, BusyTimeout, new(atomic.Int64), func() ([]wire.InventoryEntry, error) {
		return i.queryOnce(ctx, queries, readBack)
	})
	if err != nil && ctx.Err() == nil {
		err = &UnreachableError{err}
	}
	return entries, err
}

func (i *Inventory) queryOnce(ctx context.Context, queries []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	before, ctx := i.store.WithKnown(ctx)
	entries, reported, err := i.client.Inventory(ctx, queries, readBack)
	if err := i.store.CheckResponse(reported, before, err); err != nil {
		return nil, err
	}
	i.reported = reported
	if reported != nil {
		i.store.noteGrowth(reported)
	}
	for _, e := range entries {
		i.anyPresent = i.anyPresent || e.State == wire.Present
	}
	return entries, nil
}

// CheckStore returns an error if this host has adopted no store and the one that answered
// last may be another: all episodes would be missing there, and be sent to it again.
func (i *Inventory) CheckStore(ctx context.Context) error {
	if i.reported == nil || i.anyPresent || i.store.knownStore().ID != "" || i.reported.Follows(wire.Unnamed) {
		return nil
	}
	err := i.store.checkKnowsRetired(ctx, i.reported)
	if IsOtherStore(err) {
		return &UnreachableError{err}
	}
	i.anyPresent = err == nil
	return err
}

// maxKnownPages is the maximum number of pages of retired episodes about which a store is
// asked before it counts as one that knows none of them.
const maxKnownPages = 10

// checkKnowsRetired returns an [*OtherStoreError] if this host has retired episodes and the
// receiver knows none of them. Another digest under the same name proves nothing: it may be
// of an upload whose receipt was refused. Only an episode without a receipt is known by its
// name.
func (a *Adoption) checkKnowsRetired(ctx context.Context, reported *wire.Store) error {
	var batch []wire.InventoryQuery
	pages := 0
	queryBatch := func() (bool, error) {
		known, err := a.isAnyKnown(ctx, reported, batch)
		batch, pages = batch[:0], pages+1
		return known, err
	}
	if a.src == nil {
		return nil
	}
	for r, err := range a.src.AllRetired() {
		if err != nil {
			return err
		}
		batch = append(batch, queryFor(r))
		if len(batch) < wire.MaxQueries {
			continue
		}
		if known, err := queryBatch(); known || err != nil {
			return err
		}
		if pages == maxKnownPages {
			return &OtherStoreError{Reported: *reported}
		}
	}
	if len(batch) > 0 {
		if known, err := queryBatch(); known || err != nil {
			return err
		}
	}
	if pages == 0 {
		return nil // nothing is retired
	}
	return &OtherStoreError{Reported: *reported}
}

// isAnyKnown reports whether the receiver knows one of a page of episodes. A refusal is an
// [*UnreachableError], because the episodes are not its cause.
func (a *Adoption) isAnyKnown(ctx context.Context, reported *wire.Store, queries []wire.InventoryQuery) (bool, error) {
	type response struct {
		entries []wire.InventoryEntry
		store   *wire.Store
	}
	got, err := RetryWhileBusy(ctx, BusyTimeout, new(atomic.Int64), func() (response, error) {
		entries, store, err := a.client.Inventory(ctx, queries, false)
		return response{entries, store}, err
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return false, &UnreachableError{fmt.Errorf("ask the receiver about retired episodes: %v", err)}
	case got.store == nil || got.store.ID != reported.ID:
		return false, &UnreachableError{errors.New("the receiver changed its store while it was asked")}
	}
	for i, e := range got.entries {
		if e.State == wire.Present || e.State == wire.StateDamaged || e.State == wire.Divergent && queries[i].Digest == anyDigest {
			return true, nil
		}
	}
	return false, nil
}

// anyDigest stands for the digest of an archive whose receipt is not known: no archive has
// it, because it is of no bytes.
var anyDigest = digest.Digest(sha256.Sum256(nil))

func queryFor(r source.Retired) wire.InventoryQuery {
	if !r.HasReceipt {
		return wire.InventoryQuery{Episode: r.Name, Digest: anyDigest}
	}
	return wire.InventoryQuery{Episode: r.Name, Digest: r.Receipt.Digest}
}
