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

// reportEvery is how often the report is written at most.
const reportEvery = time.Second

// reportState is what [dispatcher] remembers of the [outbox.Report].
type reportState struct {
	changed       bool      // something has changed since it was written
	writtenAt     time.Time // when
	exists        bool      // the last one said something
	failureLogged bool      // it could not be written, and that is in the log

	answeredBefore time.Time // when the receiver last did, by what an earlier process reported
}

// afterFailure returns the delay after one more failure.
func (b backoff) afterFailure(err error, now time.Time) backoff {
	if b.attempts == 0 || b.firstAt.After(now) {
		b.firstAt = now
	}
	b.failures++
	b.attempts++
	b.lastAt, b.cause = now, printableCause(err.Error())
	return b
}

// printableCause makes a cause that may hold hostile bytes fit for a report.
func printableCause(cause string) string {
	cause = episode.Printable(cause)
	if len(cause) > outbox.MaxCause {
		cause = cause[:outbox.MaxCause-3] + "..."
	}
	return cause
}

// setBackoff notes that an episode is left for later.
func (d *dispatcher) setBackoff(name episode.Name, b backoff) {
	d.backoffs[name] = b
	d.scheduleWake(b.retryAt)
	d.report.changed = true
}

// clearBackoff notes that an episode got on, or is gone.
func (d *dispatcher) clearBackoff(name episode.Name) {
	if _, failing := d.backoffs[name]; failing {
		delete(d.backoffs, name)
		d.report.changed = true
	}
}

// loadReport takes up what an earlier process reported: how often an episode has failed, but
// not how long it was to wait. What cannot be read, or waits no more, is left out.
func (d *dispatcher) loadReport(now time.Time) {
	r, err := d.out.Report()
	d.report.exists = !errors.Is(err, fs.ErrNotExist)
	d.report.changed = d.report.exists || !d.once // it is another process's
	if d.report.answeredBefore = r.AnsweredAt; r.AnsweredAt.After(now) {
		d.report.answeredBefore = time.Time{}
	}
	if err != nil && d.report.exists {
		d.log.Debug("ignored a report", "err", err)
	}
	for _, f := range r.Failing {
		c, err := d.inspect(f.Episode)
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

// writeReport writes the report, if there is something new in it. A process that ends does so
// whenever it wrote the one before. Where there was never anything to say, no report is.
func (d *dispatcher) writeReport(now time.Time, last bool) {
	if !d.report.changed || !last && now.Before(d.report.writtenAt.Add(reportEvery)) {
		return
	}
	d.report.changed, d.report.writtenAt = false, now
	r := d.makeReport(now)
	if r.Empty() && !d.report.exists {
		return
	}
	err := d.out.WriteReport(r)
	if err == nil {
		d.report.exists, d.report.failureLogged = !r.Empty(), false
		return
	}
	// It is not tried again before there is news: on a full disk, say.
	if !d.report.failureLogged {
		d.log.Warn("could not note what 'shipper status' shows of this process", "err", err)
	}
	d.report.failureLogged = true
}

func (d *dispatcher) makeReport(now time.Time) outbox.Report {
	second := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	r := outbox.Report{WrittenAt: second(now), PID: os.Getpid(), Failing: []outbox.Failure{}}
	for name, b := range d.backoffs {
		if b.held {
			continue // the hold says it
		}
		r.Failing = append(r.Failing, outbox.Failure{
			Episode: name, Attempts: b.attempts, Since: second(b.firstAt), LastAt: second(b.lastAt), NextAt: second(b.retryAt), Cause: b.cause,
		})
	}
	slices.SortFunc(r.Failing, func(a, b outbox.Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Episode, b.Episode))
	})
	r.FailingTotal = len(r.Failing)
	r.Failing = r.Failing[:min(len(r.Failing), outbox.MaxFailing)]
	if d.link.state != linkUp {
		r.Receiver = &outbox.Outage{
			Since: second(d.link.downSince), NextPing: second(d.link.nextPing), Cause: printableCause(d.link.err.Error()), Hint: printableCause(d.link.hint),
		}
	}
	r.AnsweredAt = second(latest(d.link.heardAt, d.report.answeredBefore))
	r.Asking = !d.once && d.link.state == linkUp && d.link.heardAt.IsZero()
	return r
}

// When an episode that the disk does not give is held. A disk that resets, a cable or a
// server of NFS that is away for minutes, is no reason to call a person; what is still not
// to be read after that is lost, or needs somebody.
const (
	minReadAttempts = 5
	minReadTime     = 10 * time.Minute
)

// isUnreadable reports whether an error of reading has come back for so long that the
// episode is to be held.
func (b backoff) isUnreadable(err error) bool {
	_, reading := errors.AsType[*durable.ReadError](err)
	return reading && b.attempts >= minReadAttempts && b.lastAt.Sub(b.firstAt) >= minReadTime
}
