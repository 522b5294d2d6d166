package shipper

import (
	"errors"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// scanPageSize is how many episodes one scan returns: with a backlog of any size the
// shipper remembers no more names than a few pages.
const scanPageSize = 10_000

// candidate is an episode that waits for something.
type candidate struct {
	name     episode.Name
	stage    Stage
	sortTime time.Time // when it was finished; in the queue of those that settle, when to look again
	size     int64     // of its archive, if it is packed; of what is in it, if that is much
	held     bool      // it is tried although it is held
	next     Stage     // of one that is held: what would come next if it were not

	markedAt     time.Time             // the ctime of its marker
	changedAt    time.Time             // it has not changed last before that; zero if all of it must be looked at
	seen         *settling.Observation // by the last look, if there is a ctime in the future
	waitingSince time.Time             // since when it has been waiting to settle; zero if it has not

	restless bool // it has been waiting for so long that others come first
	logged   bool // a person, that it does not settle
}

// isLarge reports whether it is large for what it waits for: an archive that is sent in
// more than one request, or an episode of which a packer has said so. One that does not
// settle counts as large: it may be looked at again and again.
func (c candidate) isLarge() bool { return c.size >= wire.MinAnnounced || c.restless }

// scanPage is one page of a scan.
type scanPage struct {
	candidates []candidate
	cursor     episode.Name // where the next one begins
	last       bool
}

// scan returns the first page of episodes after a name, in the order of their
// names. What cannot be shipped for its name is reported with the first page,
// what cannot be looked into with its own. What is there and never
// ships is reported too, with a [*source.StrayError]. It reads the folders and nothing
// else, and looks into each episode once.
func (s *Shipper) scan(after episode.Name, bad func(error)) (scanPage, error) {
	first := namePage{after: after, limit: scanPageSize}
	for name, err := range s.src.Entries() {
		if _, stray := errors.AsType[*source.StrayError](err); stray {
			if after == "" {
				bad(err)
			}
			continue
		}
		if err != nil {
			return scanPage{}, err
		}
		if parsed, err := episode.ParseName(name); err == nil {
			first.add(parsed)
			continue
		}
		if after != "" {
			continue
		}
		if err := s.src.NameError(name); err != nil {
			bad(err)
		}
	}
	for name, err := range s.out.Names() {
		if err != nil {
			return scanPage{}, err
		}
		first.add(name)
	}
	names, last := first.sorted()
	if len(names) == 0 {
		return scanPage{last: true}, nil
	}
	found, err := s.inspectAll(names, bad)
	return scanPage{found, names[len(names)-1], last}, err
}

func (s *Shipper) inspectAll(names []episode.Name, bad func(error)) ([]candidate, error) {
	found := make([]candidate, 0, len(names))
	for _, name := range names {
		c, err := s.inspect(name)
		if errors.Is(err, durable.ErrFault) {
			return nil, err
		}
		if err != nil {
			bad(err)
			continue
		}
		found = append(found, c)
	}
	return found, nil
}

// namePage keeps the smallest names of those it is shown.
type namePage struct {
	after episode.Name
	limit int
	names []episode.Name
	more  bool
}

func (f *namePage) add(name episode.Name) {
	if name <= f.after {
		return
	}
	f.names = append(f.names, name)
	if len(f.names) >= 4*f.limit {
		f.truncate()
	}
}

func (f *namePage) truncate() {
	slices.Sort(f.names)
	f.names = slices.Compact(f.names) // one may be in both folders
	if len(f.names) > f.limit {
		f.names, f.more = f.names[:f.limit], true
	}
}

// sorted returns the names, and whether there are no others.
func (f *namePage) sorted() (names []episode.Name, last bool) {
	f.truncate()
	return f.names, !f.more
}
