package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize/english"

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

// Ages and forecasts from which something is a problem.
const (
	FullVerySoon   = 24 * time.Hour
	FullSoon       = 72 * time.Hour
	FailingLong    = time.Hour // a short outage resolves itself
	WaitingLong    = 24 * time.Hour
	skewNoticeable = 5 * time.Second
)

// Problems returns what is wrong with a host, the severe ones first. What a silent host reported last
// may not be so any more, and is left out.
func (r Record) Problems(at Moment) []Problem {
	var all []Problem
	add := func(kind string, s Severity, format string, args ...any) {
		all = append(all, Problem{kind, s, fmt.Sprintf(format, args...)})
	}
	h := r.Assess(at)
	if h.Cloned {
		add("cloned", Critical, "two machines use its certificate: let one of them join under another name")
	}
	switch _, known := r.longestSilence(); {
	case h.FromTheFuture:
		add("clock", Warning, "its last report is from the future: was this clock set back?")
	case h.SilentFor > 0 && h.Connects:
		add("silent", Warning, "connects, and has not reported for %s", FormatTime(h.SilentFor))
	case h.SilentFor > 0 && !known:
		add("silent", Warning, "has not reported for %s (%s)", FormatTime(h.SilentFor), r.rhythm())
	case h.SilentFor > 0:
		add("silent", Critical, "has not reported for %s (%s)", FormatTime(h.SilentFor), r.rhythm())
	default:
		r.addReported(add, h, at.Now)
	}
	slices.SortStableFunc(all, func(a, b Problem) int { return int(b.Severity - a.Severity) })
	return all
}

// addReported adds what a host itself reports.
func (r Record) addReported(add func(kind string, s Severity, format string, args ...any), h Health, now time.Time) {
	report := r.Report
	if h.Absent > 0 {
		add("absent", Warning, "has delivered %d %s, and %d %s stored: run 'shipper verify' there",
			report.Shipped, english.PluralWord(int(report.Shipped), "episode", ""), r.Stored, english.PluralWord(int(r.Stored), "is", "are"))
	}
	addSpace(add, report.Disk, h.FullIn)
	if n := report.HeldTotal(); n > 0 {
		add("held", Warning, "%d held (%s): see 'shipper held' there", n, heldReasons(report))
	}
	if since := report.FailingSince; !since.IsZero() && now.Sub(since) > FailingLong {
		add("failing", Warning, "%d failing for %s: %s", report.Failing, FormatTime(now.Sub(since)), report.LastError)
	}
	if since := report.OldestWaiting; !since.IsZero() && now.Sub(since) > WaitingLong {
		add("waiting", Warning, "an episode has been waiting for %s", FormatTime(now.Sub(since)))
	}
	if skew := time.Duration(r.ClockSkew * float64(time.Second)); skew.Abs() > skewNoticeable {
		side := "ahead"
		if skew < 0 {
			side = "behind"
		}
		add("clock", Warning, "its clock is %s %s", FormatTime(skew.Abs()), side)
	}
}

// ContactProblems returns what is wrong with a host that does not report, by its last contact.
func ContactProblems(at Moment) []Problem {
	if !at.ReceiverDown && !at.Shared && at.Now.Sub(at.heardSince(at.LastContact)) > unknownRhythm {
		return []Problem{{"silent", Warning, fmt.Sprintf("has not connected for %s", FormatTime(at.Now.Sub(at.LastContact)))}}
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
	case ForecastSeverity(fullIn) > OK:
		add("disk", ForecastSeverity(fullIn), "its disk is full in %s", FormatTime(fullIn))
	}
}

// ForecastSeverity returns how serious it is that a disk will be full after a time. 0 means that it will not
// be full.
func ForecastSeverity(fullIn time.Duration) Severity {
	switch {
	case fullIn <= 0 || fullIn >= FullSoon:
		return OK
	case fullIn < FullVerySoon:
		return Critical
	}
	return Warning
}

// rhythm says how often a host reports.
func (r Record) rhythm() string {
	if r.Report.Interval > 0 {
		return "it reports every " + FormatTime(seconds(r.Report.Interval))
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

// FormatTime describes a time that need not be exact.
func FormatTime(d time.Duration) string {
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
