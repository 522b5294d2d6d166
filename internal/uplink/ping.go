package uplink

import (
	"context"
	"errors"
	"io/fs"

	"cis490/internal/durable"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/wire"
)

// AdoptedBy returns the store that the host of c has adopted, if any. Before the first start
// there is none. What may not be read counts as none.
func AdoptedBy(c hostdir.Config) (outbox.Store, error) {
	dir, err := durable.Open(string(c.Outbox))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return outbox.Store{}, nil
	}
	if err != nil {
		return outbox.Store{}, err
	}
	out := outbox.New(dir)
	defer out.Close()
	adopted, err := out.ReadStore()
	if errors.Is(err, fs.ErrPermission) {
		return outbox.Store{}, nil
	}
	return adopted, err
}

// Ping pings the receiver. It returns an [*OtherStoreError] if the receiver's store is not the
// adopted one or, if none is adopted, one that the host of c would not adopt. It adopts
// nothing.
func Ping(ctx context.Context, c hostdir.Config, client PingClient, adopted outbox.Store) (wire.PingResponse, error) {
	pong, err := client.Ping(withKnown(ctx, adopted))
	switch {
	case err != nil:
		return pong, refusedFor(adopted, err)
	case pong.Store == nil:
		return pong, nil
	case adopted.ID == "" && !pong.Store.Follows(wire.Unnamed):
		return pong, checkKnowsRetiredOf(ctx, c, client, pong.Store)
	}
	return pong, (&Adoption{store: adopted}).checkStore(pong.Store, adopted)
}

// checkKnowsRetiredOf is [Adoption.checkKnowsRetired] for the host of c. A directory that does
// not exist or cannot be read has no retired episodes.
func checkKnowsRetiredOf(ctx context.Context, c hostdir.Config, client InventoryClient, reported *wire.Store) error {
	dirs, err := hostdir.Open(c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	err = (&Adoption{src: dirs.Source, client: client}).checkKnowsRetired(ctx, reported)
	return errors.Join(err, dirs.Close())
}
