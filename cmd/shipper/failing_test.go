package main

import (
	"strings"
	"testing"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/outbox"
	"cis490/internal/terminal"
)

// TestReceiverLineSaysWhatIsKnownAndOfWhen and no more.
func TestReceiverLineSaysWhatIsKnownAndOfWhen(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		st   backlog.Status
		want string
	}{
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverAnswers, AnsweredAt: ago(12 * time.Second)}, "answers, asked 12 seconds ago"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverAnswers, AnsweredAt: ago(40 * time.Minute)}, "last answered 40 minutes ago; an upload is in progress"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverDown, Receiver: &outbox.ReceiverOutage{}}, "not accepting uploads, see below"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverDown, AnsweredAt: ago(3 * time.Hour)}, "not accepting uploads, see below, last answered 3 hours ago"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverAsked}, "is being asked"},
		{backlog.Status{ReceiverState: backlog.ReceiverUnknown, AnsweredAt: ago(3 * time.Hour)}, "unknown, no shipper is running, last answered 3 hours ago"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverUnknown}, "unknown, no report yet"},
		{backlog.Status{Running: "x", ReceiverState: backlog.ReceiverUnknown, ReportedAt: ago(2 * time.Hour)}, "unknown, last report 2 hours ago"},
	} {
		if got := receiverLine(terminal.Painter{}, c.st, now); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestTimesAreSaidInWords: "just now", and not "first now". A time in the future means that the
// clock was set back.
func TestTimesAreSaidInWords(t *testing.T) {
	now := time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC)
	st := func(at time.Time) backlog.Status {
		return backlog.Status{ReportedAt: at, FailingTotal: 1, Progress: backlog.Progress{LastFinished: at}}
	}
	running := backlog.Status{Running: "pid 1", ReportedAt: now}
	for what, c := range map[string]struct{ got, want string }{
		"a run that has just ended":   {failingLine(st(now), now), "1, when the last run ended just now"},
		"a run of long ago":           {failingLine(st(now.Add(-time.Hour)), now), "1, when the last run ended 1 hour ago"},
		"a run in the future":         {failingLine(st(now.Add(time.Hour)), now), "1, when the last run ended in the future (was the clock set back?)"},
		"finished now":                {describeUnfinished(st(now), now), "0, the last one finished just now"},
		"finished an hour ago":        {describeUnfinished(st(now.Add(-time.Hour)), now), "0, the last one finished 1 hour ago"},
		"finished in the future":      {describeUnfinished(st(now.AddDate(600, 0, 0)), now), "0, the last one finished in the future (was the clock set back?)"},
		"tried a moment ago":          {attemptsText(outbox.Failure{Attempts: 1, Since: now}, now), "tried once, first just now"},
		"due":                         {nextTry(outbox.Failure{NextAt: now}, running, now), ", again now"},
		"due before":                  {nextTry(outbox.Failure{NextAt: now.Add(-time.Hour)}, running, now), ", again now"},
		"due in less than a second":   {nextTry(outbox.Failure{NextAt: now.Add(time.Second / 2)}, running, now), ", again now"},
		"due later":                   {nextTry(outbox.Failure{NextAt: now.Add(time.Minute)}, running, now), ", again 1 minute from now"},
		"due while no shipper is run": {nextTry(outbox.Failure{NextAt: now}, backlog.Status{}, now), ""},
		"changes":                     {describeChanges(backlog.Changes{Count: 2, Oldest: now.Add(-time.Hour), Newest: now}, now), ", 2 changed since (noted 1 hour ago to just now): see 'shipper verify'"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", what, c.got, c.want)
		}
	}
}

// FuzzWrapped: no line is wider than a terminal, and no word is lost.
func FuzzWrapped(f *testing.F) {
	f.Add("read \"x\": input/output error")
	f.Add(strings.Repeat("x", 500))
	f.Add(strings.Repeat("x", 77) + " " + strings.Repeat("y", 78) + " z")
	f.Add("\x1b[31m \n\n  ")
	f.Fuzz(func(t *testing.T, text string) {
		got := wrapText(text)
		for line := range strings.Lines(got) {
			line = strings.TrimSuffix(line, "\n")
			if len(line) > 80 || !strings.HasPrefix(line, "  ") {
				t.Errorf("%q has the line %q", text, line)
			}
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if want := squeeze(asciiText(text)); squeeze(got) != want {
			t.Errorf("%q became %q", want, got)
		}
	})
}
