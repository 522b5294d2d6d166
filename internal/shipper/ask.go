package shipper

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"cis490/internal/config"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// How long after the receiver was last heard of it is asked how it is, on average: half as
// long at least, and half as much again at most, so that many hosts do not ask together.
const (
	askEvery = 3 * time.Minute
	askRoom  = time.Minute // while an archive waits for room at the receiver
)

// around returns a wait that is d on average.
func around(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pingTimeout bounds one ping.
const pingTimeout = 30 * time.Second

// ponged is what came of a ping, or what else shows that the receiver has another store.
type ponged struct {
	pong    wire.PingResponse
	err     error
	hint    string // what to do about err, if that is known better than [wire.Hint] knows
	renewed bool   // with other credentials than the uploads before had
	aside   bool   // it is no answer to a ping of the prober's
}

// Wake asks the receiver at once, and lets what failed for its fault or the path's be sent
// at once if it answers: something has changed. It may be called at any time.
func (s *Shipper) Wake() {
	select {
	case s.wakes <- struct{}{}:
	default: // it is awake
	}
}

func (d *dispatch) prober(ctx context.Context) error {
	for range d.probec {
		if !publish(ctx, d.pongs, d.probe(ctx)) {
			return nil
		}
	}
	return nil
}

// probe asks the receiver. If it takes nothing, the host's credentials may have been
// renewed on the disk: then it asks with those.
func (d *dispatch) probe(ctx context.Context) ponged {
	p := d.ping(ctx)
	if p.err == nil || d.Renew == nil || ctx.Err() != nil {
		return p
	}
	renewed, hint := d.Renew(p.err)
	if renewed {
		if p = d.ping(ctx); p.err != nil && ctx.Err() == nil {
			_, hint = d.Renew(p.err)
		}
	}
	p.renewed, p.hint = renewed, hint
	return p
}

func (d *dispatch) ping(ctx context.Context) ponged {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	pong, err := d.store.Ping(ctx, d.client)
	return ponged{pong: pong, err: err}
}

// mayProbe reports whether the receiver may be asked. A single pass asks once, if it has
// failed. What is on its way to a receiver that seems to be there comes to an answer of its
// own.
func (d *dispatch) mayProbe() bool {
	switch {
	case d.link.probing:
		return false
	case d.once:
		return d.link.down && d.link.failed == 0
	}
	return d.link.down || d.link.hurry || d.sending == 0
}

// ponged takes in an answer to a ping, or what else shows that the receiver has another
// store.
func (d *dispatch) ponged(p ponged) error {
	now := time.Now()
	if uplink.IsOtherStore(p.err) {
		d.link.fail(p.err, d.once, now)
	}
	was := d.link
	d.link.answered(p, now)
	d.report.due = true
	switch {
	case d.link.down:
		d.drop(&d.toSend.small, &d.toSend.large)
	case d.once:
	case was.down: // nobody looked into the outbox meanwhile
		d.sweep()
		fallthrough
	default:
		if was.failed > 0 || was.woken || p.renewed {
			d.retryAtOnce(now, delay.waitsForReceiver)
		}
		d.roomThere(p.pong.Storage.FreeBytes, now)
	}
	d.notify()
	return nil
}

// stamp is how a status names a time.
const stamp = time.DateTime + " MST"

// notify tells the service manager how it goes.
func (d *dispatch) notify() {
	if d.Status == nil {
		return
	}
	t := d.Tally()
	d.Status(fmt.Sprintf("%d shipped since the start, %d held; %s wait in the outbox; %s",
		t.Shipped+t.AlreadyPresent, d.held, config.Bytes(max(0, d.out.Bytes())), d.link))
}
