package shipper

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/outbox"
)

// minStatusInterval is the minimum time between two writes of the [outbox.Report].
const minStatusInterval = time.Second

// reportState is what [dispatcher] remembers of the [outbox.Report].
type reportState struct {
	changed       bool // since it was written
	writtenAt     time.Time
	exists        bool // the last one was not empty
	failureLogged bool // that it could not be written

	answeredBefore time.Time // when the receiver last answered an earlier process
}

// afterFailure returns the backoff after one more failure, without its retry time.
func (b backoff) afterFailure(err error, now time.Time) backoff {
	if b.attempts == 0 || b.firstAt.After(now) {
		b.firstAt = now
	}
	b.failures++
	b.attempts++
	b.lastAt, b.cause = now, printableCause(err.Error())
	return b
}

// printableCause makes a cause that may contain hostile bytes printable, and bounds it.
func printableCause(cause string) string { return clipText(cause, outbox.MaxCause) }

// setBackoff records that an episode is retried later.
func (d *dispatcher) setBackoff(name episode.Name, b backoff) {
	d.backoffs[name] = b
	d.scheduleWake(b.retryAt)
	d.reporting.changed = true
}

// clearBackoff records that an episode succeeded, or is gone.
func (d *dispatcher) clearBackoff(name episode.Name) {
	if _, failing := d.backoffs[name]; failing {
		delete(d.backoffs, name)
		d.reporting.changed = true
	}
}

// loadReport restores the failures that an earlier process reported, without their waits. It skips
// episodes that do not wait any more.
func (d *dispatcher) loadReport(now time.Time) {
	r, err := d.out.ReadReport()
	d.reporting.exists = !errors.Is(err, fs.ErrNotExist)
	d.reporting.changed = d.reporting.exists || !d.once // replaces that of another process
	if d.reporting.answeredBefore = r.AnsweredAt; r.AnsweredAt.After(now) {
		d.reporting.answeredBefore = time.Time{}
	}
	if err != nil && d.reporting.exists {
		d.log.Debug("report ignored", "err", err)
	}
	for _, f := range r.Failing {
		c, err := d.inspectEpisode(f.Episode)
		if err != nil || c.stage != Pack && c.stage != Send {
			continue
		}
		since := f.Since
		if since.After(now) {
			since = now
		}
		d.backoffs[f.Episode] = backoff{attempts: f.Attempts, firstAt: since, lastAt: f.LastAt, cause: printableCause(f.Cause)}
	}
}

// writeReport writes the report if something has changed. At the end of the process it does so at
// once. It writes no report before there is something to report.
func (d *dispatcher) writeReport(now time.Time, last bool) {
	if !d.reporting.changed || !last && now.Before(d.reporting.writtenAt.Add(minStatusInterval)) {
		return
	}
	d.reporting.changed, d.reporting.writtenAt = false, now
	r := d.makeReport(now)
	if r.IsEmpty() && !d.reporting.exists {
		return
	}
	err := d.out.WriteReport(r)
	if err == nil {
		d.reporting.exists, d.reporting.failureLogged = !r.IsEmpty(), false
		return
	}
	// On a full disk, say: it is retried with the next change.
	if !d.reporting.failureLogged {
		d.log.Warn("report for status not written", "err", err)
	}
	d.reporting.failureLogged = true
}

func (d *dispatcher) makeReport(now time.Time) outbox.Report {
	r := outbox.Report{WrittenAt: wholeSecond(now), PID: os.Getpid(), Failing: []outbox.Failure{}}
	for name, b := range d.backoffs {
		if b.held {
			continue // the hold has it
		}
		r.Failing = append(r.Failing, outbox.Failure{
			Episode: name, Attempts: b.attempts, Since: wholeSecond(b.firstAt), LastAt: wholeSecond(b.lastAt), NextAt: wholeSecond(b.retryAt), Cause: b.cause,
		})
	}
	slices.SortFunc(r.Failing, func(a, b outbox.Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Episode, b.Episode))
	})
	r.FailingTotal = len(r.Failing)
	r.Failing = r.Failing[:min(len(r.Failing), outbox.MaxFailing)]
	if d.link.state != linkUp {
		r.Receiver = &outbox.ReceiverOutage{
			Since: wholeSecond(d.link.downSince), NextPing: wholeSecond(d.link.nextPing), Cause: printableCause(d.link.err.Error()), Hint: printableCause(d.link.hint),
		}
	}
	r.AnsweredAt = wholeSecond(latestTime(d.link.heardAt, d.reporting.answeredBefore))
	r.Asking = !d.once && d.link.state == linkUp && d.link.heardAt.IsZero()
	return r
}

// When an episode is held because it cannot be read. A disk that resets, a loose cable or an NFS
// server that is away for minutes need no operator.
const (
	minReadAttempts = 5
	minReadTime     = 10 * time.Minute
)

// isUnreadable reports whether reading has failed long enough for the episode to be held.
func (b backoff) isUnreadable(err error) bool {
	_, reading := errors.AsType[*durable.ReadError](err)
	return reading && b.attempts >= minReadAttempts && b.lastAt.Sub(b.firstAt) >= minReadTime
}

// wholeSecond returns t as it is shown to an operator.
func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
