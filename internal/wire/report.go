package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"time"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// reportPath is where a shipper reports the state of its host:
//
//	POST /v1/report
//	Content-Type: application/json
//
//	{"version":"1.4","instance":"f0c1…","reported_at":"2026-11-30T08:00:00Z","interval_seconds":300,
//	 "unfinished":2,"waiting":3,"waiting_bytes":81920,"held":{"conflict":1},"failing":0,"shipped":841,
//	 "disk":{"free_bytes":1000000000,"size_bytes":4000000000}}
//
// The body is a [Report] of at most [MaxReport] bytes. Unknown members are skipped. With "Accept:
// application/json" and the header of a ping the response is that to a ping, so that an idle host needs
// no other request; a host that knows another store is refused after its report was kept. Otherwise the
// response is 204, as that of an older receiver always is.
const reportPath = "/v1/report"

// Limits of a report, which both ends keep.
const (
	MaxReport      = 2 << 10 // bytes of a request
	MaxReportError = 200     // bytes of [Report.LastError]
	maxHeldReasons = 16
	maxReported    = 1 << 52 // of a number; larger ones are not exact in every JSON parser
)

// Report is what a shipper says about its host. Nothing about custody depends on it: it is for
// operators only, and a compromised host can report anything.
type Report struct {
	Version string `json:"version"`
	// Instance identifies the machine since its last boot, so that a second machine with the same
	// certificate is noticed.
	Instance string `json:"instance"`
	// At is the time of the host's clock.
	At time.Time `json:"reported_at"`
	// Interval is how long the shipper waits at most until its next report, in seconds. It is 0 if
	// the shipper does not know, because something else starts it.
	Interval int64 `json:"interval_seconds,omitempty"`

	Unfinished       int64     `json:"unfinished"`
	OldestUnfinished time.Time `json:"oldest_unfinished_at,omitzero"` // when the unfinished episode that is idle for longest last changed

	// Waiting are finished episodes that are not delivered, without those held. Failing are those of
	// them that have failed at least once.
	Waiting       int64     `json:"waiting"`
	WaitingBytes  int64     `json:"waiting_bytes"` // of those that are packed
	OldestWaiting time.Time `json:"oldest_waiting_at,omitzero"`
	Failing       int64     `json:"failing"`
	FailingSince  time.Time `json:"failing_since,omitzero"` // since when the first of them has failed

	Held    map[string]int64 `json:"held,omitempty"` // episodes, by reason
	Shipped int64            `json:"shipped"`        // delivered ones that the host still has

	Disk DiskSpace `json:"disk"`
	// CountedInPart means that not all episodes were counted, because of their number: Unfinished, Waiting and
	// Held are of some of them.
	CountedInPart bool `json:"counted_in_part,omitempty"`
	// CertificateEnds is when the host's certificate expires.
	CertificateEnds time.Time `json:"certificate_not_after,omitzero"`
	// LastError says why the last upload failed, if none has succeeded since.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// DiskSpace describes the file system of a host's directories.
type DiskSpace struct {
	FreeBytes int64 `json:"free_bytes"`
	SizeBytes int64 `json:"size_bytes"`
	MinFree   int64 `json:"min_free"` // below it the host packs nothing
	// FreeInodes and Inodes are 0 if the file system has no limit.
	FreeInodes int64 `json:"free_inodes,omitempty"`
	Inodes     int64 `json:"inodes,omitempty"`
}

// HeldTotal returns how many episodes are held.
func (r Report) HeldTotal() (n int64) {
	for _, held := range r.Held {
		n += held
	}
	return n
}

// heldReasons are the reasons of holds that shippers report.
var heldReasons = []string{"unfit", "refused", "conflict", "changed", "stuck", "unreadable", "invalid", "other"}

// HeldByReason returns the number of held episodes for each reason. Reasons that no shipper reports
// count as "other", so that a host cannot invent an unlimited number of them.
func (r Report) HeldByReason() map[string]int64 {
	held := make(map[string]int64)
	for _, reason := range heldReasons {
		held[reason] = 0
	}
	for reason, n := range r.Held {
		if !slices.Contains(heldReasons, reason) {
			reason = "other"
		}
		held[reason] += n
	}
	return held
}

var (
	reportWord = regexp.MustCompile(`^[a-z][a-z-]*$`) // a reason of a hold
	reportID   = regexp.MustCompile(`^[A-Za-z0-9-]*$`)
)

// Validate returns an error unless every value is one that a shipper can have. Times may be any.
func (r Report) Validate() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"interval_seconds", r.Interval},
		{"unfinished", r.Unfinished},
		{"waiting", r.Waiting},
		{"waiting_bytes", r.WaitingBytes},
		{"failing", r.Failing},
		{"shipped", r.Shipped},
		{"free_bytes", r.Disk.FreeBytes},
		{"size_bytes", r.Disk.SizeBytes},
		{"min_free", r.Disk.MinFree},
		{"free_inodes", r.Disk.FreeInodes},
		{"inodes", r.Disk.Inodes},
	} {
		if n.value < 0 || n.value > maxReported {
			return fmt.Errorf("%s is out of range", n.name)
		}
	}
	if len(r.Version) > 64 || printable.Text(r.Version) != r.Version {
		return errors.New("version is not a short printable text")
	}
	if len(r.Instance) > 64 || !reportID.MatchString(r.Instance) {
		return errors.New("instance is not an identifier")
	}
	if len(r.LastError) > MaxReportError || printable.Text(r.LastError) != r.LastError {
		return errors.New("last_error is not a short printable text")
	}
	if len(r.Held) > maxHeldReasons {
		return fmt.Errorf("held has more than %d reasons", maxHeldReasons)
	}
	for reason, n := range r.Held {
		if len(reason) > 32 || !reportWord.MatchString(reason) || n < 0 || n > maxReported/maxHeldReasons {
			return errors.New("held is not a count of episodes by reason")
		}
	}
	return nil
}

// ParseReport parses and validates the body of a report.
func ParseReport(body []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return Report{}, Refuse(BadRequest, "the report is not valid JSON: %s", printable.Clip(printable.Text(err.Error()), 200))
	}
	if err := r.Validate(); err != nil {
		return Report{}, Refuse(BadRequest, "%v", err)
	}
	for _, at := range []*time.Time{&r.At, &r.OldestUnfinished, &r.OldestWaiting, &r.FailingSince, &r.CertificateEnds, &r.LastErrorAt} {
		*at = at.UTC()
		if at.Year() < 0 || at.Year() > 9999 {
			return Report{}, Refuse(BadRequest, "a time is out of range")
		}
	}
	return r, nil
}

// Reports is the part of a receiver that keeps what hosts report.
type Reports interface {
	// KeepReport keeps the report of a host, or refuses it with a [*Problem].
	KeepReport(ctx context.Context, host episode.Name, r Report) error
}

// ErrNoReports is the refusal of a receiver that keeps no reports, and ErrReportNotKept that of one whose
// disk is full. Hosts report again and again.
var (
	ErrNoReports     = Refuse(NotFound, "this receiver keeps no reports")
	ErrReportNotKept = Refuse(Full, "the report was not kept: the disk is full")
)

func (h *Handler) serveReport(w http.ResponseWriter, r *http.Request, caller Caller) error {
	if err := requirePost(w, r); err != nil {
		return err
	}
	if h.Reports == nil {
		return ErrNoReports
	}
	if err := checkBodyHeaders(r); err != nil {
		return err
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return Refuse(WrongType, "a report is application/json")
	}
	if r.ContentLength > MaxReport {
		return Refuse(TooLarge, "a report has at most %d bytes", MaxReport)
	}
	body := h.StallLimits.newBody(r.Context(), http.NewResponseController(w), r)
	defer body.detach()
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	report, err := ParseReport(text)
	if err != nil {
		return err
	}
	if err := h.Reports.KeepReport(r.Context(), caller.Host, report); err != nil {
		return err
	}
	if r.Header.Get("Accept") == "application/json" {
		if err := h.checkKnownStore(r); err != nil {
			return err
		}
		return h.describe(w, r, caller)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// SendReport sends a report. A receiver responds to it as to a ping, and an older one with nothing. The
// error is a [NotFound] if it keeps no reports. It closes the connection, which an idle host would
// keep open for [idleTimeout] of each interval: each open one takes memory of the receiver.
func (c *Client) SendReport(ctx context.Context, r Report) (*PingResponse, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	req, err := c.newRequest(ctx, http.MethodPost, c.base.JoinPath(reportPath), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Close = true
	return c.ping(req, http.StatusOK, http.StatusNoContent)
}
