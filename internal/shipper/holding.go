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

// hold sets an episode aside for a person.
func (d *dispatch) hold(r result, reason outbox.Reason, now time.Time) error {
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
	known, err := d.note(r, h)
	if err != nil {
		if v, _ := judge(err); v == stop {
			return err
		}
		// No room for a note, say. Sending the others makes room.
		r.err = errors.Join(r.err, err)
		return d.postpone(r, retry, now)
	}
	if !r.held {
		d.held++
	}
	d.afterHold(r, reason, now)
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
func (d *dispatch) causeOf(r result, reason outbox.Reason) string {
	if reason != outbox.Unreadable {
		return r.err.Error()
	}
	return fmt.Sprintf("%v: it could not be read in %d tries; see the kernel's log, then mend the disk or the mount, "+
		"or replace or remove that file", r.err, d.later[r.name].attempts+1)
}

// note writes a hold. It reports whether the episode is held for the same reason and cause
// already: that one, and its time, stay.
func (d *dispatch) note(r result, h outbox.Hold) (known bool, err error) {
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

// afterHold plans another try of what may heal by itself.
func (d *dispatch) afterHold(r result, reason outbox.Reason, now time.Time) {
	if !reason.MayHeal() {
		d.forget(r.name)
		return
	}
	l := d.later[r.name]
	if reason == outbox.Stuck && !l.held {
		l = delay{} // what failed before has nothing to do with it
	}
	l = l.again(r.err, now)
	l.held, l.until = true, now.Add(uplink.Backoff(firstDelay, maxDelay, l.failed-1))
	d.postponed(r.name, l)
}

// queueHeld queues an episode that is held, if its hold may have healed and it is time to
// see, and counts it otherwise. A folder that was copied in gets its owner or mode a
// moment later; a disk comes back.
func (d *dispatch) queueHeld(c candidate, now time.Time) {
	if d.mayHeal(c.name) && !now.Before(d.later[c.name].until) {
		d.retryHeld(c, now)
		return
	}
	d.tally.count(func(t *Tally) { t.Held++ })
}

// mayHeal reports whether a held episode is one to be tried again. The holds that are
// there at the start are read once; the others were made by this process.
func (d *dispatch) mayHeal(name episode.Name) bool {
	if l, known := d.later[name]; known {
		return l.held
	}
	if d.knowsHolds {
		return false
	}
	h, err := d.out.Held(name)
	if err != nil || !h.Reason.MayHeal() {
		return false
	}
	d.later[name] = delay{held: true}
	return true
}

// retryHeld queues an episode that stays held until that came to something.
func (d *dispatch) retryHeld(c candidate, now time.Time) {
	if _, at := d.hand[c.name]; at || now.Before(d.later[c.name].until) {
		return
	}
	c.held, c.stage = true, c.next
	switch c.stage {
	case Seal:
		d.queueSeal(c, now)
	case Send:
		d.queueSend(c)
	}
}

// release takes the hold off an episode that was tried all the same, and got on.
func (d *dispatch) release(r result) error {
	if !r.held {
		return nil
	}
	err := d.out.Forget(r.name)
	if v, _ := judge(err); err != nil && v == stop {
		return err
	}
	if err != nil { // of nothing now, or of what is tried again
		d.log.Warn("could not take the hold off an episode", "episode", r.name, "err", err)
		d.postponed(r.name, delay{held: true, until: time.Now().Add(maxDelay)})
		return nil
	}
	d.held--
	d.log.Info("an episode is held no more", "episode", r.name)
	return nil
}
