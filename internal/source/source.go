// Package source finds finished episodes on the lab host and retires them.
//
// An episode is finished when it is a real directory and has a regular
// [episode.Marker]. Where it is on another file system than the episodes folder, it cannot
// be moved, and [Source.Tree] says so. The law: this package
// destroys nothing. Retiring moves the directory to the shipped folder, where a
// name that is taken gets a suffix; the one caller must hold a receipt.
package source

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Source is the pair of folders.
type Source struct {
	episodes *durable.Dir
	shipped  *durable.Dir
	limits   archive.Limits
}

// New returns the source of two open folders, which it closes in the end.
// Limits bound what may be packed as one episode.
func New(episodes, shipped *durable.Dir, limits archive.Limits) *Source {
	return &Source{episodes: episodes, shipped: shipped, limits: limits}
}

// Close closes the folders.
func (s *Source) Close() error { return errors.Join(s.episodes.Close(), s.shipped.Close()) }

// Dirs returns the folders. They belong to s.
func (s *Source) Dirs() (episodes, shipped *durable.Dir) { return s.episodes, s.shipped }

// Names yields the names of the directories in the episodes folder, finished or
// not, in no order: what is there to look at. It looks into none of them.
func (s *Source) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.Entries() {
			if _, stray := errors.AsType[*StrayError](err); stray {
				continue
			}
			if !yield(name, err) {
				return
			}
		}
	}
}

// Entries is [Source.Names] with all that is in the folder: what is no directory, and never
// ships, comes with a [*StrayError].
func (s *Source) Entries() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range s.episodes.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if !e.IsDir() {
				err = stray(e)
			}
			if !yield(e.Name(), err) {
				return
			}
		}
	}
}

// A StrayError says that an entry of the episodes folder never ships as it is: it is no
// directory, or what should be its marker is no regular file.
type StrayError struct {
	Entry  string `json:"entry"`  // its name, or its name quoted where it is not printable
	Why    string `json:"reason"` // a sentence for a person
	Marked bool   `json:"-"`      // it has something for a marker: somebody means it for an episode
	Link   bool   `json:"-"`      // it is a link
}

func (e *StrayError) Error() string { return e.Entry + " " + e.Why }

// stray describes what is no directory.
func stray(e fs.DirEntry) *StrayError {
	s := &StrayError{Entry: printable(e.Name())}
	switch {
	case e.Type()&fs.ModeSymlink != 0:
		s.Why, s.Link = "is a link, which is not followed: put the folder itself here", true
	case e.Type().IsRegular():
		s.Why = "is a file: only folders are episodes"
	default:
		s.Why = "is no folder: only folders are episodes"
	}
	return s
}

// printable returns a name as it is if it can be shown, and else quoted.
func printable(name string) string {
	if q := strconv.QuoteToASCII(name); q != `"`+name+`"` {
		return q
	}
	return name
}

// NameError returns nil unless there is a finished episode under a name that is
// no name: nothing can be sent or noted under it, and a person must rename it.
func (s *Source) NameError(name string) error {
	_, err := episode.ParseName(name)
	if err == nil {
		return nil
	}
	if _, finished, ferr := s.finished(name); ferr != nil || !finished {
		return ferr
	}
	return err
}

// IsFinished reports whether there is a finished episode of this name. It may be on
// another file system: [Source.Tree] says so.
func (s *Source) IsFinished(name episode.Name) (bool, error) {
	_, finished, err := s.finished(string(name))
	return finished, err
}

// Finish says when an episode became finished.
type Finish struct {
	At time.Time // the mtime of its marker, which may be any
	// MarkedAt is the ctime of the marker, and ChangedAt the later one of that and of the
	// ctime of the episode's directory: the episode has not changed last before that.
	MarkedAt, ChangedAt time.Time
}

// FinishedAt is [Source.IsFinished], and when that came about. It returns a [*StrayError]
// for an episode with a marker of another kind, which is not finished.
func (s *Source) FinishedAt(name episode.Name) (at Finish, finished bool, err error) {
	m, err := s.marker(string(name))
	if err == nil && m.there && !m.Regular() {
		err = &StrayError{Entry: string(name), Why: wrongMarker(m.Stat), Marked: true}
	}
	return m.finish(), m.finished(), err
}

func (s *Source) finished(name string) (m marker, finished bool, err error) {
	m, err = s.marker(name)
	return m, m.finished(), err
}

// marker is what stands under the name of an episode's marker.
type marker struct {
	durable.Stat
	there bool
	dir   durable.Stat // of the episode
}

func (m marker) finished() bool { return m.there && m.Regular() }

func (m marker) finish() Finish {
	if !m.finished() {
		return Finish{}
	}
	at := Finish{At: m.ModTime(), MarkedAt: m.ChangedAt(), ChangedAt: m.ChangedAt()}
	if dir := m.dir.ChangedAt(); dir.After(at.ChangedAt) {
		at.ChangedAt = dir
	}
	return at
}

func wrongMarker(st durable.Stat) string {
	what := "is no regular file"
	switch {
	case st.IsDir():
		what = "is a folder"
	case st.IsLink():
		what = "is a link"
	}
	return fmt.Sprintf("never ships: its %s %s; remove that, and make an empty file", episode.Marker, what)
}

// marker looks for the marker of an episode. It returns a [*durable.ReadError] where the
// disk does not say: that is of this one episode, and no fault of the storage.
func (s *Source) marker(name string) (marker, error) {
	m, err := s.findMarker(name)
	if errors.Is(err, fs.ErrNotExist) {
		return marker{}, nil
	}
	return m, durable.ReadFailed(err)
}

func (s *Source) findMarker(name string) (marker, error) {
	st, err := s.episodes.Lstat(name)
	if err != nil {
		return marker{}, err
	}
	// A link to a directory is none: what it leads to is not ours to move.
	if !st.IsDir() {
		return marker{}, nil
	}
	dir, err := s.episodes.OpenDir(name)
	if err != nil {
		return marker{}, err
	}
	defer dir.Close()
	found, err := dir.Lstat(episode.Marker)
	return marker{Stat: found, there: err == nil, dir: st}, err
}

// Unfinished is an episode that has no marker, or one that does not count.
type Unfinished struct {
	Entry     string    `json:"entry"`      // its name, or its name quoted where it is not printable
	ChangedAt time.Time `json:"changed_at"` // the ctime of its folder
}

// Unfinished describes the folder of an episode that is not finished, or returns an error
// wrapping [fs.ErrNotExist].
func (s *Source) Unfinished(name string) (Unfinished, error) {
	st, err := s.episodes.Lstat(name)
	if err != nil {
		return Unfinished{}, durable.ReadFailed(err)
	}
	return Unfinished{printable(name), st.ChangedAt()}, nil
}

// MarkedAt returns when an episode's marker, of whatever time, came here or was changed
// last: its ctime. It is zero if there is none.
func (s *Source) MarkedAt(name episode.Name) time.Time {
	m, err := s.marker(string(name))
	if err != nil || !m.finished() {
		return time.Time{}
	}
	return m.ChangedAt()
}

// Tree opens an episode for packing or comparing, or returns an error wrapping
// [fs.ErrNotExist].
func (s *Source) Tree(name episode.Name) (*archive.Tree, error) {
	return archive.OpenTree(s.episodes.File(), string(name), name, s.limits)
}

// TreeIn is [Source.Tree] for a retired episode whose directory in a folder may have
// another name.
func (s *Source) TreeIn(folder *durable.Dir, dir string, name episode.Name) (*archive.Tree, error) {
	return archive.OpenTree(folder.File(), dir, name, s.limits)
}

// StuckError says that an episode may not be moved by this process. A person
// must mend the permissions.
type StuckError struct {
	Err error
}

func (e *StuckError) Error() string { return e.Err.Error() }

// Unwrap returns what the kernel said.
func (e *StuckError) Unwrap() error { return e.Err }

// maxSuffix bounds the search for a free name in the shipped folder.
const maxSuffix = 10_000

// Retire moves an episode to the shipped folder, durably. The caller must hold
// a receipt for it, which goes along with the episode's state; it is nil if the episode
// is not what was delivered, because a person has accepted that.
func (s *Source) Retire(name episode.Name, r *Receipt, state State) error {
	sync, err := s.recordReceipt(name, r, state)
	if err != nil {
		return fmt.Errorf("retire %s: record its receipt: %w", name, err)
	}
	// The file system makes both durable in one go, where it may.
	return errors.Join(s.move(name), sync())
}

// move moves an episode to the shipped folder.
func (s *Source) move(name episode.Name) error {
	_, err := s.episodes.RenameFree(string(name), s.shipped, string(name), maxSuffix)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return &StuckError{fmt.Errorf("retire %s: %w: the receiver has it, and it cannot be moved; "+
			"the shipper must own the episode, or share its group with write permission, and be able to write in %s and %s (not sticky)",
			name, err, s.episodes.Path(""), s.shipped.Path(""))}
	case errors.Is(err, unix.EXDEV):
		return &StuckError{fmt.Errorf("retire %s: %w: the receiver has it, and it cannot be moved to %s: its folder is a mount, "+
			"a subvolume, or in the lower layer of an overlay; copy it beside itself under another name, delete it, and rename the copy to %s: no other try helps before that",
			name, err, s.shipped.Path(""), name)}
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("retire %s: %d episodes of this name are in %s already", name, maxSuffix, s.shipped.Path(""))
	}
	return err
}
