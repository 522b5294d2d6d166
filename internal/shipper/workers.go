package shipper

import (
	"context"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// result is what a worker's piece of work came to.
type result struct {
	name   episode.Name
	stage  Stage
	size   int64       // of Seal: of the archive
	status wire.Status // of Send
	err    error
}

type ponged struct {
	pong wire.Pong
	err  error
}

// packer seals the episodes that it is given.
func (d *dispatch) packer(ctx context.Context, id int) error {
	p := archive.NewPacker()
	for name := range d.sealc {
		beat, end := d.work.begin(id)
		size, err := d.seal(ctx, p, name, beat)
		end()
		if !report(ctx, d.done, result{name: name, stage: Seal, size: size, err: err}) {
			return nil
		}
	}
	return nil
}

// sender sends and retires the episodes that it is given.
func (d *dispatch) sender(ctx context.Context, id int) error {
	for name := range d.sendc {
		beat, end := d.work.begin(id)
		status, err := d.send(ctx, name, beat)
		end()
		if !report(ctx, d.done, result{name: name, stage: Send, status: status, err: err}) {
			return nil
		}
	}
	return nil
}

// pingTimeout bounds one look at a receiver that failed.
const pingTimeout = 30 * time.Second

func (d *dispatch) prober(ctx context.Context) error {
	for range d.probec {
		pctx, cancel := context.WithTimeout(ctx, pingTimeout)
		pong, err := d.up.Ping(pctx)
		cancel()
		if !report(ctx, d.pongs, ponged{pong, err}) {
			return nil
		}
	}
	return nil
}

func report[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}
