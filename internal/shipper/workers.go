package shipper

import (
	"context"
	"sync"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/wire"
)

// result is what a worker's piece of work came to.
type result struct {
	name   episode.Name
	stage  Stage
	size   int64       // of the archive, or of the episode if it is errLarge; else what was known before
	status wire.Status // of Send
	held   bool        // it is held, and was tried again all the same
	err    error
}

// hands is how many episodes may be in the hands of sealers, and as many in those of
// senders. The configuration bounds how many of them are packed and sent at one time;
// the others wait for the disk to have synced what was packed or delivered, which it
// does for many at the price of one.
const hands = 32

// sealer packs the episodes that it is given, and seals them. It takes one only
// when it has a packer for it.
func (d *dispatch) sealer(ctx context.Context, id int) error {
	for {
		var p *archive.Packer
		select {
		case p = <-d.packers:
		case <-ctx.Done():
			return nil
		}
		giveBack := sync.OnceFunc(func() { d.packers <- p })
		c, more := <-d.sealc
		if !more {
			giveBack()
			return nil
		}
		beat, end := d.work.begin(id)
		size, err := d.seal(ctx, p, c, beat, giveBack)
		giveBack()
		end()
		if !publish(ctx, d.done, result{name: c.name, stage: Seal, size: size, err: err}) {
			return nil
		}
	}
}

// sender sends the episodes that it is given, and retires them. It takes one only
// when it may send it.
func (d *dispatch) sender(ctx context.Context, id int) error {
	for {
		select {
		case d.turns <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		giveUp := sync.OnceFunc(func() { <-d.turns })
		name, more := <-d.sendc
		if !more {
			giveUp()
			return nil
		}
		beat, end := d.work.begin(id)
		status, err := d.send(ctx, name, beat, giveUp)
		end()
		told := publish(ctx, d.done, result{name: name, stage: Send, status: status, err: err})
		giveUp() // not before: what failed may be a reason to send nothing more
		if !told {
			return nil
		}
	}
}

func publish[T any](ctx context.Context, to chan<- T, v T) bool {
	select {
	case to <- v:
		return true
	case <-ctx.Done():
		return false
	}
}
