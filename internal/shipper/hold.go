package shipper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// holdEpisode sets an episode aside for a person.
func (d *dispatcher) holdEpisode(r result, reason outbox.Reason, now time.Time) error {
	h := outbox.Hold{Reason: reason, Cause: d.causeOf(r, reason), HeldAt: now.UTC().Truncate(time.Second)}
	if p, ok := errors.AsType[*wire.Problem](r.err); ok && !p.Stored.IsZero() {
		h.Stored = &p.Stored
	}
	if delivered, ok := errors.AsType[*deliveredError](r.err); ok {
		h.Delivered = &delivered.digest
	}
	if entry, err := d.out.Entry(r.name); err == nil {
		if sealed := entry.Digest; !sealed.IsZero() {
			h.Digest = &sealed
		}
		entry.Close()
	}
	known, err := d.writeHold(r, h)
	if err != nil {
		if v, _ := classify(err); v == actionStop {
			return err
		}
		// No room for a note, say. Sending the others makes room.
		r.err = errors.Join(r.err, err)
		return d.scheduleRetry(r, actionRetry, now)
	}
	if !r.held {
		d.held++
	}
	d.scheduleHeldRetry(r, reason, now)
	d.tally.count(func(t *Tally) {
		if reason == outbox.Conflict {
			t.Conflicts++
		} else {
			t.Held++
		}
	})
	level := slog.LevelError
	if known {
		level = slog.LevelDebug
	}
	d.log.Log(context.Background(), level, "held an episode: see 'shipper status'", "episode", r.name, "reason", string(reason), "err", r.err)
	return nil
}

// causeOf returns what a person is told.
func (d *dispatcher) causeOf(r result, reason outbox.Reason) string {
	if reason != outbox.Unreadable {
		return r.err.Error()
	}
	return fmt.Sprintf("%v: it could not be read in %d tries; see the kernel's log, then mend the disk or the mount, "+
		"or replace or remove that file", r.err, d.backoffs[r.name].attempts+1)
}

// writeHold writes a hold. It reports whether the episode is held for the same reason and cause
// already: that one, and its time, stay.
func (d *dispatcher) writeHold(r result, h outbox.Hold) (known bool, err error) {
	if r.held {
		if was, err := d.out.Held(r.name); err == nil && was.Reason == h.Reason {
			h.HeldAt = was.HeldAt
			if was.Cause == h.Cause || h.Reason == outbox.Unreadable {
				return true, nil
			}
		}
	}
	return false, d.out.Hold(r.name, h)
}

// scheduleHeldRetry plans another try of what may heal by itself.
func (d *dispatcher) scheduleHeldRetry(r result, reason outbox.Reason, now time.Time) {
	if !reason.IsRetried() {
		d.clearBackoff(r.name)
		return
	}
	b := d.backoffs[r.name]
	if reason == outbox.Stuck && !b.held {
		b = backoff{} // what failed before has nothing to do with it
	}
	b = b.afterFailure(r.err, now)
	b.held, b.retryAt = true, now.Add(uplink.Backoff(firstBackoff, maxBackoff, b.failures-1))
	d.setBackoff(r.name, b)
}

// enqueueHeld queues an episode that is held, if its hold may have healed and it is time to
// see, and counts it otherwise. A folder that was copied in gets its owner or mode a
// moment later; a disk comes back.
func (d *dispatcher) enqueueHeld(c candidate, now time.Time) {
	if d.retriesHeld(c.name) && !now.Before(d.backoffs[c.name].retryAt) {
		d.retryHeld(c, now)
		return
	}
	d.tally.count(func(t *Tally) { t.Held++ })
}

// retriesHeld reports whether a held episode is one to be tried again. The holds that are
// there at the start are read once; the others were made by this process.
func (d *dispatcher) retriesHeld(name episode.Name) bool {
	if b, known := d.backoffs[name]; known {
		return b.held
	}
	if d.holdsRead {
		return false
	}
	h, err := d.out.Held(name)
	if err != nil || !h.Reason.IsRetried() {
		return false
	}
	d.backoffs[name] = backoff{held: true}
	return true
}

// retryHeld queues an episode that stays held until that came to something.
func (d *dispatcher) retryHeld(c candidate, now time.Time) {
	if _, at := d.inFlight[c.name]; at || now.Before(d.backoffs[c.name].retryAt) {
		return
	}
	c.held, c.stage = true, c.next
	switch c.stage {
	case Pack:
		d.enqueuePack(c, now)
	case Send:
		d.enqueueSend(c)
	}
}

// releaseHold takes the hold off an episode that was tried all the same, and got on.
func (d *dispatcher) releaseHold(r result) error {
	if !r.held {
		return nil
	}
	err := d.out.RemoveHold(r.name)
	if v, _ := classify(err); err != nil && v == actionStop {
		return err
	}
	if err != nil { // of nothing now, or of what is tried again
		d.log.Warn("could not take the hold off an episode", "episode", r.name, "err", err)
		d.setBackoff(r.name, backoff{held: true, retryAt: time.Now().Add(maxBackoff)})
		return nil
	}
	d.held--
	d.log.Info("an episode is held no more", "episode", r.name)
	return nil
}
