package uplink

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"

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
	a := &Adoption{store: adopted, client: client, log: slog.New(slog.DiscardHandler)}
	if adopted.ID != "" { // only a first store must know the retired episodes
		return a.Ping(ctx, client)
	}
	dirs, broken := hostdir.Open(c)
	if broken == nil {
		defer dirs.Close()
		a.src = dirs.Source
	} else if errors.Is(broken, fs.ErrNotExist) || errors.Is(broken, fs.ErrPermission) {
		broken = nil // there are none, or they are not this user's to see
	}
	pong, err := a.Ping(ctx, client)
	return pong, errors.Join(err, broken) // what the receiver says comes first: this is a test of the connection
}
