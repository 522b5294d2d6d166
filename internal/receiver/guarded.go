package receiver

import (
	"context"
	"errors"
	"io"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// guarded is the receiver as the doors see it: before any answer of success it asks
// again who is at the other end, and that the store is where its path leads. A receipt
// for what this request stored is an exception of the first: the archive was committed
// while its host had access.
type guarded struct{ *Receiver }

// allow returns err, with what the sender is told instead if its host lost access, or if
// the store was moved.
func (g guarded) allow(ctx context.Context, err error) error {
	if err == nil {
		err = g.checkPaths()
	}
	lost := g.access.recheck(ctx)
	if lost == nil || errors.Is(err, lost) {
		return err
	}
	return errors.Join(lost, err)
}

func (g guarded) allowReceipt(ctx context.Context, got wire.Receipt, err error) error {
	if err == nil && got.Status == wire.Stored {
		return nil
	}
	return g.allow(ctx, err)
}

func (g guarded) Stat(ctx context.Context, key episode.Key) (wire.Receipt, error) {
	got, err := g.Receiver.Stat(ctx, key)
	return got, g.allow(ctx, err)
}

func (g guarded) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	got, err := g.Receiver.Put(ctx, u, body)
	return got, g.allowReceipt(ctx, got, err)
}

func (g guarded) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := g.Receiver.Announce(ctx, u)
	return got, unfinished, g.allow(ctx, err)
}

func (g guarded) Open(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	unfinished, err := g.Receiver.Open(ctx, key)
	return unfinished, g.allow(ctx, err)
}

func (g guarded) Append(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := g.Receiver.Append(ctx, host, id, p, body)
	return got, unfinished, g.allowReceipt(ctx, got, err)
}

func (g guarded) Unfinished(ctx context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	unfinished, err := g.Receiver.Unfinished(ctx, host, id)
	return unfinished, g.allow(ctx, err)
}

func (g guarded) Forget(ctx context.Context, host episode.Name, id string) error {
	return g.allow(ctx, g.Receiver.Forget(ctx, host, id))
}

func (g guarded) Inventory(ctx context.Context, host episode.Name, claims []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	found, err := g.Receiver.Inventory(ctx, host, claims, readBack)
	return found, g.allow(ctx, err)
}

func (g guarded) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	storage, err := g.Receiver.Storage(ctx, host)
	return storage, g.allow(ctx, err)
}
