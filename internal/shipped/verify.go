package shipped

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/source"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// VerifyOptions say how thoroughly [Verify] checks.
type VerifyOptions struct {
	// Quick uses what the receiver knows. Otherwise the receiver reads each archive back
	// from its disk, unless it did so within MaxAge.
	Quick  bool
	MaxAge time.Duration
	// Heal moves the episodes that the receiver has lost back, to be sent again, unless the
	// receiver has another store.
	Heal bool
	// Deep compares the files of each episode with what the receiver has. Otherwise only
	// those that may have changed, by their metadata, are compared; with Quick, none.
	Deep bool
	// OnRead, unless nil, is called with each number of bytes that are read of episodes.
	OnRead func(n int)
	// OnTotal, unless nil, is called at the beginning with the number of entries in the shipped
	// directory. That is the number of results, unless other processes change the directory.
	OnTotal func(entries int)
	// OnResult is called with each episode.
	OnResult func(VerifyResult) error
	// Log, unless nil, gets a warning if the receiver does not name its store.
	Log *slog.Logger
}

// VerifyFinding is the state of a retired episode.
type VerifyFinding string

// The findings.
const (
	Verified  VerifyFinding = "verified"  // the receiver has read it back from its disk
	Stored    VerifyFinding = "stored"    // the receiver has it, and has not read it back
	Missing   VerifyFinding = "missing"   // the receiver has nothing of this name
	Damaged   VerifyFinding = "damaged"   // the receiver's copy is corrupt
	Divergent VerifyFinding = "divergent" // the receiver has another archive of this name
	Unknown   VerifyFinding = "unknown"   // the episode has no receipt to ask about
	// Undecodable: the receiver has what was sent, and it cannot be decoded.
	Undecodable VerifyFinding = "undecodable"
	// Changed: the receiver has what was sent, and the episode on this host has changed.
	Changed VerifyFinding = "changed"
)

// VerifyResult is a retired episode and what the receiver has of it.
type VerifyResult struct {
	Dir        string        `json:"directory"` // in the shipped directory
	Episode    episode.Name  `json:"episode_id"`
	Finding    VerifyFinding `json:"finding"`
	Digest     string        `json:"sha256,omitempty"`
	Stored     string        `json:"stored_sha256,omitempty"` // if divergent
	ReceivedAt time.Time     `json:"received_at,omitzero"`
	VerifiedAt time.Time     `json:"verified_at,omitzero"`
	Healing    bool          `json:"healing,omitempty"`    // it was moved back, to be sent again
	NotHealed  string        `json:"not_healed,omitempty"` // why it was not
	Partial    bool          `json:"partial,omitempty"`    // if changed: a deletion was interrupted, and part of it is gone
	Detail     string        `json:"detail,omitempty"`     // why it is changed, not read back, or unknown with Deep
}

// VerifyReport counts the findings.
type VerifyReport struct {
	Verified    int `json:"verified"`
	Stored      int `json:"stored"`
	Missing     int `json:"missing"`
	Damaged     int `json:"damaged"`
	Undecodable int `json:"undecodable"`
	Divergent   int `json:"divergent"`
	Unknown     int `json:"unknown"`
	Healing     int `json:"healing"`
	Changed     int `json:"changed"`
}

func (r VerifyReport) String() string {
	return fmt.Sprintf("verified=%d stored=%d missing=%d damaged=%d undecodable=%d divergent=%d unknown=%d healing=%d changed=%d",
		r.Verified, r.Stored, r.Missing, r.Damaged, r.Undecodable, r.Divergent, r.Unknown, r.Healing, r.Changed)
}

// ProblemCount returns how many episodes the receiver is not known to have as they are.
func (r VerifyReport) ProblemCount() int {
	return r.Missing + r.Damaged + r.Undecodable + r.Divergent + r.Unknown + r.Changed
}

// Verify asks the receiver about everything in the shipped directory, a page at a time. It
// deletes nothing. The error is an [*uplink.UnreachableError] if the receiver could not be
// asked.
func Verify(ctx context.Context, c hostdir.Config, client uplink.InventoryClient, o VerifyOptions) (VerifyReport, error) {
	dirs, inventory, err := open(c, client, o.Log)
	if err != nil {
		return VerifyReport{}, err
	}
	defer dirs.Close()
	v := &verifyRun{VerifyOptions: o, dirs: dirs, inventory: inventory, startedAt: time.Now()}
	if o.OnTotal != nil {
		n, err := dirs.Source.CountRetiredDirs()
		if err != nil {
			return v.report, err
		}
		o.OnTotal(n)
	}
	v.comparer = comparer{src: dirs.Source, onRead: withoutLimit(o.OnRead), readAll: o.Deep, readNone: o.Quick}
	var batch []source.Retired
	for r, err := range dirs.Source.AllRetired() {
		if err != nil {
			return v.report, err
		}
		batch = append(batch, r)
		if len(batch) == wire.MaxQueries {
			if err := v.verifyBatch(ctx, batch); err != nil {
				return v.report, err
			}
			batch = batch[:0]
		}
	}
	err = v.verifyBatch(ctx, batch)
	return v.report, err
}

// verifyRun is one run of [Verify].
type verifyRun struct {
	VerifyOptions
	dirs      *hostdir.Dirs
	inventory *uplink.Inventory
	comparer  comparer
	startedAt time.Time
	report    VerifyReport
}

func (v *verifyRun) verifyBatch(ctx context.Context, batch []source.Retired) error {
	slices.SortFunc(batch, func(x, y source.Retired) int { return strings.Compare(x.Dir, y.Dir) })
	entries, err := queryRetired(ctx, v.inventory, batch)
	if err != nil {
		return err
	}
	if err := v.dirs.CheckPaths(); err != nil {
		return err // or the report would be of a directory that was moved away
	}
	if err := v.inventory.CheckStore(ctx); err != nil {
		return err
	}
	for _, r := range batch {
		found, err := v.verifyEpisode(ctx, r, entries[r.Dir])
		if err != nil {
			return err
		}
		if v.Heal && (found.Finding == Missing || found.Finding == Damaged) {
			found.Healing = true
			if err := resendEpisode(v.dirs, r); err != nil {
				found.Healing, found.NotHealed = false, err.Error()
			}
		}
		v.countResult(found)
		if err := v.OnResult(found); err != nil {
			return err
		}
	}
	return nil
}

// queryRetired asks about the episodes that have a receipt, and returns the receiver's
// entries by directory.
func queryRetired(ctx context.Context, inventory *uplink.Inventory, batch []source.Retired) (map[string]wire.InventoryEntry, error) {
	var queries []wire.InventoryQuery
	var dirs []string
	for _, r := range batch {
		if r.HasReceipt {
			queries = append(queries, wire.InventoryQuery{Episode: r.Name, Digest: r.Receipt.Digest})
			dirs = append(dirs, r.Dir)
		}
	}
	if len(queries) == 0 {
		return nil, nil
	}
	entries, err := inventory.Query(ctx, queries, false)
	if err != nil {
		return nil, err
	}
	byDir := make(map[string]wire.InventoryEntry, len(entries))
	for i, e := range entries {
		byDir[dirs[i]] = e
	}
	return byDir, nil
}

// verifyEpisode returns the state of one episode. The receiver reads it back first, unless
// the options say otherwise.
func (v *verifyRun) verifyEpisode(ctx context.Context, r source.Retired, e wire.InventoryEntry) (VerifyResult, error) {
	found := VerifyResult{Dir: r.Dir, Episode: r.Name, Finding: Unknown}
	if r.Err != nil {
		found.Detail = r.Err.Error()
	}
	if !r.HasReceipt {
		return found, nil
	}
	found.Digest, found.ReceivedAt = r.Receipt.Digest.String(), r.Receipt.ReceivedAt
	wasRead := v.Quick || v.isRecent(e)
	if e.State == wire.Present && !wasRead {
		var err error
		if e, err = v.readBack(ctx, r, &found); err != nil {
			return found, err
		}
		wasRead = found.Detail == ""
	}
	if e.Unreadable {
		found.Detail = "not read back: the receiver could not examine its copy, see its journal; keep the episode"
		if e.Digest == nil || e.Digest.IsZero() {
			return found, nil // not even the digest of that copy is known
		}
	}
	switch {
	case e.State == wire.Absent:
		found.Finding = Missing
	case e.State == wire.StateDamaged:
		found.Finding = Damaged
	case e.State != wire.Present || *e.Digest != r.Receipt.Digest:
		found.Finding, found.Stored = Divergent, e.Digest.String()
	case e.Undecodable:
		found.Finding = Undecodable
	case e.VerifiedAt != nil && (v.Quick || v.isRecent(e) || wasRead):
		found.Finding, found.VerifiedAt = Verified, e.VerifiedAt.Time
	default: // a receiver whose file system has no attributes remembers no verification
		found.Finding = Stored
	}
	if found.Finding == Verified || found.Finding == Stored {
		return found, v.compareEpisode(ctx, r, contentsOf(e), &found)
	}
	return found, nil
}

// readBack has the receiver read its copy of an episode. If the receiver cannot read this
// one but still answers, found says so.
func (v *verifyRun) readBack(ctx context.Context, r source.Retired, found *VerifyResult) (wire.InventoryEntry, error) {
	query := []wire.InventoryQuery{{Episode: r.Name, Digest: r.Receipt.Digest}}
	entries, err := v.inventory.Query(ctx, query, true)
	if err == nil {
		return entries[0], nil
	}
	unread, queryErr := v.inventory.Query(ctx, query, false)
	if queryErr != nil {
		return wire.InventoryEntry{}, err
	}
	found.Detail = "not read back: " + err.Error()
	return unread[0], nil
}

// compareEpisode checks whether the episode on this host still is what the receiver has, and
// records the result at the episode.
func (v *verifyRun) compareEpisode(ctx context.Context, r source.Retired, contents digest.Digest, found *VerifyResult) error {
	_, shipped := v.dirs.Source.Dirs()
	c, err := v.comparer.compareTree(ctx, shipped, r.Dir, r, contents)
	if err != nil {
		return err
	}
	switch {
	case c.differs:
		found.Finding, found.Detail = Changed, c.cause
		found.Partial = r.Change != nil && r.Change.Partial
	case !c.equal && v.Deep:
		found.Finding, found.Detail = Unknown, c.cause
	}
	return recordAt(shipped, r.Dir, c, v.startedAt)
}

// isRecent reports whether the receiver read its copy back within MaxAge.
func (v *verifyRun) isRecent(e wire.InventoryEntry) bool {
	return e.VerifiedAt != nil && v.MaxAge > 0 && v.startedAt.Sub(e.VerifiedAt.Time) < v.MaxAge
}

func (v *verifyRun) countResult(found VerifyResult) {
	r := &v.report
	*map[VerifyFinding]*int{
		Verified: &r.Verified, Stored: &r.Stored, Missing: &r.Missing,
		Damaged: &r.Damaged, Undecodable: &r.Undecodable, Divergent: &r.Divergent, Unknown: &r.Unknown,
		Changed: &r.Changed,
	}[found.Finding]++
	if found.Healing {
		r.Healing++
	}
}

// contentsOf returns the digest of the contents of the receiver's archive, or zero if the
// receiver has not reported it.
func contentsOf(e wire.InventoryEntry) digest.Digest {
	if e.Contents == nil {
		return digest.Digest{}
	}
	return *e.Contents
}
