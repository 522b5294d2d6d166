// Package source finds finished episodes on the lab host and retires them.
//
// An episode is finished when it is a real directory on the file system of the
// episodes folder and has a regular [episode.Marker]. The law: this package
// destroys nothing. Retiring moves the directory to the shipped folder, where a
// name that is taken gets a suffix; the one caller must hold a receipt.
package source

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"cis490/internal/archive"
	"cis490/internal/durable"
	"cis490/internal/episode"
)

// Source is the pair of folders.
type Source struct {
	episodes *durable.Dir
	shipped  *durable.Dir
	limits   archive.Limits
	device   uint64
}

// New returns the source of two open folders, which it closes in the end.
// Limits bound what may be packed as one episode.
func New(episodes, shipped *durable.Dir, limits archive.Limits) (*Source, error) {
	device, err := episodes.Device()
	if err != nil {
		return nil, err
	}
	return &Source{episodes: episodes, shipped: shipped, limits: limits, device: device}, nil
}

// Close closes the folders.
func (s *Source) Close() error { return errors.Join(s.episodes.Close(), s.shipped.Close()) }

// Dirs returns the folders. They belong to s.
func (s *Source) Dirs() (episodes, shipped *durable.Dir) { return s.episodes, s.shipped }

// Names yields the names of the directories in the episodes folder, finished or
// not, in no order: what is there to look at. It looks into none of them.
func (s *Source) Names() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range s.episodes.Names() {
			if err != nil {
				yield("", err)
				return
			}
			if e.IsDir() && !yield(e.Name(), nil) {
				return
			}
		}
	}
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

// IsFinished reports whether there is a finished episode of this name.
func (s *Source) IsFinished(name episode.Name) (bool, error) {
	_, finished, err := s.finished(string(name))
	return finished, err
}

// FinishedAt is [Source.IsFinished], and when that came about.
func (s *Source) FinishedAt(name episode.Name) (at time.Time, finished bool, err error) {
	return s.finished(string(name))
}

// finished returns a [*durable.ReadError] where the disk does not say: that is of this one
// episode, and no fault of the storage.
func (s *Source) finished(name string) (at time.Time, finished bool, err error) {
	at, finished, err = s.lookAt(name)
	return at, finished, durable.ReadFailed(err)
}

func (s *Source) lookAt(name string) (at time.Time, finished bool, err error) {
	st, err := s.episodes.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return at, false, nil
	}
	if err != nil {
		return at, false, err
	}
	// A link to a directory is none: what it leads to is not ours to move.
	if !st.IsDir() || st.Device() != s.device {
		return at, false, nil
	}
	dir, err := s.episodes.OpenDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return at, false, nil
	}
	if err != nil {
		return at, false, err
	}
	defer dir.Close()
	marker, err := dir.Lstat(episode.Marker)
	if errors.Is(err, fs.ErrNotExist) {
		return at, false, nil
	}
	return marker.ModTime(), marker.Regular(), err
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
	sync, err := s.noteReceipt(name, r, state)
	if err != nil {
		return fmt.Errorf("retire %s: note its receipt: %w", name, err)
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
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("retire %s: %d episodes of this name are in %s already", name, maxSuffix, s.shipped.Path(""))
	}
	return err
}
