package shipper

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/durable"
	"cis490/internal/settling"
)

// maxSettleWait is the maximum wait that a long time of settling adds.
const maxSettleWait = 5 * time.Minute

// minSettleWait returns the minimum wait before the next check of a settling episode. It grows with
// the time for which the episode has been settling, because each check reads all of its
// directories.
func (c candidate) minSettleWait(now time.Time) time.Duration {
	if c.waitingSince.IsZero() {
		return 0
	}
	return min(now.Sub(c.waitingSince)/4, maxSettleWait)
}

// awaitSettled keeps an episode until a time at which it may have settled. If a page of them is
// kept, the others are left to the next scan.
func (d *dispatcher) awaitSettled(c candidate, until, now time.Time) {
	if d.settling.size() >= backlog.PageSize {
		level := slog.LevelDebug
		if d.once {
			level = slog.LevelWarn
		}
		d.crowdLogged.Do(func() {
			d.log.Log(context.Background(), level, "too many unsettled episodes at once", "at_once", backlog.PageSize)
		})
		d.countSkipped(c)
		return
	}
	if c.waitingSince.IsZero() {
		c.waitingSince = now
	}
	if earliest := now.Add(c.minSettleWait(now)); !d.once && until.Before(earliest) {
		until = earliest
	}
	c.sortTime = until
	d.settling.add(c)
	d.inFlight[c.Name] = c
}

// handleUnsettled keeps an episode that a packer found to be changing.
func (d *dispatcher) handleUnsettled(c candidate, err *settling.UnsettledError, now time.Time) {
	d.log.Debug("episode has not settled", "episode", c.Name, "changed", err.Changed, "for", err.Until.Sub(now).Round(time.Millisecond))
	if !c.logged && !d.once && now.Sub(err.MarkedAt) > settling.RestlessAfter {
		d.log.Warn("finished episode keeps changing", "episode", c.Name, "changed", err.Changed,
			"hint", "it is not packed: find what writes to it, or lower settle")
		c.logged = true
	}
	c.lastObservation = err.Seen
	d.awaitSettled(c, err.Until, now)
}

// enqueueSettled enqueues the episodes whose wait is over. A single pass skips the others when its
// wait is over.
func (d *dispatcher) enqueueSettled(now time.Time) error {
	for q := &d.settling; q.size() > 0 && !now.Before(q.next().sortTime); {
		waited := q.next()
		q.pop()
		delete(d.inFlight, waited.Name)
		e, err := backlog.Inspect(d.dirs, waited.Name)
		c := newCandidate(e)
		if waited.held && c.Stage == backlog.Held { // it is tried although it is held
			c.held, c.Stage = true, c.Unheld
		}
		if errors.Is(err, durable.ErrFault) {
			return err
		}
		if err != nil || c.Stage != backlog.Pack {
			d.log.Info("settling episode is gone or unreadable", "episode", waited.Name, "err", err)
			d.countSkipped(waited)
			continue
		}
		c.lastObservation, c.logged, c.waitingSince = waited.lastObservation, waited.logged, waited.waitingSince
		if c.minSettleWait(now) > settling.MarkerFirstFactor*d.cfg.Settle.Std() {
			c.restless, c.sortTime = true, d.cfg.Order.endOfQueue(now)
		}
		d.enqueuePack(c, now)
	}
	if d.settleWaitOver(now) {
		d.giveUpSettling()
	}
	return nil
}

// settleWaitOver reports whether a single pass must wait no longer: no episode settles before its
// deadline.
func (d *dispatcher) settleWaitOver(now time.Time) bool {
	return !d.settleDeadline.IsZero() && d.settling.size() > 0 && (!now.Before(d.settleDeadline) || d.settling.next().sortTime.After(d.settleDeadline))
}

// maxGivenUpLogged is the maximum number of unsettled episodes that a pass logs.
const maxGivenUpLogged = 10

// giveUpSettling leaves all settling episodes to the next pass.
func (d *dispatcher) giveUpSettling() {
	for i, c := range d.settling.items {
		if i == maxGivenUpLogged {
			d.log.Warn("more episodes are still being changed", "episodes", d.settling.size()-i)
			break
		}
		d.log.Warn("episode is still being changed", "episode", c.Name, "hint", "see settle in lab-host.toml")
	}
	d.dropQueues(&d.settling)
}
