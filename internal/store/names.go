package store

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// page is how many names [Reader.NamesAfter] returns at the most.
const page = 4096

// NamesAfter returns the next names of a host's archives behind after, in their
// order, and whether these are all that are left. It holds a page of them in
// memory, however many there are.
func (r *Reader) NamesAfter(host, after episode.Name) (names []episode.Name, last bool, err error) {
	dir, err := r.episodes.OpenDir(string(host))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	first := firstNames{after: after}
	for e, err := range dir.Names() {
		if err != nil {
			return nil, false, err
		}
		stem, found := strings.CutSuffix(e.Name(), Suffix)
		name, err := episode.ParseName(stem)
		if found && err == nil && e.Type() == 0 {
			first.add(name)
		}
	}
	names, last = first.sorted()
	return names, last, nil
}

// HostBytes returns what the archives of a host take, its unfinished uploads included,
// where a file of a size takes cost(size).
func (s *Store) HostBytes(host episode.Name, cost func(size int64) int64) (int64, error) {
	sum := int64(0)
	for _, parent := range []*durable.Dir{s.staging, s.episodes} { // so, what goes from one to the other is not missed
		dir, err := parent.OpenDir(string(host))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := dirBytes(dir, parent == s.staging, cost)
		if err := errors.Join(err, dir.Close()); err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// dirBytes adds up the files of a folder. Of those on their way it leaves out what
// has its second name already.
func dirBytes(dir *durable.Dir, underway bool, cost func(size int64) int64) (int64, error) {
	sum := int64(0)
	for e, err := range dir.Names() {
		if err != nil {
			return 0, err
		}
		st, err := dir.Lstat(e.Name())
		if errors.Is(err, durable.ErrFault) {
			return 0, err
		}
		if err != nil {
			continue // stored or dropped meanwhile, or a broken inode, which takes no part of the others
		}
		if st.Regular() && !(underway && st.Links() > 1) {
			sum += cost(st.Size())
		}
	}
	return sum, nil
}

// HostsAfter is [Reader.NamesAfter] for the hosts that have a folder.
func (r *Reader) HostsAfter(after episode.Name) (names []episode.Name, last bool, err error) {
	first := firstNames{after: after}
	for name, err := range r.Hosts() {
		if _, stray := errors.AsType[*StrayError](err); stray {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		first.add(name)
	}
	names, last = first.sorted()
	return names, last, nil
}

// firstNames keeps the smallest names behind one, of those that it is shown.
type firstNames struct {
	after episode.Name
	names []episode.Name
	more  bool
}

func (f *firstNames) add(name episode.Name) {
	if name <= f.after {
		return
	}
	if f.names = append(f.names, name); len(f.names) >= 4*page {
		f.cut()
	}
}

func (f *firstNames) cut() {
	slices.Sort(f.names)
	if len(f.names) > page {
		f.names, f.more = f.names[:page], true
	}
}

func (f *firstNames) sorted() ([]episode.Name, bool) {
	f.cut()
	return f.names, !f.more
}

// IsShortage reports whether err says that the process or the disk lacks something,
// and nothing of the file at which it was met. Another file would have met it too.
func IsShortage(err error) bool {
	return isFull(err) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
