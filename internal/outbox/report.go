package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// reportName is the file name of the [Report].
const reportName = ".status.json"

// Limits of a report.
const (
	MaxFailing    = 100 // episodes that are listed
	MaxCause      = 400 // bytes of a cause
	maxReportSize = 256 << 10
	maxAttempts   = 1 << 30
)

// Report is what a shipper knows and the directory does not say, for a status. Nothing depends on
// it, and what it lists may have been shipped or removed since.
type Report struct {
	WrittenAt time.Time `json:"written_at"`
	PID       int       `json:"pid"`
	// Failing are the episodes that failed and will be retried, those first that have failed longest,
	// of FailingTotal.
	Failing      []Failure `json:"failing"`
	FailingTotal int       `json:"failing_total"`
	// Receiver is nil while the receiver accepts uploads, as far as is known.
	Receiver *ReceiverOutage `json:"receiver_down,omitempty"`
	// AnsweredAt is when the receiver last accepted something, as far as is known.
	AnsweredAt time.Time `json:"receiver_answered_at,omitzero"`
	// Asking reports that the process has asked, and has had no response since it started.
	Asking bool `json:"receiver_asking,omitempty"`
}

// IsEmpty reports whether there is nothing to report.
func (r Report) IsEmpty() bool {
	return r.FailingTotal == 0 && r.Receiver == nil && r.AnsweredAt.IsZero() && !r.Asking
}

// Failure is an episode that failed.
type Failure struct {
	Episode  episode.Name `json:"episode_id"`
	Attempts int          `json:"attempts"` // since its last success
	Since    time.Time    `json:"since"`    // time of the first of them
	LastAt   time.Time    `json:"last_at"`
	NextAt   time.Time    `json:"next_at,omitzero"` // of the next attempt, at the earliest
	Cause    string       `json:"cause"`
}

// ReceiverOutage says that the receiver accepts nothing.
type ReceiverOutage struct {
	Since    time.Time `json:"since"`
	NextPing time.Time `json:"next_ping_at,omitzero"`
	Cause    string    `json:"cause"`
	Hint     string    `json:"hint,omitempty"` // what to do
}

// PrintableCause makes a cause that may contain hostile bytes printable, and bounds it.
func PrintableCause(cause string) string { return printable.TextWithin(cause, MaxCause) }

// WholeSecond returns t as the files of the outbox and what is shown of them have it.
func WholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// WriteReport replaces the report, without sync. The caller must hold the lock.
func (o *Outbox) WriteReport(r Report) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return o.dir.WriteFileNoSync(reportName, append(b, '\n'), 0o640)
}

// ReadReport returns the report, or an error wrapping [fs.ErrNotExist]. It returns an error for a
// file that is not a valid report.
func (o *Outbox) ReadReport() (Report, error) {
	b, err := o.readBounded(reportName, maxReportSize)
	if errors.Is(err, fs.ErrNotExist) {
		return Report{}, err
	}
	var r Report
	if err == nil {
		r, err = parseReport(b)
	}
	if err != nil {
		return Report{}, fmt.Errorf("read %s: %w", o.dir.Path(reportName), err)
	}
	return r, nil
}

func parseReport(b []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return Report{}, err
	}
	if len(r.Failing) > MaxFailing || r.FailingTotal < len(r.Failing) {
		return Report{}, errors.New("too many failures")
	}
	for _, f := range r.Failing {
		if _, err := episode.ParseName(string(f.Episode)); err != nil {
			return Report{}, err
		}
		if f.Attempts < 1 || f.Attempts > maxAttempts {
			return Report{}, fmt.Errorf("%s has %d attempts", f.Episode, f.Attempts)
		}
	}
	return r, nil
}
