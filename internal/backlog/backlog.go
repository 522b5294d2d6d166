// Package backlog reads from a host's directories how far each episode has come. From that it makes
// the status and the reports to the receiver. It asks no daemon, changes nothing, and works beside
// a running shipper.
//
// [stageOf] is the state machine of the shipper. [Inspect] and [ReadPage] apply it to the disk, for
// the daemon as for [InspectStatus] and [Reporter].
//
// Invariant: memory does not grow with the number of episodes.
package backlog

import (
	"errors"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/settling"
	"cis490/internal/source"
)

// Stage is what to do next with an episode.
type Stage int

// The stages, in the order of travel.
const (
	Nothing Stage = iota // not finished, or not there
	Pack                 // finished, and not packed
	Send                 // packed: send it, and retire it with the receipt
	Held                 // until an operator acts
	Stale                // a hold without an episode
)

// stageOf is the state machine. An episode is finished if episodes/<name> exists and has its marker.
func stageOf(finished bool, entry outbox.State) Stage {
	switch {
	case entry.Held && !finished && !entry.Sealed:
		return Stale
	case entry.Held:
		return Held
	case entry.Sealed:
		// The episode may be missing: a crash came between retiring it and removing the entry, or
		// it was removed by hand. The receiver knows.
		return Send
	case finished:
		return Pack
	}
	return Nothing
}

// Episode is the state of an episode by its directories.
type Episode struct {
	Name   episode.Name
	Stage  Stage
	Unheld Stage // its stage without a hold
	Size   int64 // of its archive, if it is packed
	source.Finish
}

// EarliestSettled is [settling.EarliestSettled]. The whole tree of an episode that has not settled
// for long must be checked: the log names what keeps changing.
func (e Episode) EarliestSettled(settle time.Duration, now time.Time) (time.Time, bool) {
	if now.Sub(e.MarkedAt) >= settling.RestlessAfter {
		return time.Time{}, false
	}
	return settling.EarliestSettled(settle, e.ChangedAt, now)
}

// Inspect reads how far an episode has come.
func Inspect(dirs *hostdir.Dirs, name episode.Name) (Episode, error) {
	finish, finished, err := dirs.Source.FinishedAt(name)
	stray, isStray := errors.AsType[*source.StrayError](err)
	if err != nil && !isStray {
		return Episode{}, err
	}
	state, err := dirs.Outbox.ReadState(name)
	e := Episode{Name: name, Stage: stageOf(finished, state), Size: state.Size, Finish: finish}
	state.Held = false
	e.Unheld = stageOf(finished, state)
	if err == nil && isStray && e.Stage == Nothing {
		return e, stray
	}
	return e, durable.AsReadError(err)
}

// PageSize is the maximum number of episodes of a [Page]. The shipper keeps only a few pages of
// names, however many episodes wait.
const PageSize = 10_000

// Page is a part of the episodes.
type Page struct {
	Episodes []Episode
	Cursor   episode.Name // the last name; the next page begins after it
	IsLast   bool
}

// ReadPage returns the first page of episodes after a name, in the order of names. It calls report
// with entries that cannot be shipped: those without a valid name, those that cannot be read, and a
// [*source.StrayError] for those that never ship. It reads each episode once and changes nothing.
func ReadPage(dirs *hostdir.Dirs, after episode.Name, report func(error)) (Page, error) {
	first := episode.SmallestNames{After: after, Limit: PageSize}
	for name, err := range dirs.Source.Entries() {
		if _, stray := errors.AsType[*source.StrayError](err); stray {
			if after == "" {
				report(err)
			}
			continue
		}
		if err != nil {
			return Page{}, err
		}
		if parsed, err := episode.ParseName(name); err == nil {
			first.Add(parsed)
			continue
		}
		if after != "" {
			continue
		}
		if err := dirs.Source.NameError(name); err != nil {
			report(err)
		}
	}
	for name, err := range dirs.Outbox.Names() {
		if err != nil {
			return Page{}, err
		}
		first.Add(name)
	}
	names, last := first.Sorted()
	if len(names) == 0 {
		return Page{IsLast: true}, nil
	}
	found, err := inspectAll(dirs, names, report)
	return Page{found, names[len(names)-1], last}, err
}

func inspectAll(dirs *hostdir.Dirs, names []episode.Name, report func(error)) ([]Episode, error) {
	found := make([]Episode, 0, len(names))
	for _, name := range names {
		e, err := Inspect(dirs, name)
		if errors.Is(err, durable.ErrFault) {
			return nil, err
		}
		if err != nil {
			report(err)
			continue
		}
		found = append(found, e)
	}
	return found, nil
}
