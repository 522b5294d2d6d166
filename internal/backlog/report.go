package backlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"cis490/internal/device"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/printable"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// changeSettled is how long after its last change a directory cannot have changed again without another
// time.
const changeSettled = 2 * time.Second

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
	s, err := open(r.cfg)
	if err != nil {
		return wire.Report{}, err
	}
	defer s.dirs.Close()
	report := wire.Report{
		Version: printable.TextWithin(r.version, 64), At: now.UTC().Truncate(time.Millisecond), Interval: int64(interval / time.Second),
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
func (s *reader) instance() (string, error) {
	boot := device.BootID()
	st, err := s.out.Dir().Stat()
	if err != nil || boot == "" {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "cis490 instance\x00%s\x00%d", boot, st.Inode()))
	return hex.EncodeToString(sum[:12]), nil
}

func (s *reader) diskSpace() (wire.DiskSpace, error) {
	free, err := s.out.Dir().FreeSpace()
	if err != nil || free.IsUnknown() {
		return wire.DiskSpace{}, err
	}
	return wire.DiskSpace{
		FreeBytes: free.Bytes, SizeBytes: free.TotalBytes, MinFree: s.MinFree,
		FreeInodes: free.Inodes, Inodes: free.TotalInodes,
	}, nil
}

// countShipped counts the delivered episodes, unless the directory is as it was.
func (r *Reporter) countShipped(ctx context.Context, s *reader, report *wire.Report) error {
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
func (s *reader) addWaiting(ctx context.Context, report *wire.Report) error {
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
	page := Page{}
	for n := 0; !page.IsLast; n++ {
		report.CountedInPart = n == maxReportPages
		if report.CountedInPart {
			break
		}
		if page, err = ReadPage(s.dirs, page.Cursor, unshippable); err != nil {
			return err
		}
		for _, e := range page.Episodes {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.addToReport(report, e, failing[e.Name])
		}
	}
	report.Failing = min(int64(known.FailingTotal), report.Waiting)
	return nil
}

// addToReport adds an episode. failure is how it failed last, if it is known.
func (s *reader) addToReport(report *wire.Report, e Episode, failure outbox.Failure) {
	switch e.Stage {
	case Nothing:
		u, err := s.src.InspectUnfinished(string(e.Name))
		if err != nil {
			return // it is gone
		}
		report.Unfinished++
		report.OldestUnfinished = earlierKnown(report.OldestUnfinished, outbox.WholeSecond(u.ChangedAt))
	case Held:
		hold, err := s.out.ReadHold(e.Name)
		if err != nil {
			return // released meanwhile
		}
		report.Held[heldAs(hold.Reason)]++
	case Send:
		report.WaitingBytes += e.Size
		fallthrough
	case Pack:
		report.Waiting++
		report.OldestWaiting = earlierKnown(report.OldestWaiting, outbox.WholeSecond(e.ChangedAt))
		report.FailingSince = earlierKnown(report.FailingSince, failure.Since)
		if failure.LastAt.After(report.LastErrorAt) {
			report.LastErrorAt, report.LastError = failure.LastAt, printable.TextWithin(failure.Cause, wire.MaxReportError)
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
