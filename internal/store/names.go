package store

import (
	"errors"
	"io/fs"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// NamePage has some of the names of a host's archives, sorted.
type NamePage struct {
	Names []episode.Name
	Last  bool         // no further names follow
	Seen  int          // entries of the directory that were read
	Max   episode.Name // the last name of the directory, up to until
}

// ListNames returns at most limit names of a host's archives that come after the name after
// and, unless until is empty, not after until. It reads the whole directory, and holds at
// most 4*limit names in memory.
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
	first := episode.SmallestNames{After: after, Limit: limit}
	for e, err := range dir.Names() {
		if err != nil {
			return p, readError(err)
		}
		p.Seen++
		stem, found := strings.CutSuffix(e.Name(), Suffix)
		name, err := episode.ParseName(stem)
		if found && err == nil && e.Type() == 0 && (until == "" || name <= until) {
			p.Max = max(p.Max, name)
			first.Add(name)
		}
	}
	p.Names, p.Last = first.Sorted()
	return p, nil
}

// HostBytes returns the sum of cost(size) for the archives of a host and its unfinished
// uploads.
func (s *Store) HostBytes(host episode.Name, cost func(size int64) int64) (int64, error) {
	sum := int64(0)
	for _, parent := range []*durable.Dir{s.staging, s.episodes} { // in this order, so that a commit meanwhile is not missed
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

// sumFiles returns the sum of the costs of a directory's files. In staging it skips those
// that are linked to their second name already.
func sumFiles(dir *durable.Dir, staging bool, cost func(size int64) int64) (int64, error) {
	sum := int64(0)
	for e, err := range dir.Names() {
		if err != nil {
			return 0, err
		}
		st, err := dir.Lstat(e.Name())
		if err != nil {
			continue // stored or dropped meanwhile, or a broken inode
		}
		if st.IsRegular() && !(staging && st.Links() > 1) {
			sum += cost(st.Size())
		}
	}
	return sum, nil
}

// CountArchives returns the number of archives of a host, and when its directory last changed. If that is when lastChange says, it counts nothing and returns false.
func (r *Reader) CountArchives(host episode.Name, lastChange time.Time) (n int64, changedAt time.Time, counted bool, err error) {
	dir, err := r.episodes.OpenDir(string(host))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, time.Time{}, !lastChange.IsZero(), nil
	}
	if err != nil {
		return 0, time.Time{}, false, readError(err)
	}
	defer dir.Close()
	st, err := dir.Stat() // before its names: one that comes meanwhile is counted by the next call
	if err != nil || st.ModTime().Equal(lastChange) {
		return 0, lastChange, false, err
	}
	for e, err := range dir.Names() {
		if err != nil {
			return 0, time.Time{}, false, readError(err)
		}
		if strings.HasSuffix(e.Name(), Suffix) && e.Type() == 0 {
			n++
		}
	}
	return n, st.ModTime(), true, nil
}
