// Package doctor examines a machine for the commands 'shipper doctor' and 'receiver doctor': its
// file systems, disk, clock, service manager and network. It makes a bundle of the results for a bug
// report.
//
// A check returns a [Finding]: a fact, a verdict and, unless all is well, what to do. The commands
// decide which checks run, and in which order. Checks change nothing, except that [CheckDisk] writes a
// file and removes it.
//
// Invariant: a [Report] has only printable ASCII and texts of bounded length, and each finding that is a
// warning or has failed says what to do. A [Bundle] has no key, no token and no password.
package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

// Verdict is what a finding means.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped" // the check could not run; the fact says why
)

// Finding is the result of a check, or a part of it.
type Finding struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Fact    string  `json:"fact"`
	Remedy  string  `json:"remedy,omitempty"` // what to do; empty unless Verdict is Warning or Failed
	// Network says that the finding is about the connection to the receiver, or about the receiver.
	Network bool `json:"-"`
	// Fault says that the disk cannot be trusted ([durable.ErrFault]).
	Fault bool `json:"-"`
}

// OKf returns the finding of a check that found nothing wrong.
func OKf(check, format string, args ...any) Finding {
	return Finding{Check: check, Verdict: OK, Fact: fmt.Sprintf(format, args...)}
}

// Skippedf returns the finding of a check that could not run. The fact says why.
func Skippedf(check, format string, args ...any) Finding {
	return Finding{Check: check, Verdict: Skipped, Fact: fmt.Sprintf(format, args...)}
}

// Warningf returns a finding with which the daemon works. The remedy says what to do.
func Warningf(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Verdict: Warning, Fact: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Failedf returns the finding of a check that has failed. The remedy says what to do.
func Failedf(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Verdict: Failed, Fact: fmt.Sprintf(format, args...), Remedy: remedy}
}

// FromError returns the finding of a check that has failed with an error. The remedy is the advice at
// the end of the error, as our own errors for operators have it, or else the given one. An error of the
// network may contain text of the other end, which must not become advice: it is left to
// [FromNetworkError].
func FromError(check string, err error, remedy string) Finding {
	if isRemote(err) {
		return FromNetworkError(check, err, remedy)
	}
	fact, advice := SplitAdvice(err.Error())
	if advice == "" {
		advice = remedy
	}
	f := Failedf(check, advice, "%s", fact)
	f.Fault = errors.Is(err, durable.ErrFault)
	return f
}

// FromNote is [FromError] for a warning.
func FromNote(check, note, remedy string) Finding {
	fact, advice := SplitAdvice(note)
	if advice == "" {
		advice = remedy
	}
	return Warningf(check, advice, "%s", fact)
}

// adviceMarks separate the advice of a message from what happened, the most certain first.
var adviceMarks = [...]string{": run ", ": write ", ": use ", ": free ", ": delete ", ": set ", ": check ", ": remove ", "; "}

// SplitAdvice splits a message for an operator into what happened and what to do. The advice is empty
// if the message has none.
func SplitAdvice(text string) (fact, advice string) {
	for _, mark := range adviceMarks {
		if at := strings.Index(text, mark); at > 0 {
			return text[:at], strings.TrimLeft(text[at:], ":; ")
		}
	}
	return text, ""
}

// Report collects findings. It is not safe for concurrent use.
type Report struct {
	Findings []Finding
	// Added is called with each finding as it is added. It may be nil.
	Added func(Finding)
}

// maxText is the maximum length of a fact and of a remedy, in bytes. A part of either may come from
// another machine, such as the text of a refusal.
const maxText = 2000

// Add adds findings, whose texts it escapes and clips.
func (r *Report) Add(findings ...Finding) {
	for _, f := range findings {
		f.Fact, f.Remedy = clipText(f.Fact), clipText(f.Remedy)
		r.Findings = append(r.Findings, f)
		if r.Added != nil {
			r.Added(f)
		}
	}
}

// clipText returns a text as a report has it.
func clipText(s string) string { return printable.Clip(printable.Text(s), maxText) }

// Skip adds a finding of a check that could not run.
func (r *Report) Skip(check, format string, args ...any) { r.Add(Skippedf(check, format, args...)) }

// Count returns how many findings have a verdict.
func (r *Report) Count(v Verdict) (n int) {
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// OnlyNetworkFailed reports whether something has failed, and whether all of that is about the
// network.
func (r *Report) OnlyNetworkFailed() (failed, onlyNetwork bool) {
	onlyNetwork = true
	for _, f := range r.Findings {
		if f.Verdict == Failed {
			failed = true
			onlyNetwork = onlyNetwork && f.Network
		}
	}
	return failed, failed && onlyNetwork
}

// HasFault reports whether a finding says that the disk cannot be trusted.
func (r *Report) HasFault() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Fault })
}

// Summary counts the findings, such as "12 ok, 1 warning, 1 failed".
func (r *Report) Summary() string {
	parts := []string{fmt.Sprintf("%d ok", r.Count(OK))}
	warnings := "warnings"
	if r.Count(Warning) == 1 {
		warnings = "warning"
	}
	for _, p := range []struct {
		n    int
		word string
	}{{r.Count(Warning), warnings}, {r.Count(Failed), "failed"}, {r.Count(Skipped), "skipped"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
		}
	}
	return strings.Join(parts, ", ")
}

// formatSince formats the time since a moment.
func formatSince(since time.Time) string { return formatTime(time.Since(since)) }

func formatTime(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
