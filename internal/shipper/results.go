package shipper

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"cis490/internal/outbox"
	"cis490/internal/settling"
	"cis490/internal/wire"
)

// quietFailures is how often a send may fail for the path's fault before it is
// told of the episode: pings are answered in between, or there would have been
// no other attempt.
const quietFailures = 3

// handleResult decides what follows from the result of work on an episode that was in hand
// as c.
func (d *dispatch) handleResult(r result, c candidate, now time.Time) error {
	if r.err == nil {
		d.forget(r.name)
		if err := d.release(r); err != nil {
			return err
		}
		d.passed(r, c.at)
		if r.stage == Send {
			d.delivers(now)
		}
		return nil
	}
	if errors.Is(r.err, fs.ErrNotExist) && r.stage == Seal {
		d.log.Info("episode is gone", "episode", r.name, "err", r.err)
		d.forget(r.name)
		d.transient(1)
		return nil
	}
	if errors.Is(r.err, errLarge) {
		c.size = r.size
		d.queueSeal(c, now)
		return nil
	}
	if settling, ok := errors.AsType[*settling.UnsettledError](r.err); ok {
		d.unsettled(c, settling, now)
		return nil
	}
	if r.size == 0 {
		r.size = c.size
	}
	verdict, reason := judge(r.err)
	switch verdict {
	case stop:
		return r.err
	case hold:
		return d.hold(r, reason, now)
	case full:
		if d.fillUp(r) {
			return nil
		}
	case pause:
		d.report.due = true
		if d.link.fail(r.err, d.once, now); d.link.failed > 0 {
			d.drop(&d.toSend.small, &d.toSend.large)
		}
	}
	return d.postpone(r, verdict, now)
}

// postpone leaves an episode for later: it must not keep the others waiting.
func (d *dispatch) postpone(r result, v verdict, now time.Time) error {
	l := d.later[r.name]
	f := d.faultOf(r, v, l)
	if _, further := errors.AsType[*wire.Interrupted](r.err); further {
		l = delay{held: l.held} // it is coming home, if in pieces
	}
	if l = l.again(r.err, now); l.unreadable(r.err) && !r.held {
		return d.hold(r, outbox.Unreadable, now)
	}
	d.postponed(r.name, d.delayed(r, f, l, now))
	d.leave(candidate{held: r.held})
	d.log.Log(context.Background(), d.levelOf(v, l), "will try again", "episode", r.name, "attempt", l.attempts, "err", r.err)
	return nil
}

// maxTold is how many failures of a single pass are in the log. The others are counted.
const maxTold = 20

// levelOf returns how loud the log is of a failure. Who runs a single pass is told why each
// episode stays.
func (d *dispatch) levelOf(v verdict, l delay) slog.Level {
	switch {
	case d.once && d.toldOf < maxTold:
		d.toldOf++
		return slog.LevelWarn
	case d.once:
		d.untold++
	case l.held: // the hold says it
	case v == pause && l.failed < quietFailures: // if the receiver is away, the link tells it, once for all
	case v == full && l.failed > 1: // said once for all
	default:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// tellUntold ends the log of a single pass.
func (d *dispatch) tellUntold() {
	if d.untold > 0 {
		d.log.Warn("more episodes failed", "count", d.untold, "hint", "shipper status lists them")
	}
}

// passed moves an episode on to its next stage.
func (d *dispatch) passed(r result, at time.Time) {
	if r.stage == Send && d.full && !d.once && d.cfg.OutboxMax > 0 && !d.loaded() {
		d.sweep() // there is room in the outbox again
	}
	switch {
	case r.stage == Seal:
		d.told = d.told && d.full // one that was on its way to the disk says nothing
		d.queueSend(candidate{name: r.name, stage: Send, at: at, size: r.size})
	case r.status == wire.AlreadyPresent:
		d.tally.count(func(t *Tally) { t.AlreadyPresent++ })
	default:
		d.tally.count(func(t *Tally) { t.Shipped++ })
	}
}

// fillUp stops packing until the next sweep. Sending goes on: it makes room. It
// returns false if it was this one episode that was too large for the room that
// there is: others may fit, and it must not keep them waiting.
func (d *dispatch) fillUp(r result) bool {
	if !d.short() && !d.loaded() {
		return false
	}
	if !d.told {
		d.log.Warn("packing waits for space", "err", r.err)
	}
	d.full, d.told = true, true
	d.transient(1)
	d.drop(&d.toSeal.small, &d.toSeal.large)
	d.flag(true)
	return true
}

// loaded reports whether the outbox is so near its budget that most episodes
// would be packed in vain.
func (d *dispatch) loaded() bool {
	budget := int64(d.cfg.OutboxMax)
	return budget > 0 && d.out.Bytes() > budget/2
}

// flag makes or removes the file that says that this host is short of space. It
// is a hint for the experiment queue, so a power cut may take it.
func (d *dispatch) flag(low bool) {
	path := string(d.cfg.LowSpaceFile)
	if path == "" {
		return
	}
	update := removeLowSpaceFile
	if low {
		update = writeLowSpaceFile
	}
	if err := update(path); err != nil {
		d.log.Warn("could not tell the experiment queue about the space", "err", err)
	}
}
