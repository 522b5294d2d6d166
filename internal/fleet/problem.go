package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cis490/internal/wire"
)

// Severity says how soon an operator should act. Its values are those of monitoring plugins.
type Severity int

// The severities.
const (
	OK       Severity = 0
	Warning  Severity = 1
	Critical Severity = 2
)

func (s Severity) String() string {
	switch s {
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return "ok"
}

// MarshalText returns the word, for JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Problem is something that an operator should know about a host.
type Problem struct {
	Kind     string   `json:"kind"` // such as "silent": the same in each release
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
}

// Limits from which something is a problem.
const (
	fullSoon       = 72 * time.Hour
	fullVerySoon   = 24 * time.Hour
	failingLong    = time.Hour
	waitingLong    = 24 * time.Hour
	expiresSoon    = 30 * 24 * time.Hour
	expiresNow     = 7 * 24 * time.Hour
	skewNoticeable = 5 * time.Second
)

// Problems returns what is wrong with a host at now, the severe ones first.
func (r Record) Problems(now time.Time) []Problem {
	var all []Problem
	add := func(kind string, s Severity, format string, args ...any) {
		all = append(all, Problem{kind, s, fmt.Sprintf(format, args...)})
	}
	h, report := r.Assess(now), r.Report
	if h.SilentFor > 0 {
		add("silent", Critical, "has not reported for %s (%s)", words(h.SilentFor), r.rhythm())
	}
	if h.Cloned {
		add("cloned", Critical, "two machines use its certificate: let one of them join under another name")
	}
	if h.Absent > 0 {
		add("absent", Critical, "has delivered %d episodes, and %d are stored: run 'shipper verify' there", report.Shipped, r.Stored)
	}
	addSpace(add, report.Disk, h.FullIn)
	if n := report.HeldTotal(); n > 0 {
		add("held", Warning, "%d held (%s): see 'shipper held' there", n, heldReasons(report))
	}
	if at := report.OldestWaiting; report.Failing > 0 && now.Sub(at) > failingLong { // a short outage resolves itself
		add("failing", Warning, "%d failing: %s", report.Failing, report.LastError)
	}
	if at := report.OldestWaiting; !at.IsZero() && now.Sub(at) > waitingLong {
		add("waiting", Warning, "an episode has been waiting for %s", words(now.Sub(at)))
	}
	if at := report.CertificateEnds; !at.IsZero() && at.Sub(now) < expiresSoon {
		s := Warning
		if at.Sub(now) < expiresNow {
			s = Critical
		}
		add("certificate", s, "its certificate expires on %s", at.UTC().Format(time.DateOnly))
	}
	if skew := time.Duration(r.ClockSkew * float64(time.Second)); skew.Abs() > skewNoticeable {
		side := "ahead"
		if skew < 0 {
			side = "behind"
		}
		add("clock", Warning, "its clock is %s %s", words(skew.Abs()), side)
	}
	slices.SortStableFunc(all, func(a, b Problem) int { return int(b.Severity - a.Severity) })
	return all
}

// ContactProblems returns what is wrong at now with a host that does not report, by its last contact.
func ContactProblems(last, now time.Time) []Problem {
	if silence := now.Sub(last); silence > unknownRhythm {
		return []Problem{{"silent", Critical, fmt.Sprintf("was not here for %s", words(silence))}}
	}
	return nil
}

// addSpace adds a problem of the disk. fullIn is when it will be full, or 0.
func addSpace(add func(kind string, s Severity, format string, args ...any), d wire.DiskSpace, fullIn time.Duration) {
	switch {
	case d.SizeBytes > 0 && d.FreeBytes < d.MinFree:
		add("disk", Critical, "its disk is full: packing waits for space")
	case d.Inodes > 0 && d.FreeInodes < d.Inodes/100:
		add("inodes", Warning, "its disk has only %d inodes left", d.FreeInodes)
	case fullIn > 0 && fullIn < fullVerySoon:
		add("disk", Critical, "its disk is full in %s", words(fullIn))
	case fullIn > 0 && fullIn < fullSoon:
		add("disk", Warning, "its disk is full in %s", words(fullIn))
	}
}

// rhythm says how often a host reports.
func (r Record) rhythm() string {
	if r.Report.Interval > 0 {
		return "it reports every " + words(time.Duration(r.Report.Interval)*time.Second)
	}
	return "it reports with each pass"
}

func heldReasons(r wire.Report) string {
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(r.Held)) {
		if n := r.Held[reason]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, reason))
		}
	}
	return strings.Join(all, ", ")
}

// words returns a time that need not be exact.
func words(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d s", d/time.Second)
}

// Worst returns the highest severity of some problems.
func Worst(problems []Problem) Severity {
	worst := OK
	for _, p := range problems {
		worst = max(worst, p.Severity)
	}
	return worst
}
