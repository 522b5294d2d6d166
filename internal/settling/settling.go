// Package settling decides whether a finished episode has settled, so that it may be packed.
//
// An episode has settled when nothing in it has changed for the settling time. The marker alone does
// not show that: a program that copies files in sorted order may create it before other files. The
// last change is read from the ctimes, which no process can set, so that a restart does not start
// the wait again.
//
// Invariant: a tree with a ctime in the future settles only after it was seen unchanged for
// the settling time.
package settling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
)

// MaxTime is the maximum settling time of a configuration.
const MaxTime = time.Hour

// RestlessAfter is how long after its marker an episode that still changes is logged.
const RestlessAfter = time.Hour

// MarkerFirstFactor is how many times longer the settling time is if the marker seems to
// have arrived first.
const MarkerFirstFactor = 10

// MaxWait returns the longest time that an unchanged episode takes to settle.
func MaxWait(settle time.Duration) time.Duration { return MarkerFirstFactor*settle + clockTick }

// UnsettledError says that an episode has changed too recently to be packed. It does not count
// as a failure.
type UnsettledError struct {
	Until    time.Time    // when to check again, by the monotonic clock
	Changed  string       // what changed last, in printable ASCII
	MarkedAt time.Time    // the ctime of the marker
	Seen     *Observation // for the next check
}

func (e *UnsettledError) Error() string {
	return fmt.Sprintf("it is still being changed, last at %s", e.Changed)
}

// Observation is the state of a tree that has a ctime in the future, because the clock was
// set back. Only a second check shows for how long that state has lasted.
type Observation struct {
	Fingerprint digest.Digest
	At          time.Time
}

// Survey surveys a finished tree before it is packed. It returns an [*UnsettledError] if the tree
// has changed too recently. MarkedAt is the ctime of the marker. Seen is that of the last error, or
// nil.
func Survey(ctx context.Context, tree *archive.Tree, settle time.Duration, markedAt time.Time, seen *Observation) (archive.Survey, error) {
	survey, err := tree.Survey(ctx)
	if err != nil {
		return survey, checkError(err, settle, survey.Marks, markedAt, time.Now())
	}
	return survey, checkSettled(settle, survey.Marks, seen, time.Now())
}

// checkSettled returns an [*UnsettledError] unless a tree has settled. Now must be the end of the
// walk that returned m: a change that this walk missed is found by the walk after packing.
func checkSettled(settle time.Duration, m archive.Marks, seen *Observation, now time.Time) error {
	if settle == 0 {
		return nil
	}
	wait, changedAt, what := settle, m.ChangedAt, m.ChangedLast
	if m.RootChangedAt.After(changedAt) {
		changedAt, what = m.RootChangedAt, "its own folder"
	}
	if m.MarkerAlone || m.ChangedAt.After(m.MarkerChangedAt) {
		wait *= MarkerFirstFactor
	}
	if !changedAt.After(now) {
		seen = nil
		wait = changedAt.Add(wait + timestampGranularity(changedAt)).Sub(now)
	} else {
		if seen == nil || seen.Fingerprint != m.Fingerprint {
			seen = &Observation{m.Fingerprint, now}
		}
		wait -= now.Sub(seen.At)
	}
	if wait <= 0 {
		return nil
	}
	return &UnsettledError{Until: now.Add(wait), Changed: what, MarkedAt: m.MarkerChangedAt, Seen: seen}
}

// checkError returns the error of a survey as an [*UnsettledError] if an ongoing change may
// be its cause: the tree changed during the survey, or it cannot be packed and part of it,
// with the marks m, has changed recently. Programs that copy create empty files and closed
// directories at first.
func checkError(err error, settle time.Duration, m archive.Marks, markedAt, now time.Time) error {
	_, unpackable := errors.AsType[*archive.UnpackableError](err)
	changedAt := now
	switch {
	case settle == 0:
		return err
	case errors.Is(err, archive.ErrChanged):
	case !unpackable:
		return err
	case m.RootChangedAt.After(m.ChangedAt):
		changedAt = m.RootChangedAt
	default:
		changedAt = m.ChangedAt
	}
	wait := changedAt.Add(MarkerFirstFactor*settle + timestampGranularity(changedAt)).Sub(now)
	if wait <= 0 || changedAt.After(now) {
		return err
	}
	return &UnsettledError{Until: now.Add(wait), Changed: err.Error(), MarkedAt: markedAt}
}

// clockTick is the longest time for which a kernel writes the same time into ctimes.
const clockTick = 10 * time.Millisecond

// timestampGranularity returns how much later than its ctime a change may have been. A kernel uses
// the time of its last tick, and some file systems store whole seconds.
func timestampGranularity(ctime time.Time) time.Duration {
	if ctime.Nanosecond() == 0 {
		return time.Second
	}
	return clockTick
}

// EarliestSettled returns the earliest time at which an episode may have settled that changed at
// changedAt or later. It returns false if that time has passed, or if changedAt is in the
// future: then the whole tree must be checked.
func EarliestSettled(settle time.Duration, changedAt, now time.Time) (time.Time, bool) {
	if settle == 0 || changedAt.After(now) {
		return time.Time{}, false
	}
	wait := changedAt.Add(settle + timestampGranularity(changedAt)).Sub(now)
	return now.Add(wait), wait > 0
}
