// Package source finds finished episodes on the lab host and retires them.
//
// An episode is finished when it is a directory, not a link, and has a regular [episode.Marker]. If
// it is on another file system than the episodes directory, it cannot be moved, and
// [Source.OpenTree] returns an error.
//
// Invariant: this package destroys nothing. Retiring moves the directory to the shipped directory,
// where a name that is taken gets a suffix. Its one caller must hold a receipt.
package source

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Source is the pair of directories.
type Source struct {
	episodes *durable.Dir
	shipped  *durable.Dir
	limits   archive.Limits
}

// New returns the source of two open directories, and takes ownership of them. Limits bound one
// episode.
func New(episodes, shipped *durable.Dir, limits archive.Limits) *Source {
	return &Source{episodes: episodes, shipped: shipped, limits: limits}
}

// Close closes the directories.
func (s *Source) Close() error { return errors.Join(s.episodes.Close(), s.shipped.Close()) }

// Dirs returns the directories. They belong to s.
func (s *Source) Dirs() (episodes, shipped *durable.Dir) { return s.episodes, s.shipped }

// Names yields the names of the directories in the episodes directory, finished or not, in no
// order. It opens none of them.
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

// Entries is [Source.Names] for everything in the directory. What is not a directory comes with
// a [*StrayError].
func (s *Source) Entries() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range s.episodes.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if !e.IsDir() {
				err = describeStray(e)
			}
			if !yield(e.Name(), err) {
				return
			}
		}
	}
}

// StrayError says that an entry of the episodes directory never ships as it is: it is not a
// directory, or its marker is not a regular file.
type StrayError struct {
	Entry  string `json:"entry"`  // its name, quoted if it is not printable
	Reason string `json:"reason"` // a sentence for an operator
	Marked bool   `json:"-"`      // it has something named like a marker, so it seems to be meant as an episode
	Link   bool   `json:"-"`      // it is a link
}

func (e *StrayError) Error() string { return e.Entry + " " + e.Reason }

// describeStray describes an entry that is not a directory.
func describeStray(e fs.DirEntry) *StrayError {
	s := &StrayError{Entry: printable.Name(e.Name())}
	switch {
	case e.Type()&fs.ModeSymlink != 0:
		s.Reason, s.Link = "is a link, which is not followed: put the folder itself here", true
	case e.Type().IsRegular():
		s.Reason = "is a file: only folders are episodes"
	default:
		s.Reason = "is not a folder: only folders are episodes"
	}
	return s
}

// NameError returns nil unless there is a finished episode whose name is not valid: it cannot be
// sent or held, and an operator must rename it.
func (s *Source) NameError(name string) error {
	_, err := episode.ParseName(name)
	if err == nil {
		return nil
	}
	if m, merr := s.readMarker(name); merr != nil || !m.isFinished() {
		return merr
	}
	return err
}

// IsFinished reports whether there is a finished episode of this name. It may be on another file
// system: see [Source.OpenTree].
func (s *Source) IsFinished(name episode.Name) (bool, error) {
	m, err := s.readMarker(string(name))
	return m.isFinished(), err
}

// Finish says when an episode was finished.
type Finish struct {
	At time.Time // the mtime of its marker, which may be any
	// MarkedAt is the ctime of the marker. ChangedAt is the later one of that and the ctime of the
	// episode's directory: its last change was not before that.
	MarkedAt, ChangedAt time.Time
}

// FinishedAt is [Source.IsFinished] with the times. It returns a [*StrayError] for an episode whose
// marker is not a regular file, which is not finished.
func (s *Source) FinishedAt(name episode.Name) (at Finish, finished bool, err error) {
	m, err := s.readMarker(string(name))
	if err == nil && m.exists && !m.IsRegular() {
		err = &StrayError{Entry: string(name), Reason: wrongMarker(m.Stat), Marked: true}
	}
	return m.finishTimes(), m.isFinished(), err
}

// marker is what has the name of an episode's marker.
type marker struct {
	durable.Stat
	exists bool
	dir    durable.Stat // of the episode
}

func (m marker) isFinished() bool { return m.exists && m.IsRegular() }

func (m marker) finishTimes() Finish {
	if !m.isFinished() {
		return Finish{}
	}
	at := Finish{At: m.ModTime(), MarkedAt: m.ChangedAt(), ChangedAt: m.ChangedAt()}
	if dir := m.dir.ChangedAt(); dir.After(at.ChangedAt) {
		at.ChangedAt = dir
	}
	return at
}

func wrongMarker(st durable.Stat) string {
	what := "is not a regular file"
	switch {
	case st.IsDir():
		what = "is a folder"
	case st.IsLink():
		what = "is a link"
	}
	return fmt.Sprintf("never ships: its %s %s; remove that, and make an empty file", episode.Marker, what)
}

// readMarker looks for the marker of an episode. It returns a [*durable.ReadError] if the disk does
// not return its data: that concerns this one episode, and is not a storage fault.
func (s *Source) readMarker(name string) (marker, error) {
	m, err := s.findMarker(name)
	if errors.Is(err, fs.ErrNotExist) {
		return marker{}, nil
	}
	return m, durable.AsReadError(err)
}

func (s *Source) findMarker(name string) (marker, error) {
	st, err := s.episodes.Lstat(name)
	if err != nil {
		return marker{}, err
	}
	// A link to a directory is not an episode: its target must not be moved.
	if !st.IsDir() {
		return marker{}, nil
	}
	dir, err := s.episodes.OpenDir(name)
	if err != nil {
		return marker{}, err
	}
	defer dir.Close()
	found, err := dir.Lstat(episode.Marker)
	return marker{Stat: found, exists: err == nil, dir: st}, err
}

// Unfinished is an episode without a valid marker.
type Unfinished struct {
	Entry     string    `json:"entry"`      // its name, quoted if it is not printable
	ChangedAt time.Time `json:"changed_at"` // the ctime of its directory
}

// InspectUnfinished describes an unfinished episode, or returns an error wrapping [fs.ErrNotExist].
func (s *Source) InspectUnfinished(name string) (Unfinished, error) {
	st, err := s.episodes.Lstat(name)
	if err != nil {
		return Unfinished{}, durable.AsReadError(err)
	}
	return Unfinished{printable.Name(name), st.ChangedAt()}, nil
}

// OpenTree opens an episode for packing or comparing, or returns an error wrapping
// [fs.ErrNotExist].
func (s *Source) OpenTree(name episode.Name) (*archive.Tree, error) {
	return archive.OpenTree(s.episodes.File(), string(name), name, s.limits)
}

// TreeIn is [Source.OpenTree] for a retired episode in a directory of any name.
func (s *Source) TreeIn(folder *durable.Dir, dir string, name episode.Name) (*archive.Tree, error) {
	return archive.OpenTree(folder.File(), dir, name, s.limits)
}

// StuckError says that this process cannot move an episode. An operator must fix the permissions.
type StuckError struct {
	Err error
}

func (e *StuckError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StuckError) Unwrap() error { return e.Err }

// maxSuffix is the maximum number of names that are tried in the shipped directory.
const maxSuffix = 10_000

// Retire moves an episode to the shipped directory, durably. The caller must hold a receipt for it,
// which is recorded with the state. R is nil if an operator has accepted that the episode is not what
// was delivered.
func (s *Source) Retire(name episode.Name, r *Receipt, state State) error {
	sync, err := s.recordReceipt(name, r, state)
	if err != nil {
		return fmt.Errorf("retire %s: record its receipt: %w", name, err)
	}
	// The file system may make both durable in one commit.
	return errors.Join(s.moveToShipped(name), sync())
}

// moveToShipped moves an episode to the shipped directory.
func (s *Source) moveToShipped(name episode.Name) error {
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
