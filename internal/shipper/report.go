package shipper

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"cis490/internal/backlog"
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

// loadReport restores the failures that an earlier process reported, without their waits. It skips
// episodes that do not wait any more.
func (d *dispatcher) loadReport(now time.Time) {
	r, err := d.out.ReadReport()
	d.reporting.exists = !errors.Is(err, fs.ErrNotExist)
	d.reporting.changed = d.reporting.exists || !d.once // replaces that of another process
	d.reporting.answeredBefore = r.AnsweredAt
	if r.AnsweredAt.After(now) {
		d.reporting.answeredBefore = time.Time{}
	}
	if err != nil && d.reporting.exists {
		d.log.Debug("report ignored", "err", err)
	}
	for _, f := range r.Failing {
		e, err := backlog.Inspect(d.dirs, f.Episode)
		if err != nil || e.Stage != backlog.Pack && e.Stage != backlog.Send {
			continue
		}
		since := f.Since
		if since.After(now) {
			since = now
		}
		d.backoffs[f.Episode] = backoff{attempts: f.Attempts, firstAt: since, lastAt: f.LastAt, cause: outbox.PrintableCause(f.Cause)}
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
	r := outbox.Report{WrittenAt: outbox.WholeSecond(now), PID: os.Getpid(), Failing: []outbox.Failure{}}
	for name, b := range d.backoffs {
		if b.held {
			continue // the hold has it
		}
		r.Failing = append(r.Failing, outbox.Failure{
			Episode: name, Attempts: b.attempts, Since: outbox.WholeSecond(b.firstAt), LastAt: outbox.WholeSecond(b.lastAt), NextAt: outbox.WholeSecond(b.retryAt), Cause: b.cause,
		})
	}
	slices.SortFunc(r.Failing, func(a, b outbox.Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Episode, b.Episode))
	})
	r.FailingTotal = len(r.Failing)
	r.Failing = r.Failing[:min(len(r.Failing), outbox.MaxFailing)]
	if d.link.state != linkUp {
		r.Receiver = &outbox.ReceiverOutage{
			Since: outbox.WholeSecond(d.link.downSince), NextPing: outbox.WholeSecond(d.link.nextPing), Cause: outbox.PrintableCause(d.link.err.Error()), Hint: outbox.PrintableCause(d.link.hint),
		}
	}
	r.AnsweredAt = outbox.WholeSecond(latestTime(d.link.heardAt, d.reporting.answeredBefore))
	r.Asking = !d.once && d.link.state == linkUp && d.link.heardAt.IsZero()
	return r
}

// StateChanges is sent a value when something has changed that an operator wants to know at once: an
// episode is held, one fails, the receiver is unavailable, or packing waits for space.
func (s *Shipper) StateChanges() <-chan struct{} { return s.changes }

// signalChange signals a change to [Shipper.StateChanges], after the [outbox.Report] that has it is
// written.
func (d *dispatcher) signalChange() {
	if d.reporting.changed {
		return
	}
	now := [...]bool{len(d.backoffs) > 0, d.link.state != linkUp, d.packing == packingPaused}
	if d.holdsRead && d.held != d.signalledHeld || now != d.signalled {
		d.signalled, d.signalledHeld = now, d.held
		signal(d.changes)
	}
}

// signal sends a value to a channel of capacity 1, unless one is pending.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
