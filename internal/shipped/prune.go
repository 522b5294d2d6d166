package shipped

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// RetentionConfig says when retired episodes are deleted on this host. Zero values are off,
// which is the default: nothing is deleted.
type RetentionConfig struct {
	MaxAge   config.Duration `toml:"max_age"`   // since the receipt
	MaxBytes config.Bytes    `toml:"max_bytes"` // of the shipped episodes
	MinFree  config.Bytes    `toml:"min_free"`  // on the disk
}

// IsEnabled reports whether anything is to be deleted.
func (c RetentionConfig) IsEnabled() bool { return c != RetentionConfig{} }

// maxPruneCandidates is the maximum number of episodes that one pruning considers.
const maxPruneCandidates = 10_000

// PruneOptions say what [Prune] does.
type PruneOptions struct {
	Retention RetentionConfig
	DryRun    bool        // delete nothing, and report what would be deleted
	Limit     int         // the maximum number of episodes to delete
	Rate      int64       // bytes of files read per second, to compare them; 0 is unlimited
	Holder    string      // the text that the next process that wants to delete reads
	OnRead    func(n int) // unless nil, is called with each number of bytes read, if Rate is 0
	// OnTotal, unless nil, is called with the number of episodes that the policy selects, if it
	// depends only on their age. Otherwise it is unknown how much space each deletion frees.
	OnTotal func(episodes int)
	// MinUnchanged is for how long no file of an episode must have changed before it is
	// deleted; zero is 3 s.
	MinUnchanged time.Duration
	OnResult     func(PruneResult) error // is called with each episode that the policy selects
	Log          *slog.Logger            // unless nil, gets a warning if the receiver does not name its store
}

// PruneResult is a retired episode that the policy selects.
type PruneResult struct {
	Dir        string       `json:"directory"` // in the shipped directory
	Episode    episode.Name `json:"episode_id"`
	Bytes      int64        `json:"bytes"`  // on the disk
	Reason     string       `json:"reason"` // max_age, max_bytes, min_free, interrupted or unreadable
	Deleted    bool         `json:"deleted"`
	Kept       string       `json:"kept,omitempty"` // why it was not
	ReceivedAt time.Time    `json:"received_at"`
	VerifiedAt time.Time    `json:"verified_at,omitzero"` // when the receiver read it back

	// NeedsOperator reports that it is kept until an operator acts.
	NeedsOperator bool `json:"needs_person,omitempty"`

	inTrash bool // it stays in the trash, to be deleted by the next pruning
}

// PruneReport counts the results of a pruning.
type PruneReport struct {
	Deleted int   `json:"deleted"` // or would be
	Bytes   int64 `json:"bytes"`   // of those
	Kept    int   `json:"kept"`    // that the policy selects, and that must not be deleted
	DryRun  bool  `json:"dry_run"`
}

// Prune deletes retired episodes by the policy, oldest first. It keeps those that the
// receiver has not read back since it stored them, and those that have changed since they
// were shipped. It returns a [*durable.LockedError] if another process prunes.
func Prune(ctx context.Context, c hostdir.Config, client uplink.InventoryClient, o PruneOptions) (PruneReport, error) {
	dirs, inventory, err := open(c, client, o.Log)
	if err != nil {
		return PruneReport{}, err
	}
	defer dirs.Close()
	return PruneIn(ctx, dirs, inventory, o)
}

// PruneIn is [Prune] in open directories.
func PruneIn(ctx context.Context, dirs *hostdir.Dirs, inventory *uplink.Inventory, o PruneOptions) (PruneReport, error) {
	p := &pruneRun{
		PruneOptions: o, dirs: dirs, src: dirs.Source, inventory: inventory, startedAt: time.Now(),
		comparer: comparer{src: dirs.Source, onRead: o.onRead(ctx)},
		restored: make(map[string]bool), report: PruneReport{DryRun: o.DryRun},
	}
	if !o.DryRun {
		trash, err := dirs.Outbox.OpenTrash(o.Holder)
		if err != nil {
			return p.report, err
		}
		defer trash.Close()
		p.trash = trash
		if err := p.finishInterrupted(ctx); err != nil {
			return p.report, err
		}
	}
	if o.Limit == 0 {
		return p.report, nil
	}
	err := p.applyPolicy(ctx)
	return p.report, err
}

// onRead returns the function that limits the rate at which files are read.
func (o PruneOptions) onRead(ctx context.Context) func(int) error {
	if o.Rate == 0 {
		return withoutLimit(o.OnRead)
	}
	limit := rate.NewLimiter(rate.Limit(o.Rate), maxReadBurst)
	return func(n int) error { return limit.WaitN(ctx, min(n, maxReadBurst)) }
}

// withoutLimit returns a function that calls onRead, unless nil, and does not wait.
func withoutLimit(onRead func(n int)) func(int) error {
	return func(n int) error {
		if onRead != nil {
			onRead(n)
		}
		return nil
	}
}

// maxReadBurst is more than one read of a file returns.
const maxReadBurst = 1 << 20

// pruneRun is one run of [Prune].
type pruneRun struct {
	PruneOptions
	dirs      *hostdir.Dirs
	src       *source.Source // of dirs
	inventory *uplink.Inventory
	comparer  comparer
	trash     *outbox.Trash   // nil in a dry run
	restored  map[string]bool // directories that came out of the trash, and are reported
	queriedAt time.Time       // when the receiver last answered
	startedAt time.Time
	total     int64 // the total size of the shipped episodes, if the policy limits it
	free      int64
	report    PruneReport
}

func (p *pruneRun) applyPolicy(ctx context.Context) error {
	candidates, err := p.findCandidates(ctx)
	if err != nil {
		return err
	}
	if p.free, err = p.dirs.Outbox.Dir().FreeBytes(); err != nil {
		return err
	}
	if p.OnTotal != nil && p.Retention.MaxBytes == 0 && p.Retention.MinFree == 0 {
		n := slices.IndexFunc(candidates, func(r source.Retired) bool { return p.reasonToDelete(r) == "" })
		if n < 0 {
			n = len(candidates)
		}
		p.OnTotal(min(n, p.Limit))
	}
	for batch := range slices.Chunk(candidates, wire.MaxQueries) {
		if p.reasonToDelete(batch[0]) == "" {
			return nil
		}
		more, err := p.pruneBatch(ctx, batch)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// findCandidates returns the oldest episodes that have a receipt, oldest first.
func (p *pruneRun) findCandidates(ctx context.Context) ([]source.Retired, error) {
	var all []source.Retired
	keepOldest := func() {
		slices.SortFunc(all, func(x, y source.Retired) int { return x.Receipt.ReceivedAt.Compare(y.Receipt.ReceivedAt) })
		all = all[:min(len(all), maxPruneCandidates)]
	}
	_, shipped := p.src.Dirs()
	for r, err := range p.src.AllRetired() {
		if err != nil {
			return nil, err
		}
		if p.Retention.MaxBytes > 0 {
			n, err := shipped.TreeBytes(ctx, r.Dir)
			if err != nil {
				return nil, err
			}
			p.total += n
		}
		if r.Err != nil {
			if err := p.countResult(PruneResult{Dir: r.Dir, Episode: r.Name, Reason: "unreadable", Kept: r.Err.Error(), NeedsOperator: true}); err != nil {
				return nil, err
			}
		}
		if !r.HasReceipt || p.restored[r.Dir] {
			continue
		}
		all = append(all, r)
		if len(all) == 4*maxPruneCandidates {
			keepOldest()
		}
	}
	keepOldest()
	return all, ctx.Err()
}

// reasonToDelete returns why the policy selects an episode, or "" if it does not.
func (p *pruneRun) reasonToDelete(r source.Retired) string {
	c := p.Retention
	switch {
	case c.MaxAge > 0 && p.startedAt.Sub(r.Receipt.ReceivedAt) > c.MaxAge.Std():
		return "max_age"
	case c.MaxBytes > 0 && p.total > int64(c.MaxBytes):
		return "max_bytes"
	case c.MinFree > 0 && p.free < int64(c.MinFree):
		return "min_free"
	}
	return ""
}

// pruneBatch deletes what it may of a batch, and reports whether to continue.
func (p *pruneRun) pruneBatch(ctx context.Context, batch []source.Retired) (bool, error) {
	entries, err := queryRetired(ctx, p.inventory, batch)
	if err == nil {
		err = errors.Join(p.dirs.CheckPaths(), p.inventory.CheckStore(ctx))
	}
	if err != nil {
		return false, err
	}
	p.queriedAt = time.Now()
	_, shipped := p.src.Dirs()
	for _, r := range batch {
		found := PruneResult{Dir: r.Dir, Episode: r.Name, Reason: p.reasonToDelete(r), ReceivedAt: r.Receipt.ReceivedAt}
		if found.Reason == "" || p.report.Deleted >= p.Limit {
			return false, nil
		}
		if found.Bytes, err = shipped.TreeBytes(ctx, r.Dir); err != nil {
			return false, err
		}
		found.Kept = ReasonToKeep(r, entries[r.Dir])
		if found.Kept == "" {
			found.VerifiedAt = entries[r.Dir].VerifiedAt.Time
			if err := p.deleteEpisode(ctx, r, contentsOf(entries[r.Dir]), &found); err != nil {
				return false, err
			}
		}
		if err := p.countResult(found); err != nil {
			return false, err
		}
	}
	return true, nil
}

// countResult counts a result, and passes it on.
func (p *pruneRun) countResult(found PruneResult) error {
	if found.Kept == "" {
		p.report.Deleted++
		p.report.Bytes += found.Bytes
		p.total -= found.Bytes
		p.free += found.Bytes
	} else {
		p.report.Kept++
	}
	return p.OnResult(found)
}

// ReasonToKeep returns why an episode must not be deleted, or "" if the receiver has exactly
// its bytes and has read them from its disk since it stored them.
func ReasonToKeep(r source.Retired, e wire.InventoryEntry) string {
	switch {
	case !r.HasReceipt:
		return "it carries no receipt"
	case e.State != wire.Present || e.Digest == nil || *e.Digest != r.Receipt.Digest:
		return fmt.Sprintf("the receiver does not have it (%s): run 'shipper verify'", e.State)
	case e.ReceivedAt == nil || e.VerifiedAt == nil || !e.VerifiedAt.After(e.ReceivedAt.Time):
		return "the receiver has not read it back from its disk yet: its scrub will, or 'shipper verify'"
	}
	return ""
}
