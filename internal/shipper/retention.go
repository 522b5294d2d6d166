package shipper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// RetentionConfig says when retired episodes are deleted on this host. All that
// is zero is off, which is the default: nothing is deleted. Whatever it says,
// only what the receiver has read back from its disk is deleted.
type RetentionConfig struct {
	MaxAge   config.Duration `toml:"max_age"`   // since the receipt
	MaxBytes config.Bytes    `toml:"max_bytes"` // of all that is shipped
	MinFree  config.Bytes    `toml:"min_free"`  // on the disk
}

// On reports whether anything is to be deleted at all.
func (c RetentionConfig) On() bool { return c != RetentionConfig{} }

// Waits and bounds of the daemon's own pruning.
const (
	pruneEvery = 10 * time.Minute
	pruneMost  = 100 // at once: deleting must not keep the disk from the experiments
)

// oldest is how many candidates are remembered at once.
const oldest = 10_000

// PruneOptions say what [Prune] does.
type PruneOptions struct {
	DryRun bool // delete nothing, and say what would be
	Most   int  // delete no more than these
	Found  func(Pruned) error
}

// Pruned is a retired episode that the policy is about.
type Pruned struct {
	Dir        string       `json:"directory"` // in the shipped folder
	Episode    episode.Name `json:"episode_id"`
	Bytes      int64        `json:"bytes"`  // on the disk
	Reason     string       `json:"reason"` // max_age, max_bytes or min_free
	Deleted    bool         `json:"deleted"`
	Kept       string       `json:"kept,omitempty"` // why it was not
	ReceivedAt time.Time    `json:"received_at"`
	VerifiedAt time.Time    `json:"verified_at,omitzero"` // when the receiver read it back
}

// PruneReport counts what a pruning came to.
type PruneReport struct {
	Deleted int   `json:"deleted"` // or would be
	Bytes   int64 `json:"bytes"`   // of those
	Kept    int   `json:"kept"`    // that the policy would delete, and the receiver has not read back
	DryRun  bool  `json:"dry_run"`
}

// Prune deletes retired episodes as the policy in c says, the oldest first, and
// none that the receiver has not read back from its disk since it was stored. It
// works beside a running shipper.
func Prune(ctx context.Context, c Config, up stocktaker, o PruneOptions) (PruneReport, error) {
	src, out, err := folders(c, durable.Open)
	if err != nil {
		return PruneReport{}, err
	}
	s := &Shipper{cfg: c, src: src, out: out}
	defer s.Close()
	return s.prune(ctx, up, o)
}

// prune is one application of the policy.
func (s *Shipper) prune(ctx context.Context, up stocktaker, o PruneOptions) (PruneReport, error) {
	p := &pruning{PruneOptions: o, Shipper: s, up: up, now: time.Now(), report: PruneReport{DryRun: o.DryRun}}
	if !o.DryRun { // what an interrupted one left
		if err := s.out.Empty(ctx); err != nil {
			return p.report, err
		}
	}
	candidates, err := p.survey(ctx)
	if err != nil {
		return p.report, err
	}
	if p.free, err = s.out.Dir().Space(); err != nil {
		return p.report, err
	}
	for batch := range slices.Chunk(candidates, wire.MaxClaims) {
		if p.reason(batch[0]) == "" {
			break
		}
		more, err := p.page(ctx, batch)
		if err != nil || !more {
			return p.report, err
		}
	}
	return p.report, nil
}

type pruning struct {
	*Shipper
	PruneOptions
	up     stocktaker
	now    time.Time
	total  int64 // of all that is shipped, if the policy asks
	free   int64
	report PruneReport
}

// survey returns the oldest episodes that carry a receipt, the oldest first.
func (p *pruning) survey(ctx context.Context) ([]source.Retired, error) {
	var all []source.Retired
	cut := func() {
		slices.SortFunc(all, func(x, y source.Retired) int { return x.Receipt.ReceivedAt.Compare(y.Receipt.ReceivedAt) })
		all = all[:min(len(all), oldest)]
	}
	_, shipped := p.src.Dirs()
	for r, err := range p.src.Shipped() {
		if err != nil {
			return nil, err
		}
		if p.cfg.Retention.MaxBytes > 0 {
			n, err := shipped.TreeBytes(ctx, r.Dir)
			if err != nil {
				return nil, err
			}
			p.total += n
		}
		if !r.Known {
			continue
		}
		if all = append(all, r); len(all) == 4*oldest {
			cut()
		}
	}
	cut()
	return all, ctx.Err()
}

// reason says why the policy is about an episode, or "".
func (p *pruning) reason(r source.Retired) string {
	c := p.cfg.Retention
	switch {
	case c.MaxAge > 0 && p.now.Sub(r.Receipt.ReceivedAt) > c.MaxAge.Std():
		return "max_age"
	case c.MaxBytes > 0 && p.total > int64(c.MaxBytes):
		return "max_bytes"
	case c.MinFree > 0 && p.free < int64(c.MinFree):
		return "min_free"
	}
	return ""
}

// page deletes what it may of a batch, and reports whether to go on.
func (p *pruning) page(ctx context.Context, batch []source.Retired) (bool, error) {
	held, err := holdingsOf(ctx, p.up, batch)
	if err != nil {
		return false, err
	}
	_, shipped := p.src.Dirs()
	for _, r := range batch {
		found := Pruned{Dir: r.Dir, Episode: r.Name, Reason: p.reason(r), ReceivedAt: r.Receipt.ReceivedAt}
		if found.Reason == "" || p.report.Deleted >= p.Most {
			return false, nil
		}
		if found.Bytes, err = shipped.TreeBytes(ctx, r.Dir); err != nil {
			return false, err
		}
		if found.Kept = keeps(r, held[r.Dir]); found.Kept == "" {
			found.VerifiedAt = held[r.Dir].VerifiedAt.Time
			if err := p.delete(ctx, r, &found); err != nil {
				return false, err
			}
		}
		if found.Kept == "" {
			p.report.Deleted++
			p.report.Bytes += found.Bytes
			p.total -= found.Bytes
			p.free += found.Bytes
		} else {
			p.report.Kept++
		}
		if err := p.Found(found); err != nil {
			return false, err
		}
	}
	return true, nil
}

// keeps says why an episode must not be deleted, or "". This is the law: the
// receiver has these very bytes, and has read them from its disk since it stored
// them.
func keeps(r source.Retired, h wire.Holding) string {
	switch {
	case !r.Known:
		return "it carries no receipt"
	case h.State != wire.Present || h.Digest == nil || *h.Digest != r.Receipt.Digest:
		return fmt.Sprintf("the receiver does not have it (%s): run 'shipper verify'", h.State)
	case h.ReceivedAt == nil || h.VerifiedAt == nil || !h.VerifiedAt.After(h.ReceivedAt.Time):
		return "the receiver has not read it back from its disk yet: its scrub will, or 'shipper verify'"
	}
	return ""
}

// errOther says that another directory has taken the name.
var errOther = errors.New("it was retired anew meanwhile")

// delete moves an episode to the trash and empties that.
func (p *pruning) delete(ctx context.Context, r source.Retired, found *Pruned) error {
	if p.DryRun {
		return nil
	}
	_, shipped := p.src.Dirs()
	err := p.out.Trash(shipped, r.Dir, func(dir *durable.Dir) error {
		now, known, err := source.ReceiptOf(dir)
		if err == nil && (!known || now != r.Receipt) {
			err = errOther
		}
		return err
	})
	if errors.Is(err, errOther) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		found.Kept = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	found.Deleted = true
	return p.out.Empty(ctx)
}

// retain applies the policy from time to time.
func (d *dispatch) retain(ctx context.Context) error {
	if !d.cfg.Retention.On() {
		return nil
	}
	tick := time.NewTicker(max(pruneEvery, d.cfg.ScanInterval.Std()))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.retainOnce(ctx); err != nil {
			return err
		}
	}
}

func (d *dispatch) retainOnce(ctx context.Context) error {
	report, err := d.prune(ctx, d.up, PruneOptions{Most: pruneMost, Found: func(p Pruned) error {
		if p.Deleted {
			d.log.Info("deleted a retired episode", "episode", p.Episode, "dir", p.Dir, "bytes", p.Bytes,
				"reason", p.Reason, "verified_at", p.VerifiedAt.Format(time.RFC3339))
		}
		return nil
	}})
	_, unreachable := errors.AsType[*UnreachableError](err)
	switch {
	case errors.Is(err, durable.ErrFault):
		return err
	case ctx.Err() != nil:
		return nil
	case unreachable:
		d.log.Debug("deleted nothing, the receiver was not asked", "err", err)
	case err != nil:
		d.log.Error("could not delete retired episodes", "err", err)
	case report.Kept > 0:
		d.log.Debug("kept what the receiver has not read back", "episodes", report.Kept)
	}
	return nil
}
