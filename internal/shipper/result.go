package shipper

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/backlog"
	"cis490/internal/durable"
	"cis490/internal/outbox"
	"cis490/internal/pathwatch"
	"cis490/internal/settling"
	"cis490/internal/source"
	"cis490/internal/transfer"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// quietFailures is how often a send may fail because of the path before the log names the episode.
// Pings succeeded in between, or there would have been no other attempt.
const quietFailures = 3

// handleResult acts on a result of the episode that was in flight as c.
func (d *dispatcher) handleResult(r workResult, c candidate, now time.Time) error {
	if r.err == nil {
		d.clearBackoff(r.name)
		if err := d.releaseHold(r); err != nil {
			return err
		}
		d.onSuccess(r, c.sortTime)
		if r.stage == backlog.Send {
			d.noteDelivery(now)
		}
		return nil
	}
	if errors.Is(r.err, fs.ErrNotExist) && r.stage == backlog.Pack {
		d.log.Info("episode is gone", "episode", r.name, "err", r.err)
		d.clearBackoff(r.name)
		d.countTransient(1)
		return nil
	}
	if errors.Is(r.err, transfer.ErrLarge) {
		c.Size = r.size
		d.enqueuePack(c, now)
		return nil
	}
	if unsettled, ok := errors.AsType[*settling.UnsettledError](r.err); ok {
		d.handleUnsettled(c, unsettled, now)
		return nil
	}
	if r.size == 0 {
		r.size = c.Size
	}
	act, reason := classifyError(r.err)
	switch act {
	case actionStop:
		return r.err
	case actionHold:
		return d.holdEpisode(r, reason, now)
	case actionPausePacking:
		if d.pausePacking(r) {
			return nil
		}
	case actionPauseSending:
		d.reporting.changed = true
		d.link.markSuspect(r.err, d.once, now)
		if d.link.state == linkDown {
			d.dropQueues(&d.toSend.small, &d.toSend.large)
		}
	}
	return d.scheduleRetry(r, act, now)
}

// scheduleRetry schedules a retry, so that the episode does not block the others.
func (d *dispatcher) scheduleRetry(r workResult, act errorAction, now time.Time) error {
	b := d.backoffs[r.name]
	f := d.faultOf(r, act, b)
	if _, progressed := errors.AsType[*wire.InterruptedError](r.err); progressed {
		b = backoff{held: b.held} // the upload progressed, so reset the backoff
	}
	b = b.afterFailure(r.err, now)
	if b.isUnreadable(r.err) && !r.held {
		return d.holdEpisode(r, outbox.Unreadable, now)
	}
	d.setBackoff(r.name, d.withRetryTime(r, f, b, now))
	d.count(func(_ *Tally, o *Outcomes) { o.Failed++ })
	d.countSkipped(candidate{held: r.held})
	d.log.Log(context.Background(), d.failureLevel(act, b), "will try again", "episode", r.name, "attempt", b.attempts, "err", r.err)
	return nil
}

// maxLoggedFailures is the maximum number of failures that the log of a single pass names.
const maxLoggedFailures = 20

// failureLevel returns the level at which to log a failure. A single pass says why each episode
// stays.
func (d *dispatcher) failureLevel(act errorAction, b backoff) slog.Level {
	switch {
	case d.once && d.loggedFailures < maxLoggedFailures:
		d.loggedFailures++
		return slog.LevelWarn
	case d.once:
		d.unloggedFailures++
	case b.held: // the hold has it
	case act == actionPauseSending && b.failures < quietFailures: // while the receiver is unavailable, the link logs it
	case act == actionPausePacking && b.failures > 1: // pausePacking logs it
	default:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// logUnlogged logs how many failures of a single pass are not in the log.
func (d *dispatcher) logUnlogged() {
	if d.unloggedFailures > 0 {
		d.log.Warn("more episodes failed", "count", d.unloggedFailures, "hint", "shipper status lists them")
	}
}

// onSuccess enqueues an episode for its next stage, or counts it.
func (d *dispatcher) onSuccess(r workResult, at time.Time) {
	if r.stage == backlog.Send && d.packing == packingPaused && !d.once && d.cfg.OutboxMax > 0 && !d.outboxNearLimit() {
		d.restartScan() // the outbox has space again
	}
	switch {
	case r.stage == backlog.Pack:
		d.packing = d.packing.afterPacked()
		d.enqueueSend(candidate{Episode: backlog.Episode{Name: r.name, Stage: backlog.Send, Size: r.size}, sortTime: at})
	case r.status == wire.AlreadyPresent:
		d.count(func(t *Tally, o *Outcomes) { t.AlreadyPresent++; o.AlreadyPresent++ })
	default:
		d.count(func(t *Tally, o *Outcomes) { t.Shipped++; o.Shipped++ })
	}
}

// errorAction is what to do about an error.
type errorAction int

const (
	actionRetry        errorAction = iota // retry the episode later
	actionHold                            // hold the episode
	actionPauseSending                    // stop sending; this host or the path is the cause, and no episode is marked
	actionPausePacking                    // stop packing; this host's disk is full
	actionStop                            // end the process
)

// classifyError returns the action for an error of any package, and the reason of a hold. No other
// function does.
func classifyError(err error) (errorAction, outbox.Reason) {
	if errors.Is(err, durable.ErrFault) || errors.Is(err, context.Canceled) {
		return actionStop, ""
	}
	if _, ok := errors.AsType[*pathwatch.MovedError](err); ok {
		return actionStop, ""
	}
	if _, ok := errors.AsType[*archive.UnpackableError](err); ok {
		return actionHold, outbox.Unpackable
	}
	if _, ok := errors.AsType[*archive.Difference](err); ok {
		return actionHold, outbox.Changed
	}
	if _, ok := errors.AsType[*source.StuckError](err); ok {
		return actionHold, outbox.Stuck
	}
	if code, ok := errors.AsType[wire.Code](err); ok {
		return classifyCode(code)
	}
	if _, ok := errors.AsType[*uplink.UnreachableError](err); ok || uplink.IsOtherStore(err) {
		return actionPauseSending, "" // no receiver answered, or one with another store
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return actionPausePacking, ""
	}
	return actionRetry, ""
}

// classifyCode distinguishes refusals of the episode from those of this host.
func classifyCode(code wire.Code) (errorAction, outbox.Reason) {
	switch code {
	case wire.Conflict:
		return actionHold, outbox.Conflict
	case wire.BadName, wire.BadRequest, wire.DigestMissing, wire.DigestInvalid, wire.DigestMismatch,
		wire.TooLarge, wire.Unsupported, wire.LengthMismatch, wire.WrongType:
		return actionHold, outbox.Refused
	}
	return actionPauseSending, ""
}
