package shipper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"cis490/internal/device"
	"cis490/internal/episode"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/printable"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// Limits of report_interval. A change is reported no sooner than MinReportInterval after the last
// report.
const (
	MinReportInterval = 30 * time.Second
	maxReportInterval = 24 * time.Hour
)

// changeSettled is how long after its last change a directory cannot have changed again without another
// time.
const changeSettled = 2 * time.Second

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

// Answers is sent a value when the receiver has answered a ping. For a while, the next request needs
// no new connection.
func (s *Shipper) Answers() <-chan struct{} { return s.answers }

// signal sends a value to a channel of capacity 1, unless one is pending.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Reporter makes the reports of a host. It reads the directories as a status does, beside the
// running shipper.
type Reporter struct {
	cfg     Config
	version string

	// Of the shipped directory: it may be large, and changes only when an episode is delivered or
	// deleted.
	shipped          int64
	shippedChangedAt time.Time
}

// NewReporter returns a reporter for the directories of c.
func NewReporter(c Config, version string) *Reporter { return &Reporter{cfg: c, version: version} }

// Report reports the state of the host. interval is when the next report follows at the latest, or 0
// if that is unknown.
func (r *Reporter) Report(ctx context.Context, now time.Time, interval time.Duration, certificateEnds time.Time) (wire.Report, error) {
	dirs, err := hostdir.Open(r.cfg.DirsConfig())
	if err != nil {
		return wire.Report{}, err
	}
	s := &Shipper{cfg: r.cfg, dirs: dirs, src: dirs.Source, out: dirs.Outbox}
	defer s.Close()
	report := wire.Report{
		Version: clipText(r.version, 64), At: now.UTC().Truncate(time.Millisecond), Interval: int64(interval / time.Second),
		CertificateEnds: certificateEnds, Held: make(map[string]int64),
	}
	if report.Instance, err = s.instance(); err != nil {
		return report, err
	}
	if report.Disk, err = s.diskSpace(); err != nil {
		return report, err
	}
	if err := r.countShipped(ctx, s, &report); err != nil {
		return report, err
	}
	return report, s.addWaiting(ctx, &report)
}

// instance identifies this machine until its next boot, and these directories on it. It says nothing
// about the machine. It is empty if the machine does not have an ID of its boot.
func (s *Shipper) instance() (string, error) {
	boot := device.BootID()
	st, err := s.out.Dir().Stat()
	if err != nil || boot == "" {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "cis490 instance\x00%s\x00%d", boot, st.Inode()))
	return hex.EncodeToString(sum[:12]), nil
}

func (s *Shipper) diskSpace() (wire.DiskSpace, error) {
	free, err := s.out.Dir().FreeSpace()
	if err != nil || free.IsUnknown() {
		return wire.DiskSpace{}, err
	}
	return wire.DiskSpace{
		FreeBytes: free.Bytes, SizeBytes: free.TotalBytes, MinFree: int64(s.cfg.MinFree),
		FreeInodes: free.Inodes, Inodes: free.TotalInodes,
	}, nil
}

// countShipped counts the delivered episodes, unless the directory is as it was.
func (r *Reporter) countShipped(ctx context.Context, s *Shipper, report *wire.Report) error {
	n, changedAt, counted, err := s.src.CountRetired(ctx, r.shippedChangedAt)
	if err != nil {
		return err
	}
	if counted {
		r.shipped, r.shippedChangedAt = n, changedAt
		if time.Since(changedAt).Abs() < changeSettled {
			r.shippedChangedAt = time.Time{} // it may change again without another time
		}
	}
	report.Shipped = r.shipped
	return nil
}

// maxReportPages bounds how many pages of names a report counts: to find the next page takes a walk over
// all names.
const maxReportPages = 5

// addWaiting adds what is not delivered. It holds one page of names, however large the backlog.
func (s *Shipper) addWaiting(ctx context.Context, report *wire.Report) error {
	known, err := s.out.ReadReport()
	if err != nil {
		known = outbox.Report{} // there is none, or it cannot be read
	}
	failing := make(map[episode.Name]outbox.Failure)
	for _, f := range known.Failing {
		failing[f.Episode] = f
	}
	unshippable := func(err error) {
		if _, stray := errors.AsType[*source.StrayError](err); !stray {
			report.Held["invalid"]++
		}
	}
	page := scanPage{}
	for n := 0; !page.isLast; n++ {
		if report.CountedInPart = n == maxReportPages; report.CountedInPart {
			break
		}
		if page, err = s.readPage(page.cursor, unshippable); err != nil {
			return err
		}
		for _, c := range page.candidates {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.addToReport(report, c, failing[c.name])
		}
	}
	report.Failing = min(int64(known.FailingTotal), report.Waiting)
	return nil
}

// addToReport adds an episode. failure is how it failed last, if it is known.
func (s *Shipper) addToReport(report *wire.Report, c candidate, failure outbox.Failure) {
	switch c.stage {
	case Nothing:
		u, err := s.src.InspectUnfinished(string(c.name))
		if err != nil {
			return // it is gone
		}
		report.Unfinished++
		report.OldestUnfinished = earlierKnown(report.OldestUnfinished, wholeSecond(u.ChangedAt))
	case Held:
		hold, err := s.out.ReadHold(c.name)
		if err != nil {
			return // released meanwhile
		}
		report.Held[heldAs(hold.Reason)]++
	case Send:
		report.WaitingBytes += c.size
		fallthrough
	case Pack:
		report.Waiting++
		report.OldestWaiting = earlierKnown(report.OldestWaiting, wholeSecond(c.waitsSince))
		report.FailingSince = earlierKnown(report.FailingSince, failure.Since)
		if failure.LastAt.After(report.LastErrorAt) {
			report.LastErrorAt, report.LastError = failure.LastAt, clipText(failure.Cause, wire.MaxReportError)
		}
	}
}

// heldAs returns the word for a reason in a report. A hold is a file, which may have been edited.
func heldAs(r outbox.Reason) string {
	switch r {
	case outbox.Unpackable, outbox.Refused, outbox.Conflict, outbox.Changed, outbox.Stuck, outbox.Unreadable:
		return string(r)
	}
	return "other"
}

// earlierKnown returns the earlier of two times. A zero time is unknown.
func earlierKnown(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// clipText returns text as at most most bytes of printable ASCII.
func clipText(text string, most int) string {
	if text = printable.Text(text); len(text) > most {
		text = text[:most-3] + "..."
	}
	return text
}
