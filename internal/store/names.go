package store

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// NamePage is some of the names of a host's archives, in their order.
type NamePage struct {
	Names []episode.Name
	Last  bool         // no further names follow
	Seen  int          // entries of the directory that were looked at
	Max   episode.Name // the last name of the directory, within the bounds that were asked for
}

// ListNames returns at most limit names of a host's archives behind after and, unless
// until is empty, not behind until. It reads the whole directory for them, and holds
// four pages in memory, however many there are.
func (r *Reader) ListNames(host, after, until episode.Name, limit int) (NamePage, error) {
	dir, err := r.episodes.OpenDir(string(host))
	if errors.Is(err, fs.ErrNotExist) {
		return NamePage{Last: true}, nil
	}
	if err != nil {
		return NamePage{}, readError(err)
	}
	defer dir.Close()
	var p NamePage
	first := smallestNames{after: after, limit: limit}
	for e, err := range dir.Names() {
		if err != nil {
			return p, readError(err)
		}
		p.Seen++
		stem, found := strings.CutSuffix(e.Name(), Suffix)
		name, err := episode.ParseName(stem)
		if found && err == nil && e.Type() == 0 && (until == "" || name <= until) {
			p.Max = max(p.Max, name)
			first.add(name)
		}
	}
	p.Names, p.Last = first.sorted()
	return p, nil
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
			return 0, readError(err)
		}
		n, err := sumFiles(dir, parent == s.staging, cost)
		if err := errors.Join(err, dir.Close()); err != nil {
			return 0, readError(err)
		}
		sum += n
	}
	return sum, nil
}

// sumFiles adds up the files of a folder. Of those on their way it leaves out what
// has its second name already.
func sumFiles(dir *durable.Dir, staging bool, cost func(size int64) int64) (int64, error) {
	sum := int64(0)
	for e, err := range dir.Names() {
		if err != nil {
			return 0, err
		}
		st, err := dir.Lstat(e.Name())
		if err != nil {
			continue // stored or dropped meanwhile, or a broken inode, which takes no part of the others
		}
		if st.Regular() && !(staging && st.Links() > 1) {
			sum += cost(st.Size())
		}
	}
	return sum, nil
}

// smallestNames keeps the smallest names behind one, of those that it is shown.
type smallestNames struct {
	after episode.Name
	limit int
	names []episode.Name
	more  bool
}

func (f *smallestNames) add(name episode.Name) {
	if name <= f.after {
		return
	}
	if f.names = append(f.names, name); len(f.names) >= 4*f.limit {
		f.trim()
	}
}

func (f *smallestNames) trim() {
	slices.Sort(f.names)
	if len(f.names) > f.limit {
		f.names, f.more = f.names[:f.limit], true
	}
}

func (f *smallestNames) sorted() ([]episode.Name, bool) {
	f.trim()
	return f.names, !f.more
}
