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
	pingInterval     = 3 * time.Minute
	fullPingInterval = time.Minute // while an archive waits for room at the receiver
)

// jitter returns a wait that is d on average.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pingTimeout bounds one ping.
const pingTimeout = 30 * time.Second

// pingResult is what came of a ping, or what else shows that the receiver has another store.
type pingResult struct {
	response    wire.PingResponse
	err         error
	hint        string // what to do about err, if that is known better than [wire.Hint] knows
	renewed     bool   // with other credentials than the uploads before had
	unsolicited bool   // it is no answer to a ping of the prober's
}

// Wake asks the receiver at once, and lets what failed for its fault or the path's be sent
// at once if it answers: something has changed. It may be called at any time.
func (s *Shipper) Wake() {
	select {
	case s.wakec <- struct{}{}:
	default: // it is awake
	}
}

func (d *dispatcher) pingLoop(ctx context.Context) error {
	for range d.pingc {
		if !publish(ctx, d.pingResults, d.pingAndRenew(ctx)) {
			return nil
		}
	}
	return nil
}

// pingAndRenew asks the receiver. If it takes nothing, the host's credentials may have been
// renewed on the disk: then it asks with those.
func (d *dispatcher) pingAndRenew(ctx context.Context) pingResult {
	p := d.pingOnce(ctx)
	if p.err == nil || d.Renew == nil || ctx.Err() != nil {
		return p
	}
	renewed, hint := d.Renew(p.err)
	if renewed {
		if p = d.pingOnce(ctx); p.err != nil && ctx.Err() == nil {
			_, hint = d.Renew(p.err)
		}
	}
	p.renewed, p.hint = renewed, hint
	return p
}

func (d *dispatcher) pingOnce(ctx context.Context) pingResult {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	pong, err := d.store.Ping(ctx, d.client)
	return pingResult{response: pong, err: err}
}

// mayPing reports whether the receiver may be asked. A single pass asks once, if it has
// failed. What is on its way to a receiver that seems to be there comes to an answer of its
// own.
func (d *dispatcher) mayPing() bool {
	switch {
	case d.link.pinging:
		return false
	case d.once:
		return d.link.down && d.link.failedPings == 0
	}
	return d.link.down || d.link.pingNow || d.activeSends == 0
}

// handlePing takes in an answer to a ping, or what else shows that the receiver has another
// store.
func (d *dispatcher) handlePing(p pingResult) error {
	now := time.Now()
	if uplink.IsOtherStore(p.err) {
		d.link.markDown(p.err, d.once, now)
	}
	was := d.link
	d.link.handlePing(p, now)
	d.report.changed = true
	switch {
	case d.link.down:
		d.dropQueues(&d.toSend.small, &d.toSend.large)
	case d.once:
	case was.down: // nobody looked into the outbox meanwhile
		d.restartScan()
		fallthrough
	default:
		if was.failedPings > 0 || was.woken || p.renewed {
			d.endBackoffs(now, backoff.waitsForReceiver)
		}
		d.noteReceiverSpace(p.response.Storage.FreeBytes, now)
	}
	d.notifyStatus()
	return nil
}

// statusTime is how a status names a time.
const statusTime = time.DateTime + " MST"

// notifyStatus tells the service manager how it goes.
func (d *dispatcher) notifyStatus() {
	if d.Status == nil {
		return
	}
	t := d.Tally()
	d.Status(fmt.Sprintf("%d shipped since the start, %d held; %s wait in the outbox; %s",
		t.Shipped+t.AlreadyPresent, d.held, config.Bytes(max(0, d.out.Bytes())), d.link))
}
