package main

import (
	"strings"
	"testing"
	"time"

	"cis490/internal/outbox"
	"cis490/internal/shipper"
)

// TestReceiverLineSaysWhatIsKnownAndOfWhen and no more.
func TestReceiverLineSaysWhatIsKnownAndOfWhen(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		st   shipper.Status
		want string
	}{
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverAnswers, AnsweredAt: ago(12 * time.Second)}, "answers, asked 12 seconds ago"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverAnswers, AnsweredAt: ago(40 * time.Minute)}, "last answered 40 minutes ago; something is on its way there"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverDown, Receiver: &outbox.Outage{}}, "does not take anything, see below"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverDown, AnsweredAt: ago(3 * time.Hour)}, "does not take anything, see below, last answered 3 hours ago"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverAsked}, "is being asked"},
		{shipper.Status{ReceiverState: shipper.ReceiverUnknown, AnsweredAt: ago(3 * time.Hour)}, "unknown, no shipper runs, last answered 3 hours ago"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverUnknown}, "unknown, nothing is noted"},
		{shipper.Status{Running: "x", ReceiverState: shipper.ReceiverUnknown, ReportedAt: ago(2 * time.Hour)}, "unknown, last noted 2 hours ago"},
	} {
		if got := receiver(c.st, now); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
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
		got := wrapped(text)
		for line := range strings.Lines(got) {
			if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || !strings.HasPrefix(line, "  ") {
				t.Errorf("%q has the line %q", text, line)
			}
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if want := squeeze(ascii(text)); squeeze(got) != want {
			t.Errorf("%q became %q", want, got)
		}
	})
}
