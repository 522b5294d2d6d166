package shipper

import (
	"context"
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/pathwatch"
	"cis490/internal/shipped"
	"cis490/internal/uplink"
)

// Limits of the daemon's own pruning. The experiments need the disk.
const (
	pruneInterval = 10 * time.Minute
	maxPruned     = 100      // episodes per run
	pruneRate     = 32 << 20 // bytes read per second to compare files
)

// pruneLoop finishes what an interrupted pruning left, and applies the retention policy from
// time to time.
func (d *dispatcher) pruneLoop(ctx context.Context) error {
	if n, err := d.out.CountDiscarded(); err != nil || n > 0 {
		if err := errors.Join(err, d.pruneShipped(ctx, 0)); errors.Is(err, durable.ErrFault) {
			return err
		}
	}
	if !d.cfg.Retention.IsEnabled() {
		return nil
	}
	tick := time.NewTicker(max(pruneInterval, d.cfg.ScanInterval.Std()))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.pruneShipped(ctx, maxPruned); err != nil {
			return err
		}
	}
}

// pruneShipped deletes at most limit episodes.
func (d *dispatcher) pruneShipped(ctx context.Context, limit int) error {
	report, err := shipped.PruneIn(ctx, d.dirs, uplink.NewInventory(d.client, d.store), shipped.PruneOptions{
		Retention: d.cfg.Retention, Limit: limit, Rate: pruneRate, Holder: d.holder,
		OnResult: d.logPruned, MinUnchanged: d.minUnchanged,
	})
	_, unreachable := errors.AsType[*uplink.UnreachableError](err)
	_, locked := errors.AsType[*durable.LockedError](err)
	_, moved := errors.AsType[*pathwatch.MovedError](err)
	switch {
	case errors.Is(err, durable.ErrFault), moved:
		return err
	case ctx.Err() != nil:
		return nil
	case uplink.IsOtherStore(err):
		sendOrDone(ctx, d.pingResults, pingResult{err: err, unsolicited: true}) // which stops sending
	case unreachable:
		d.log.Debug("nothing pruned, receiver unreachable", "err", err)
	case locked:
		d.log.Debug("another process is pruning", "err", err)
	case err != nil:
		d.log.Error("pruning failed", "err", err)
	case report.Kept > 0:
		d.log.Debug("kept retired episodes", "episodes", report.Kept)
	}
	return nil
}

// maxKeptLogged is the maximum number of episodes whose cause is remembered as logged.
const maxKeptLogged = 1000

// logPruned logs a deletion and, once per cause, an episode that needs an operator.
func (d *dispatcher) logPruned(r shipped.PruneResult) error {
	switch {
	case r.Deleted:
		d.log.Info("deleted a retired episode", "episode", r.Episode, "dir", r.Dir, "bytes", r.Bytes,
			"reason", r.Reason, "verified_at", r.VerifiedAt.Format(time.RFC3339))
	case r.NeedsOperator && d.keptLogged[r.Dir] != r.Kept:
		if len(d.keptLogged) >= maxKeptLogged {
			clear(d.keptLogged)
		}
		d.keptLogged[r.Dir] = r.Kept
		d.log.Error("retired episode not deleted", "episode", r.Episode, "dir", r.Dir, "cause", r.Kept,
			"hint", "see 'Retired episodes that are kept' in docs/operations.md (of a package: /usr/share/doc/cis490-shipper)")
	}
	return nil
}
