package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"cis490/internal/config"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
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
	DryRun bool        // delete nothing, and say what would be
	Most   int         // delete no more than these
	Rate   int64       // bytes of files read a second, to compare them; 0 is as fast as can be
	Holder string      // what the next process that wants to delete is told
	Read   func(n int) // unless nil, is told how many bytes were read, if Rate is 0
	// MinUnchanged is how long no file of an episode must have changed before it is
	// deleted; zero is 3 s.
	MinUnchanged time.Duration
	Found        func(Pruned) error
	Log          *slog.Logger // unless nil, is told if the receiver does not name its store
}

// Pruned is a retired episode that the policy is about.
type Pruned struct {
	Dir        string       `json:"directory"` // in the shipped folder
	Episode    episode.Name `json:"episode_id"`
	Bytes      int64        `json:"bytes"`  // on the disk
	Reason     string       `json:"reason"` // max_age, max_bytes, min_free, interrupted or unreadable
	Deleted    bool         `json:"deleted"`
	Kept       string       `json:"kept,omitempty"` // why it was not
	ReceivedAt time.Time    `json:"received_at"`
	VerifiedAt time.Time    `json:"verified_at,omitzero"` // when the receiver read it back

	// NeedsPerson reports that it is kept until somebody acts.
	NeedsPerson bool `json:"needs_person,omitempty"`

	left bool // it stays in the trash, to be deleted by the next pruning
}

// PruneReport counts what a pruning came to.
type PruneReport struct {
	Deleted int   `json:"deleted"` // or would be
	Bytes   int64 `json:"bytes"`   // of those
	Kept    int   `json:"kept"`    // that the policy would delete, and that may not be
	DryRun  bool  `json:"dry_run"`
}

// Prune deletes retired episodes as the policy in c says, the oldest first. It deletes
// none that the receiver has not read back from its disk since it was stored, and none
// that is no longer what was shipped. It works beside a running shipper, and returns a
// [*durable.LockedError] beside another Prune.
func Prune(ctx context.Context, c Config, up uplink.InventoryClient, o PruneOptions) (PruneReport, error) {
	dirs, err := hostdir.Open(c.Dirs())
	if err != nil {
		return PruneReport{}, err
	}
	s := &Shipper{cfg: c, dirs: dirs, src: dirs.Source, out: dirs.Outbox}
	defer s.Close()
	if err := dirs.WatchPaths(nil); err != nil {
		return PruneReport{}, err
	}
	if s.store, err = uplink.NewAdoption(s.src, s.out, up, cmp.Or(o.Log, slog.New(slog.DiscardHandler))); err != nil {
		return PruneReport{}, err
	}
	return s.prune(ctx, up, o)
}

// prune is one application of the policy.
func (s *Shipper) prune(ctx context.Context, up uplink.InventoryClient, o PruneOptions) (PruneReport, error) {
	p := &pruning{PruneOptions: o, Shipper: s, up: uplink.NewInventory(up, s.store), now: time.Now(), report: PruneReport{DryRun: o.DryRun}}
	p.comparer, p.givenBack = comparer{src: s.src, pace: o.pace(ctx)}, make(map[string]bool)
	if !o.DryRun {
		trash, err := s.out.OpenTrash(o.Holder)
		if err != nil {
			return p.report, err
		}
		defer trash.Close()
		p.trash = trash
		if err := p.resume(ctx); err != nil { // what an interrupted one left
			return p.report, err
		}
	}
	if o.Most == 0 {
		return p.report, nil
	}
	candidates, err := p.survey(ctx)
	if err != nil {
		return p.report, err
	}
	if p.free, err = s.out.Dir().Space(); err != nil {
		return p.report, err
	}
	for batch := range slices.Chunk(candidates, wire.MaxQueries) {
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

// pace returns what slows the reading of files down.
func (o PruneOptions) pace(ctx context.Context) func(int) error {
	if o.Rate == 0 {
		return unpaced(o.Read)
	}
	limit := rate.NewLimiter(rate.Limit(o.Rate), maxPaced)
	return func(n int) error { return limit.WaitN(ctx, min(n, maxPaced)) }
}

// unpaced tells read, unless nil, how much was read.
func unpaced(read func(n int)) func(int) error {
	return func(n int) error {
		if read != nil {
			read(n)
		}
		return nil
	}
}

// maxPaced is more than is read of a file at a time.
const maxPaced = 1 << 20

type pruning struct {
	*Shipper
	PruneOptions
	comparer comparer
	trash    *outbox.Trash // nil in a dry run
	// givenBack are the directories that came out of the trash, which are reported.
	givenBack map[string]bool
	asked     time.Time // when the receiver last answered
	up        *uplink.Inventory
	now       time.Time
	total     int64 // of all that is shipped, if the policy asks
	free      int64
	report    PruneReport
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
		if r.Err != nil {
			if err := p.count(Pruned{Dir: r.Dir, Episode: r.Name, Reason: "unreadable", Kept: r.Err.Error(), NeedsPerson: true}); err != nil {
				return nil, err
			}
		}
		if !r.Known || p.givenBack[r.Dir] {
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
	if err == nil {
		err = errors.Join(p.dirs.CheckPaths(), p.up.CheckStore(ctx))
	}
	if err != nil {
		return false, err
	}
	p.asked = time.Now()
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
			if err := p.delete(ctx, r, contentsOf(held[r.Dir]), &found); err != nil {
				return false, err
			}
		}
		if err := p.count(found); err != nil {
			return false, err
		}
	}
	return true, nil
}

// count adds an episode to the report, and reports it.
func (p *pruning) count(found Pruned) error {
	if found.Kept == "" {
		p.report.Deleted++
		p.report.Bytes += found.Bytes
		p.total -= found.Bytes
		p.free += found.Bytes
	} else {
		p.report.Kept++
	}
	return p.Found(found)
}

// contentsOf returns the digest of what the receiver's archive contains; zero if the
// receiver has not said.
func contentsOf(h wire.InventoryEntry) digest.Digest {
	if h.Contents == nil {
		return digest.Digest{}
	}
	return *h.Contents
}

// keeps says why an episode must not be deleted, or "". This is the law: the
// receiver has these very bytes, and has read them from its disk since it stored
// them.
func keeps(r source.Retired, h wire.InventoryEntry) string {
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

// Interrupted returns how many deletions of c's outbox have begun and not ended.
func Interrupted(c Config) (int, error) {
	dir, err := durable.Open(string(c.OutboxDir))
	if err != nil {
		return 0, err
	}
	out := outbox.New(dir)
	n, err := out.CountDiscarded()
	return n, errors.Join(err, out.Close())
}

// retain ends what an interrupted pruning left, and applies the policy from time to time.
func (d *dispatch) retain(ctx context.Context) error {
	if n, err := d.out.CountDiscarded(); err != nil || n > 0 {
		if err := errors.Join(err, d.retainOnce(ctx, 0)); errors.Is(err, durable.ErrFault) {
			return err
		}
	}
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
		if err := d.retainOnce(ctx, pruneMost); err != nil {
			return err
		}
	}
}

// pruneRate is how fast the daemon reads files to compare them, in bytes a second: the
// experiments need the disk.
const pruneRate = 32 << 20

// retainOnce deletes at most so many episodes.
func (d *dispatch) retainOnce(ctx context.Context, most int) error {
	report, err := d.prune(ctx, d.client, PruneOptions{
		Most: most, Rate: pruneRate, Holder: d.holder, Found: d.logPruned, MinUnchanged: d.minUnchanged,
	})
	_, unreachable := errors.AsType[*uplink.UnreachableError](err)
	_, locked := errors.AsType[*durable.LockedError](err)
	_, moved := errors.AsType[*durable.MovedError](err)
	switch {
	case errors.Is(err, durable.ErrFault), moved:
		return err
	case ctx.Err() != nil:
		return nil
	case uplink.IsOtherStore(err):
		d.stopSending(ctx, err)
	case unreachable:
		d.log.Debug("deleted nothing, the receiver was not asked", "err", err)
	case locked:
		d.log.Debug("another process deletes retired episodes", "err", err)
	case err != nil:
		d.log.Error("could not delete retired episodes", "err", err)
	case report.Kept > 0:
		d.log.Debug("kept retired episodes", "episodes", report.Kept)
	}
	return nil
}

// stopSending tells the dispatch what shows that the receiver has another store.
func (d *dispatch) stopSending(ctx context.Context, err error) {
	report(ctx, d.pongs, ponged{err: err, aside: true})
}

// maxKeptLogged bounds the episodes whose cause is remembered as logged.
const maxKeptLogged = 1000

// logPruned logs what was deleted and, once, why an episode is kept until a person acts.
func (d *dispatch) logPruned(p Pruned) error {
	switch {
	case p.Deleted:
		d.log.Info("deleted a retired episode", "episode", p.Episode, "dir", p.Dir, "bytes", p.Bytes,
			"reason", p.Reason, "verified_at", p.VerifiedAt.Format(time.RFC3339))
	case p.NeedsPerson && d.keptLogged[p.Dir] != p.Kept:
		if len(d.keptLogged) >= maxKeptLogged {
			clear(d.keptLogged)
		}
		d.keptLogged[p.Dir] = p.Kept
		d.log.Error("retired episode not deleted", "episode", p.Episode, "dir", p.Dir, "cause", p.Kept,
			"hint", "see 'Retired episodes that are kept' in docs/operations.md (of a package: /usr/share/doc/cis490-shipper)")
	}
	return nil
}
