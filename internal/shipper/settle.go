package shipper

import (
	"errors"
	"fmt"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
)

// An episode is packed when nothing in it has changed for the settling time: its marker
// may have arrived before the rest, from a program that copies in sorted order. When it
// changed last is read off its ctimes, which nobody can set, so that a restart does not
// begin the wait again.

// markerFirst is how many times as long the settling time is where the marker seems to
// have arrived first.
const markerFirst = 10

// maxSettle is the longest settling time that a configuration may ask for.
const maxSettle = time.Hour

// restless is how long after its marker an episode may change before a person is told.
const restless = time.Hour

// settlingError says that an episode has changed too recently to be packed. It is no
// failure.
type settlingError struct {
	until   time.Time // when to look again; by the monotonic clock
	changed string    // what changed last, in printable ASCII
	since   time.Time // the ctime of the marker
	seen    *sighting // for the next look
}

func (e *settlingError) Error() string {
	return fmt.Sprintf("it is still being changed, last at %s", e.changed)
}

// sighting is the state of a tree that has a ctime in the future, where the clock has
// gone back: how long that state has lasted can only be told by looking twice.
type sighting struct {
	fingerprint digest.Digest
	at          time.Time
}

// settled returns a [*settlingError] unless nothing in a tree has changed for so long
// that it may be packed. Now is the end of the walk that returned m: what changed during
// the walk and was not seen is seen by the one at the end of the packing. Seen is that of
// the last error, or nil.
func settled(settle time.Duration, m archive.Marks, seen *sighting, now time.Time) error {
	if settle == 0 {
		return nil
	}
	wait, last, what := settle, m.ChangedAt, m.ChangedLast
	if m.RootChangedAt.After(last) {
		last, what = m.RootChangedAt, "its own folder"
	}
	if m.MarkerAlone || m.ChangedAt.After(m.MarkerChangedAt) {
		wait *= markerFirst
	}
	if !last.After(now) {
		seen = nil
		wait = last.Add(wait + granularity(last)).Sub(now)
	} else {
		if seen == nil || seen.fingerprint != m.Fingerprint {
			seen = &sighting{m.Fingerprint, now}
		}
		wait -= now.Sub(seen.at)
	}
	if wait <= 0 {
		return nil
	}
	return &settlingError{until: now.Add(wait), changed: what, since: m.MarkerChangedAt, seen: seen}
}

// unsettledBy returns the error of a survey, as a [*settlingError] if it may be for the
// tree's being changed: it was changed meanwhile, which was later than its marker, or it
// is unfit, and part of it, whose marks m are, has changed recently. Who copies makes
// files empty and folders closed at first.
func unsettledBy(err error, settle time.Duration, m archive.Marks, marked, now time.Time) error {
	_, unfit := errors.AsType[*archive.UnpackableError](err)
	last := now
	switch {
	case settle == 0:
		return err
	case errors.Is(err, archive.ErrChanged):
	case !unfit:
		return err
	case m.RootChangedAt.After(m.ChangedAt):
		last = m.RootChangedAt
	default:
		last = m.ChangedAt
	}
	wait := last.Add(markerFirst*settle + granularity(last)).Sub(now)
	if wait <= 0 || last.After(now) {
		return err
	}
	return &settlingError{until: now.Add(wait), changed: err.Error(), since: marked}
}

// tick is at least how often a kernel looks at the clock for what it writes into a ctime.
const tick = 10 * time.Millisecond

// granularity returns how much later than a ctime the change may have been: a kernel
// takes the time of its last tick, and some file systems keep whole seconds.
func granularity(ctime time.Time) time.Duration {
	if ctime.Nanosecond() == 0 {
		return time.Second
	}
	return tick
}

// settlesAt returns when an episode may have settled that, as far as is known without
// looking at all of it, changed last at a time. It returns false if that has passed, or
// if the time is in the future: the whole tree must be looked at.
func settlesAt(settle time.Duration, changed, now time.Time) (time.Time, bool) {
	if settle == 0 || changed.After(now) {
		return time.Time{}, false
	}
	wait := changed.Add(settle + granularity(changed)).Sub(now)
	return now.Add(wait), wait > 0
}
