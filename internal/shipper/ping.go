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

// Average time between the last response of the receiver and the next ping.
const (
	pingInterval     = 3 * time.Minute
	fullPingInterval = time.Minute // while an archive waits for space at the receiver
)

// addJitter returns a random duration from d/2 to 3d/2, so that hosts do not ping together.
func addJitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// pingTimeout bounds one ping.
const pingTimeout = 30 * time.Second

// pingResult is the result of a ping, or of another request that found another store.
type pingResult struct {
	response    wire.PingResponse
	err         error
	hint        string // what to do about err, if it is more specific than [wire.Hint]
	renewed     bool   // with credentials other than those of the uploads before
	unsolicited bool   // it is not of pingLoop
}

// RequestPing pings the receiver at once. If it answers, what failed because of the receiver or the
// path is retried at once. RequestPing may be called at any time.
func (s *Shipper) RequestPing() {
	select {
	case s.wakec <- struct{}{}:
	default: // a wake is pending
	}
}

func (d *dispatcher) pingLoop(ctx context.Context) error {
	for range d.pingc {
		if !sendOrDone(ctx, d.pingResults, d.pingAndRenew(ctx)) {
			return nil
		}
	}
	return nil
}

// pingAndRenew pings the receiver. If that fails and the host's credentials were renewed on
// the disk, it pings once more with those.
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
	response, err := d.store.Ping(ctx, d.client)
	return pingResult{response: response, err: err}
}

// mayPing reports whether a ping may be sent. A single pass sends one, after an upload
// failed. Uploads in flight show by themselves whether the receiver answers.
func (d *dispatcher) mayPing() bool {
	switch {
	case d.link.pinging:
		return false
	case d.once:
		return d.link.state == linkSuspect
	}
	return d.link.state != linkUp || d.link.pingNow || d.activeSends == 0
}

// handlePing handles the result of a ping.
func (d *dispatcher) handlePing(p pingResult) error {
	now := time.Now()
	if uplink.IsOtherStore(p.err) {
		d.link.markSuspect(p.err, d.once, now)
	}
	before := d.link
	d.link.handlePing(p, now)
	d.reporting.changed = true
	switch {
	case d.link.state != linkUp:
		d.dropQueues(&d.toSend.small, &d.toSend.large)
	case d.once:
	case before.state != linkUp: // the outbox was not scanned meanwhile
		d.restartScan()
		fallthrough
	default:
		if before.state == linkDown || before.woken || p.renewed {
			d.endBackoffs(now, backoff.waitsForReceiver)
		}
		d.noteReceiverSpace(p.response.Storage.FreeBytes, now)
	}
	d.notifyStatus()
	return nil
}

// statusTime is the format of times for the service manager.
const statusTime = time.DateTime + " MST"

// notifyStatus sends the status to the service manager.
func (d *dispatcher) notifyStatus() {
	if d.Status == nil {
		return
	}
	t := d.Tally()
	d.Status(fmt.Sprintf("%d shipped since the start, %d held; %s wait in the outbox; %s",
		t.Shipped+t.AlreadyPresent, d.held, config.Bytes(max(0, d.out.Bytes())), d.link))
}
