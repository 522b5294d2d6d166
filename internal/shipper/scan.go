package shipper

import (
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/settling"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// scanPageSize is the maximum number of episodes that a scan returns. The shipper keeps only a few
// pages of names, however large the backlog.
const scanPageSize = 10_000

// candidate is an episode that waits for something.
type candidate struct {
	name     episode.Name
	stage    Stage
	sortTime time.Time // when it was finished; of a settling one, when to check again
	size     int64     // of its archive if it is packed, or of its files if it is large
	held     bool      // it is tried although it is held
	next     Stage     // of a held one: its stage without the hold

	markedAt        time.Time             // the ctime of its marker
	waitsSince      time.Time             // the later one of that and the ctime of its directory
	changedAt       time.Time             // the earliest time of its last change; zero if the whole tree must be checked
	lastObservation *settling.Observation // by the last check, if there is a ctime in the future
	waitingSince    time.Time             // since when it has been settling; zero if it has not

	restless bool // others come first, because it has been settling for long
	logged   bool // that it does not settle
}

// isLarge reports whether it is large for its queue: an archive that takes more than one request,
// or an episode that a packer found to be large. A restless one counts as large, because it may be
// checked again and again.
func (c candidate) isLarge() bool { return c.size >= wire.MinAnnounced || c.restless }

// scanPage is one page of a scan.
type scanPage struct {
	candidates []candidate
	cursor     episode.Name // the last name; the next page begins after it
	isLast     bool
}

// readPage returns the first page of episodes after a name, in the order of names. It calls report
// with entries that cannot be shipped: those without a valid name, those that cannot be read, and a
// [*source.StrayError] for those that never ship. It reads each episode once and changes nothing.
func (s *Shipper) readPage(after episode.Name, report func(error)) (scanPage, error) {
	first := episode.SmallestNames{After: after, Limit: scanPageSize}
	for name, err := range s.src.Entries() {
		if _, stray := errors.AsType[*source.StrayError](err); stray {
			if after == "" {
				report(err)
			}
			continue
		}
		if err != nil {
			return scanPage{}, err
		}
		if parsed, err := episode.ParseName(name); err == nil {
			first.Add(parsed)
			continue
		}
		if after != "" {
			continue
		}
		if err := s.src.NameError(name); err != nil {
			report(err)
		}
	}
	for name, err := range s.out.Names() {
		if err != nil {
			return scanPage{}, err
		}
		first.Add(name)
	}
	names, last := first.Sorted()
	if len(names) == 0 {
		return scanPage{isLast: true}, nil
	}
	found, err := s.inspectAll(names, report)
	return scanPage{found, names[len(names)-1], last}, err
}

func (s *Shipper) inspectAll(names []episode.Name, report func(error)) ([]candidate, error) {
	found := make([]candidate, 0, len(names))
	for _, name := range names {
		c, err := s.inspectEpisode(name)
		if errors.Is(err, durable.ErrFault) {
			return nil, err
		}
		if err != nil {
			report(err)
			continue
		}
		found = append(found, c)
	}
	return found, nil
}
