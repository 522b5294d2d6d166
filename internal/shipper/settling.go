package shipper

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cis490/internal/durable"
	"cis490/internal/settling"
)

// restless is for how long after its marker an episode may change before a person is told.
const restless = time.Hour

// maxLook is how long an episode waits at most for the next look only because it did not
// settle for long.
const maxLook = 5 * time.Minute

// restlessFor returns how long an episode that has been waiting to settle is left alone at
// least: a part of the time for which it has, since each look reads all of its folders.
func (c candidate) restlessFor(now time.Time) time.Duration {
	if c.waits.IsZero() {
		return 0
	}
	return min(now.Sub(c.waits)/4, maxLook)
}

// await keeps an episode until a time at which it may have settled. With a page of them
// the others are left to the next sweep.
func (d *dispatch) await(c candidate, until, now time.Time) {
	if d.settling.len() >= page {
		level := slog.LevelDebug
		if d.once {
			level = slog.LevelWarn
		}
		d.logCrowd.Do(func() {
			d.log.Log(context.Background(), level, "more episodes settle than are kept in mind", "at_once", page)
		})
		d.leave(c)
		return
	}
	if c.waits.IsZero() {
		c.waits = now
	}
	if earliest := now.Add(c.restlessFor(now)); !d.once && until.Before(earliest) {
		until = earliest
	}
	c.at = until
	d.settling.add(c)
	d.hand[c.name] = c
}

// unsettled keeps an episode of which a packer has found that it is still being changed.
func (d *dispatch) unsettled(c candidate, err *settling.UnsettledError, now time.Time) {
	d.log.Debug("episode settles", "episode", c.name, "changed", err.Changed, "for", err.Until.Sub(now).Round(time.Millisecond))
	if !c.told && !d.once && now.Sub(err.MarkedAt) > restless {
		d.log.Warn("a finished episode keeps changing and is not packed", "episode", c.name, "changed", err.Changed,
			"hint", "find what writes to it, or lower settle")
		c.told = true
	}
	c.seen = err.Seen
	d.await(c, err.Until, now)
}

// takeSettled takes up the episodes whose wait is over. A single pass gives the others up
// when its patience ends.
func (d *dispatch) takeSettled(now time.Time) error {
	for q := &d.settling; q.len() > 0 && !now.Before(q.next().at); {
		waited := q.next()
		q.pop()
		delete(d.hand, waited.name)
		c, err := d.look(waited.name)
		if waited.held && c.stage == Held { // it is tried although it is held
			c.held, c.stage = true, c.next
		}
		if errors.Is(err, durable.ErrFault) {
			return err
		}
		if err != nil || c.stage != Seal {
			d.log.Info("episode is gone, or cannot be looked at", "episode", waited.name, "err", err)
			d.leave(waited)
			continue
		}
		c.seen, c.told, c.waits = waited.seen, waited.told, waited.waits
		if c.restlessFor(now) > settling.MarkerFirstFactor*d.cfg.Settle.Std() {
			c.restless, c.at = true, d.cfg.Order.behind(now)
		}
		d.queueSeal(c, now)
	}
	if d.patienceEnds(now) {
		d.giveUpSettling()
	}
	return nil
}

// patienceEnds reports whether a single pass must not wait any longer: nothing that
// settles now settles before its patience ends.
func (d *dispatch) patienceEnds(now time.Time) bool {
	return !d.giveUp.IsZero() && d.settling.len() > 0 && (!now.Before(d.giveUp) || d.settling.next().at.After(d.giveUp))
}

// maxGivenUpLogged bounds how many episodes a pass names that did not settle.
const maxGivenUpLogged = 10

// giveUpSettling leaves all that settles to the next pass.
func (d *dispatch) giveUpSettling() {
	for i, c := range d.settling.all {
		if i == maxGivenUpLogged {
			d.log.Warn("more episodes are still being changed", "episodes", d.settling.len()-i)
			break
		}
		d.log.Warn("episode is still being changed", "episode", c.name, "hint", "see settle in lab-host.toml")
	}
	d.drop(&d.settling)
}
