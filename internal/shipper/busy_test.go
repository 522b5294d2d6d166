package shipper_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// limitUploads makes a receiver serve a number of uploads at once, each for a while, and refuse
// the others, like a real one.
func (r *receiver) limitUploads(places int64) (refused *atomic.Int64) {
	var taken atomic.Int64
	refused = new(atomic.Int64)
	r.before = func(context.Context, wire.Upload) error {
		defer taken.Add(-1)
		if taken.Add(1) > places {
			refused.Add(1)
			busy := wire.Refuse(wire.Busy, "")
			busy.RetryAfter = time.Second
			return busy
		}
		time.Sleep(100 * time.Millisecond)
		return nil
	}
	return refused
}

// TestABusyReceiverIsNoFault: where many hosts share the slots of a receiver, each delivers
// everything in one pass, and does not retry too often.
func TestABusyReceiverIsNoFault(t *testing.T) {
	inBubble(t, func(l *lab) {
		const n = 100
		l.finishEpisodes(numberedNames("run", n)...)
		refused := l.receiver.limitUploads(2)
		start := time.Now()
		l.wantOnce(shipper.Tally{Scanned: n, Shipped: n})
		if _, _, pings := l.receiver.counts(); pings != 0 {
			t.Errorf("%d pings", pings)
		}
		// The host that has the slot must not be pressed by all others together.
		if took := time.Since(start); refused.Load() == 0 || refused.Load() > n || took > time.Minute {
			t.Errorf("%d refusals of %d episodes in %v", refused.Load(), n, took)
		}
		if loud := l.logs.warnings(); len(loud) != 0 {
			t.Errorf("logged %q, want no warning", loud)
		}
		l.checkNothingLost()
	})
}

// queueUploads makes a receiver serve a number of uploads of a host at once, each for a long
// time, and queue the others before it refuses them, like a real one.
func (r *receiver) queueUploads(places int, takes time.Duration) (refused *atomic.Int64) {
	refused = new(atomic.Int64)
	free := make(chan struct{}, places)
	r.before = func(context.Context, wire.Upload) error {
		select {
		case free <- struct{}{}:
		case <-time.After(10 * time.Second):
			refused.Add(1)
			busy := wire.Refuse(wire.HostBusy, "")
			busy.RetryAfter = time.Second
			return busy
		}
		defer func() { <-free }()
		time.Sleep(takes)
		return nil
	}
	return refused
}

// TestAHostWaitsForItsOwnUploads on a slow link, however long they take: it is no fault of the
// receiver that they use all the slots.
func TestAHostWaitsForItsOwnUploads(t *testing.T) {
	inBubble(t, func(l *lab) {
		const n = 40
		l.finishEpisodes(numberedNames("run", n)...)
		refused := l.receiver.queueUploads(l.cfg.Senders/2, 5*time.Minute)
		l.wantOnce(shipper.Tally{Scanned: n, Shipped: n})
		if _, _, pings := l.receiver.counts(); pings != 0 || refused.Load() == 0 {
			t.Errorf("%d pings, %d refusals", pings, refused.Load())
		}
		if loud := l.logs.warnings(); len(loud) != 0 {
			t.Errorf("logged %q, want no warning", loud)
		}
		l.checkNothingLost()
	})
}

// TestALongUploadHasPatienceLeft: the receiver is restarted, and says so, after an upload that
// took longer than the busy timeout of the pass.
func TestALongUploadHasPatienceLeft(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.finishEpisodes("run")
		tries := 0
		l.receiver.before = func(context.Context, wire.Upload) error {
			tries++
			if tries > 1 {
				return nil
			}
			time.Sleep(time.Minute)
			draining := wire.Refuse(wire.Draining, "")
			draining.RetryAfter = 5 * time.Second
			return draining
		}
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
		if _, _, pings := l.receiver.counts(); pings != 0 {
			t.Errorf("%d pings", pings)
		}
		l.checkNothingLost()
	})
}

// TestAPassEndsThoughTheReceiverIsBusy: it does not wait for each episode of a backlog.
func TestAPassEndsThoughTheReceiverIsBusy(t *testing.T) {
	inBubble(t, func(l *lab) {
		const n = 100
		l.finishEpisodes(numberedNames("run", n)...)
		l.receiver.limitUploads(0)
		start := time.Now()
		tally, unreachable := l.runOnce()
		if tally != (shipper.Tally{Scanned: n, Transient: n}) || !errors.Is(unreachable, wire.Busy) {
			t.Errorf("%v, %v", tally, unreachable)
		}
		_, puts, pings := l.receiver.counts()
		if took := time.Since(start); took > 20*time.Second || puts > 15*l.cfg.Senders || pings != 0 {
			t.Errorf("%d uploads and %d pings in %v", puts, pings, took)
		}
		l.checkNothingLost()
	})
}
