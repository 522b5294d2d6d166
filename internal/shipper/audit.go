package shipper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// AuditOptions say how closely [Audit] looks.
type AuditOptions struct {
	// Quick leaves it at what the receiver knows. Otherwise it reads each
	// archive back from its disk, unless it did so within MaxAge.
	Quick  bool
	MaxAge time.Duration
	// Heal moves what the receiver has lost back, to be sent again, unless it is another
	// store that has not got it.
	Heal bool
	// Deep compares the files of each episode with what the receiver has. Otherwise that
	// is done only where the file system shows that they may have changed, and with Quick
	// not at all.
	Deep bool
	// Read, unless nil, is told how many bytes of episodes were read.
	Read  func(n int)
	Found func(Audited) error
	// Log, unless nil, is told if the receiver does not name its store.
	Log *slog.Logger
}

func (o AuditOptions) log() *slog.Logger { return cmp.Or(o.Log, slog.New(slog.DiscardHandler)) }

// Finding is what an audit says of a retired episode.
type Finding string

// What an audit may find.
const (
	Verified  Finding = "verified"  // read back from the receiver's disk, and right
	Stored    Finding = "stored"    // there, and not read back
	Missing   Finding = "missing"   // the receiver has nothing of this name
	Damaged   Finding = "damaged"   // the receiver's copy is not what it was
	Divergent Finding = "divergent" // the receiver has another archive of this name
	Unknown   Finding = "unknown"   // the episode carries no receipt to ask about
	// Undecodable: the receiver has what was sent, and that is no archive.
	Undecodable Finding = "undecodable"
	// Changed: the receiver has what was sent, and the episode on this host is no longer
	// that.
	Changed Finding = "changed"
)

// Audited is a retired episode and what the receiver has of it.
type Audited struct {
	Dir        string       `json:"directory"` // in the shipped folder
	Episode    episode.Name `json:"episode_id"`
	Finding    Finding      `json:"finding"`
	Digest     string       `json:"sha256,omitempty"`
	Stored     string       `json:"stored_sha256,omitempty"` // if divergent
	ReceivedAt time.Time    `json:"received_at,omitzero"`
	VerifiedAt time.Time    `json:"verified_at,omitzero"`
	Healing    bool         `json:"healing,omitempty"`    // it was moved back, to be sent again
	NotHealed  string       `json:"not_healed,omitempty"` // why it was not
	Partial    bool         `json:"partial,omitempty"`    // if changed: a deletion was interrupted, and part of it is gone
	Detail     string       `json:"detail,omitempty"`     // why it is changed, not read back, or unknown with Deep
}

// AuditReport counts what an audit found.
type AuditReport struct {
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

func (r AuditReport) String() string {
	return fmt.Sprintf("verified=%d stored=%d missing=%d damaged=%d undecodable=%d divergent=%d unknown=%d healing=%d changed=%d",
		r.Verified, r.Stored, r.Missing, r.Damaged, r.Undecodable, r.Divergent, r.Unknown, r.Healing, r.Changed)
}

// Bad returns how many episodes the receiver is not known to have as they are.
func (r AuditReport) Bad() int {
	return r.Missing + r.Damaged + r.Undecodable + r.Divergent + r.Unknown + r.Changed
}

// Audit asks the receiver about everything in the shipped folder, a page at a
// time. It works beside a running shipper and deletes nothing. The error is an
// [*uplink.UnreachableError] if the receiver could not be asked.
func Audit(ctx context.Context, c Config, up uplink.InventoryClient, o AuditOptions) (AuditReport, error) {
	dirs, err := hostdir.Open(c.Dirs())
	if err != nil {
		return AuditReport{}, err
	}
	s := &Shipper{cfg: c, dirs: dirs, src: dirs.Source, out: dirs.Outbox}
	defer s.Close()
	if err := dirs.WatchPaths(nil); err != nil {
		return AuditReport{}, err
	}
	if s.store, err = uplink.NewAdoption(s.src, s.out, up, o.log()); err != nil {
		return AuditReport{}, err
	}
	a := &audit{AuditOptions: o, s: s, up: uplink.NewInventory(up, s.store), begun: time.Now()}
	a.comparer = comparer{src: s.src, pace: unpaced(o.Read), deep: o.Deep, light: o.Quick}
	var batch []source.Retired
	for r, err := range s.src.Shipped() {
		if err != nil {
			return a.report, err
		}
		if batch = append(batch, r); len(batch) == wire.MaxQueries {
			if err := a.page(ctx, batch); err != nil {
				return a.report, err
			}
			batch = batch[:0]
		}
	}
	return a.report, a.page(ctx, batch)
}

type audit struct {
	AuditOptions
	s      *Shipper
	up     *uplink.Inventory
	begun  time.Time
	report AuditReport

	comparer comparer
}

// page judges some episodes.
func (a *audit) page(ctx context.Context, batch []source.Retired) error {
	slices.SortFunc(batch, func(x, y source.Retired) int { return strings.Compare(x.Dir, y.Dir) })
	held, err := holdingsOf(ctx, a.up, batch)
	if err != nil {
		return err
	}
	if err := a.s.dirs.CheckPaths(); err != nil {
		return err // or its report would be of a folder that nobody looks into
	}
	if err := a.up.CheckStore(ctx); err != nil {
		return err
	}
	for _, r := range batch {
		found, err := a.judge(ctx, r, held[r.Dir])
		if err != nil {
			return err
		}
		if a.Heal && (found.Finding == Missing || found.Finding == Damaged) {
			a.heal(r, &found)
		}
		a.count(found)
		if err := a.Found(found); err != nil {
			return err
		}
	}
	return nil
}

// holdingsOf asks about the episodes that carry a receipt, and returns the
// answers by directory.
func holdingsOf(ctx context.Context, up *uplink.Inventory, batch []source.Retired) (map[string]wire.InventoryEntry, error) {
	var claims []wire.InventoryQuery
	var dirs []string
	for _, r := range batch {
		if r.Known {
			claims = append(claims, wire.InventoryQuery{Episode: r.Name, Digest: r.Receipt.Digest})
			dirs = append(dirs, r.Dir)
		}
	}
	if len(claims) == 0 {
		return nil, nil
	}
	said, err := up.Query(ctx, claims, false)
	if err != nil {
		return nil, err
	}
	held := make(map[string]wire.InventoryEntry, len(said))
	for i, h := range said {
		held[dirs[i]] = h
	}
	return held, nil
}

// judge says what the receiver has of one episode, after reading it back if it
// is to.
func (a *audit) judge(ctx context.Context, r source.Retired, h wire.InventoryEntry) (Audited, error) {
	found := Audited{Dir: r.Dir, Episode: r.Name, Finding: Unknown}
	if r.Err != nil {
		found.Detail = r.Err.Error()
	}
	if !r.Known {
		return found, nil
	}
	found.Digest, found.ReceivedAt = r.Receipt.Digest.String(), r.Receipt.ReceivedAt
	read := a.Quick || a.fresh(h)
	if h.State == wire.Present && !read {
		var err error
		if h, err = a.readBack(ctx, r, &found); err != nil {
			return found, err
		}
		read = found.Detail == ""
	}
	if h.Unreadable && noteUnreadable(h, &found) {
		return found, nil
	}
	switch {
	case h.State == wire.Absent:
		found.Finding = Missing
	case h.State == wire.StateDamaged:
		found.Finding = Damaged
	case h.State != wire.Present || *h.Digest != r.Receipt.Digest:
		found.Finding = Divergent
		found.Stored = h.Digest.String()
	case h.Undecodable:
		found.Finding = Undecodable
	case h.VerifiedAt != nil && (a.Quick || a.fresh(h)):
		found.Finding, found.VerifiedAt = Verified, h.VerifiedAt.Time
	default: // a receiver whose disk has no attributes does not remember
		found.Finding = Stored
		if read && !a.Quick && h.VerifiedAt != nil {
			found.Finding, found.VerifiedAt = Verified, h.VerifiedAt.Time
		}
	}
	if found.Finding == Verified || found.Finding == Stored {
		return found, a.compare(ctx, r, contentsOf(h), &found)
	}
	return found, nil
}

// readBack has the receiver read its copy of an episode. If it cannot read this one, but
// still answers, found says so, and others are read.
func (a *audit) readBack(ctx context.Context, r source.Retired, found *Audited) (wire.InventoryEntry, error) {
	claim := []wire.InventoryQuery{{Episode: r.Name, Digest: r.Receipt.Digest}}
	said, err := a.up.Query(ctx, claim, true)
	if err == nil {
		return said[0], nil
	}
	known, kerr := a.up.Query(ctx, claim, false)
	if kerr != nil {
		return wire.InventoryEntry{}, err
	}
	found.Detail = "not read back: " + err.Error()
	return known[0], nil
}

// compare sees whether an episode that the receiver has still is what it has, and notes
// that at the episode.
func (a *audit) compare(ctx context.Context, r source.Retired, contents digest.Digest, found *Audited) error {
	_, shipped := a.s.src.Dirs()
	c, err := a.comparer.compare(ctx, shipped, r.Dir, r, contents)
	if err != nil {
		return err
	}
	switch {
	case c.differs:
		found.Finding, found.Detail = Changed, c.cause
		found.Partial = r.Change != nil && r.Change.Partial
	case !c.equal && a.Deep:
		found.Finding, found.Detail = Unknown, c.cause
	}
	return noteAt(shipped, r.Dir, c, a.begun)
}

// fresh reports whether the receiver read its copy back lately enough.
func (a *audit) fresh(h wire.InventoryEntry) bool {
	return h.VerifiedAt != nil && a.MaxAge > 0 && a.begun.Sub(h.VerifiedAt.Time) < a.MaxAge
}

// heal moves an episode back, so that it is packed and sent again.
func (a *audit) heal(r source.Retired, found *Audited) {
	if err := a.s.resend(r); err != nil {
		found.NotHealed = err.Error()
		return
	}
	found.Healing = true
}

func (a *audit) count(found Audited) {
	r := &a.report
	*map[Finding]*int{
		Verified: &r.Verified, Stored: &r.Stored, Missing: &r.Missing,
		Damaged: &r.Damaged, Undecodable: &r.Undecodable, Divergent: &r.Divergent, Unknown: &r.Unknown,
		Changed: &r.Changed,
	}[found.Finding]++
	if found.Healing {
		r.Healing++
	}
}

// Resend moves a retired episode back to the episodes folder, beside a running
// shipper, so that it goes the whole way once more. Dir is its directory in the
// shipped folder. It returns an error wrapping [fs.ErrNotExist] if it is not
// there.
func Resend(c Config, dir string) error {
	dirs, err := hostdir.Open(c.Dirs())
	if err != nil {
		return err
	}
	s := &Shipper{cfg: c, dirs: dirs, src: dirs.Source, out: dirs.Outbox}
	defer s.Close()
	r, err := s.src.Retired(dir)
	if err != nil {
		return err
	}
	return s.resend(r)
}

// resend refuses what is on its way already: the packed copy in the outbox may
// be of another run of that name.
func (s *Shipper) resend(r source.Retired) error {
	state, err := s.out.State(r.Name)
	if err != nil {
		return err
	}
	if state.Sealed || state.Held {
		return fmt.Errorf("an episode %s is on its way or held already: see 'shipper status'", r.Name)
	}
	err = s.src.Resend(r)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("there is an episode %s in %s already: let it be shipped first", r.Name, s.cfg.EpisodesDir)
	}
	return err
}
