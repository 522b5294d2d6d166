package receiver

import (
	"context"
	"errors"
	"io"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// guardedBackend is the receiver as its servers see it. Before each answer of success it
// checks again that the host has access and that the store is at its path. A receipt for an
// archive that this request stored needs no access any more: it had access at the commit.
type guardedBackend struct{ *Receiver }

// recheckError returns err, or an error if the host has lost access or the store was moved.
func (g guardedBackend) recheckError(ctx context.Context, err error) error {
	if err == nil {
		err = g.checkPaths()
	}
	refusal := g.access.recheckRequest(ctx)
	if refusal == nil || errors.Is(err, refusal) {
		return err
	}
	return errors.Join(refusal, err)
}

func (g guardedBackend) recheckReceipt(ctx context.Context, got wire.Receipt, err error) error {
	if err == nil && got.Status == wire.Stored {
		return nil
	}
	return g.recheckError(ctx, err)
}

func (g guardedBackend) Stat(ctx context.Context, key episode.Key) (wire.Receipt, error) {
	got, err := g.Receiver.Stat(ctx, key)
	return got, g.recheckError(ctx, err)
}

func (g guardedBackend) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	got, err := g.Receiver.Put(ctx, u, body)
	return got, g.recheckReceipt(ctx, got, err)
}

func (g guardedBackend) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := g.Receiver.Announce(ctx, u)
	return got, unfinished, g.recheckError(ctx, err)
}

func (g guardedBackend) OpenUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	unfinished, err := g.Receiver.OpenUpload(ctx, key)
	return unfinished, g.recheckError(ctx, err)
}

func (g guardedBackend) AppendPiece(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := g.Receiver.AppendPiece(ctx, host, id, p, body)
	return got, unfinished, g.recheckReceipt(ctx, got, err)
}

func (g guardedBackend) UploadState(ctx context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	unfinished, err := g.Receiver.UploadState(ctx, host, id)
	return unfinished, g.recheckError(ctx, err)
}

func (g guardedBackend) CancelUpload(ctx context.Context, host episode.Name, id string) error {
	return g.recheckError(ctx, g.Receiver.CancelUpload(ctx, host, id))
}

func (g guardedBackend) Inventory(ctx context.Context, host episode.Name, claims []wire.InventoryQuery, readBack bool) ([]wire.InventoryEntry, error) {
	found, err := g.Receiver.Inventory(ctx, host, claims, readBack)
	return found, g.recheckError(ctx, err)
}

func (g guardedBackend) Storage(ctx context.Context, host episode.Name) (wire.Storage, error) {
	storage, err := g.Receiver.Storage(ctx, host)
	return storage, g.recheckError(ctx, err)
}
