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
	"cis490/internal/printable"
)

// reportEvery is how often the report is written at most.
const reportEvery = time.Second

// reporting is what [dispatch] remembers of the [outbox.Report].
type reporting struct {
	due     bool      // something has changed since it was written
	written time.Time // when
	there   bool      // the last one said something
	failed  bool      // it could not be written, and that is in the log

	answered time.Time // when the receiver last did, by what an earlier process reported
}

// again returns the delay after one more failure.
func (l delay) again(err error, now time.Time) delay {
	if l.attempts == 0 || l.since.After(now) {
		l.since = now
	}
	l.failed++
	l.attempts++
	l.last, l.cause = now, shorten(err.Error())
	return l
}

// shorten makes a cause that may hold hostile bytes fit for a report.
func shorten(cause string) string {
	cause = printable.Text(cause)
	if len(cause) > outbox.MaxCause {
		cause = cause[:outbox.MaxCause-3] + "..."
	}
	return cause
}

// postponed notes that an episode is left for later.
func (d *dispatch) postponed(name episode.Name, l delay) {
	d.later[name] = l
	d.wakeAt(l.until)
	d.report.due = true
}

// forget notes that an episode got on, or is gone.
func (d *dispatch) forget(name episode.Name) {
	if _, failing := d.later[name]; failing {
		delete(d.later, name)
		d.report.due = true
	}
}

// recall takes up what an earlier process reported: how often an episode has failed, but
// not how long it was to wait. What cannot be read, or waits no more, is left out.
func (d *dispatch) recall(now time.Time) {
	r, err := d.out.Report()
	d.report.there = !errors.Is(err, fs.ErrNotExist)
	d.report.due = d.report.there || !d.once // it is another process's
	if d.report.answered = r.AnsweredAt; r.AnsweredAt.After(now) {
		d.report.answered = time.Time{}
	}
	if err != nil && d.report.there {
		d.log.Debug("ignored a report", "err", err)
	}
	for _, f := range r.Failing {
		c, err := d.look(f.Episode)
		if err != nil || c.stage != Seal && c.stage != Send {
			continue
		}
		since := f.Since
		if since.After(now) {
			since = now
		}
		d.later[f.Episode] = delay{attempts: f.Attempts, since: since, last: f.LastAt, cause: shorten(f.Cause)}
	}
}

// tell writes the report, if there is something new in it. A process that ends does so
// whenever it wrote the one before. Where there was never anything to say, no report is.
func (d *dispatch) tell(now time.Time, last bool) {
	if !d.report.due || !last && now.Before(d.report.written.Add(reportEvery)) {
		return
	}
	d.report.due, d.report.written = false, now
	r := d.makeReport(now)
	if r.Empty() && !d.report.there {
		return
	}
	err := d.out.WriteReport(r)
	if err == nil {
		d.report.there, d.report.failed = !r.Empty(), false
		return
	}
	// It is not tried again before there is news: on a full disk, say.
	if !d.report.failed {
		d.log.Warn("could not note what 'shipper status' shows of this process", "err", err)
	}
	d.report.failed = true
}

func (d *dispatch) makeReport(now time.Time) outbox.Report {
	second := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	r := outbox.Report{WrittenAt: second(now), PID: os.Getpid(), Failing: []outbox.Failure{}}
	for name, l := range d.later {
		if l.held {
			continue // the hold says it
		}
		r.Failing = append(r.Failing, outbox.Failure{
			Episode: name, Attempts: l.attempts, Since: second(l.since), LastAt: second(l.last), NextAt: second(l.until), Cause: l.cause,
		})
	}
	slices.SortFunc(r.Failing, func(a, b outbox.Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Episode, b.Episode))
	})
	r.FailingTotal = len(r.Failing)
	r.Failing = r.Failing[:min(len(r.Failing), outbox.MaxFailing)]
	if d.link.down {
		r.Receiver = &outbox.Outage{
			Since: second(d.link.since), NextPing: second(d.link.next), Cause: shorten(d.link.err.Error()), Hint: shorten(d.link.hint),
		}
	}
	r.AnsweredAt = second(later(d.link.heard, d.report.answered))
	r.Asking = !d.once && !d.link.down && d.link.heard.IsZero()
	return r
}

// When an episode that the disk does not give is held. A disk that resets, a cable or a
// server of NFS that is away for minutes, is no reason to call a person; what is still not
// to be read after that is lost, or needs somebody.
const (
	triesToRead = 5
	timeToRead  = 10 * time.Minute
)

// unreadable reports whether an error of reading has come back for so long that the
// episode is to be held.
func (l delay) unreadable(err error) bool {
	_, reading := errors.AsType[*durable.ReadError](err)
	return reading && l.attempts >= triesToRead && l.last.Sub(l.since) >= timeToRead
}
