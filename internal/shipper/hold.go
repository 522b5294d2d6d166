package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/retry"
	"cis490/internal/transfer"
	"cis490/internal/wire"
)

// holdEpisode holds an episode until an operator acts.
func (d *dispatcher) holdEpisode(r workResult, reason outbox.Reason, now time.Time) error {
	h := outbox.Hold{Reason: reason, Cause: d.causeOf(r, reason), HeldAt: outbox.WholeSecond(now)}
	if p, ok := errors.AsType[*wire.Problem](r.err); ok && !p.Stored.IsZero() {
		h.Stored = &p.Stored
	}
	if delivered, ok := errors.AsType[*transfer.DeliveredError](r.err); ok {
		h.Delivered = &delivered.Digest
	}
	if entry, err := d.out.OpenEntry(r.name); err == nil {
		if sealed := entry.Digest; !sealed.IsZero() {
			h.Digest = &sealed
		}
		entry.Close()
	}
	known, err := d.writeHold(r, h)
	if err != nil {
		if v, _ := classifyError(err); v == actionStop {
			return err
		}
		// The disk may be full. Sending the others frees space.
		r.err = errors.Join(r.err, err)
		return d.scheduleRetry(r, actionRetry, now)
	}
	if !r.held {
		d.held++
	}
	d.scheduleHeldRetry(r, reason, now)
	level := slog.LevelError
	d.count(func(t *Tally, o *Outcomes) {
		if reason == outbox.Conflict {
			t.Conflicts++
		} else {
			t.Held++
		}
		if known { // this was another attempt
			o.Failed++
			level = slog.LevelDebug
		} else {
			o.Held++
		}
	})
	d.log.Log(context.Background(), level, "held an episode", "episode", r.name, "reason", string(reason), "err", r.err, "hint", "see 'shipper status'")
	return nil
}

// causeOf returns the cause for the operator.
func (d *dispatcher) causeOf(r workResult, reason outbox.Reason) string {
	if reason != outbox.Unreadable {
		return r.err.Error()
	}
	return fmt.Sprintf("%v: it could not be read in %d tries; see the kernel's log, then fix the disk or the mount, "+
		"or replace or remove that file", r.err, d.backoffs[r.name].attempts+1)
}

// writeHold writes a hold. It reports whether the episode was held for the same reason and cause
// before. The earlier hold, with its time, stays then.
func (d *dispatcher) writeHold(r workResult, h outbox.Hold) (known bool, err error) {
	if r.held {
		if was, err := d.out.ReadHold(r.name); err == nil && was.Reason == h.Reason {
			h.HeldAt = was.HeldAt
			if was.Cause == h.Cause || h.Reason == outbox.Unreadable {
				return true, nil
			}
		}
	}
	return false, d.out.Hold(r.name, h)
}

// scheduleHeldRetry schedules a retry if the cause may go away by itself.
func (d *dispatcher) scheduleHeldRetry(r workResult, reason outbox.Reason, now time.Time) {
	if !reason.IsRetried() {
		d.clearBackoff(r.name)
		return
	}
	b := d.backoffs[r.name]
	if reason == outbox.Stuck && !b.held {
		b = backoff{} // earlier failures had another cause
	}
	b = b.afterFailure(r.err, now)
	b.held, b.retryAt = true, now.Add(retry.Backoff(firstBackoff, maxBackoff, b.failures-1))
	d.setBackoff(r.name, b)
}

// enqueueHeld enqueues a held episode if its hold is retried and due, and counts it otherwise. A
// directory that is copied in gets its owner and mode a moment later, and a disk may come back.
func (d *dispatcher) enqueueHeld(c candidate, now time.Time) {
	if d.retriesHeld(c.Name) && !now.Before(d.backoffs[c.Name].retryAt) {
		d.retryHeld(c, now)
		return
	}
	d.count(func(t *Tally, _ *Outcomes) { t.Held++ })
}

// retriesHeld reports whether a held episode is to be retried. The first scan reads the holds of
// earlier processes. Later holds are this process's own.
func (d *dispatcher) retriesHeld(name episode.Name) bool {
	if b, known := d.backoffs[name]; known {
		return b.held
	}
	if d.holdsRead {
		return false
	}
	h, err := d.out.ReadHold(name)
	if err != nil || !h.Reason.IsRetried() {
		return false
	}
	d.backoffs[name] = backoff{held: true}
	return true
}

// retryHeld enqueues an episode that stays held until it succeeds.
func (d *dispatcher) retryHeld(c candidate, now time.Time) {
	if _, at := d.inFlight[c.Name]; at || now.Before(d.backoffs[c.Name].retryAt) {
		return
	}
	c.held, c.Stage = true, c.Unheld
	switch c.Stage {
	case backlog.Pack:
		d.enqueuePack(c, now)
	case backlog.Send:
		d.enqueueSend(c)
	}
}

// releaseHold removes the hold of an episode that was retried and succeeded.
func (d *dispatcher) releaseHold(r workResult) error {
	if !r.held {
		return nil
	}
	err := d.out.RemoveHold(r.name)
	if v, _ := classifyError(err); err != nil && v == actionStop {
		return err
	}
	if err != nil { // the hold is stale, or of what is retried
		d.log.Warn("hold not removed", "episode", r.name, "err", err)
		d.setBackoff(r.name, backoff{held: true, retryAt: time.Now().Add(maxBackoff)})
		return nil
	}
	d.held--
	d.log.Info("released a held episode", "episode", r.name)
	return nil
}
