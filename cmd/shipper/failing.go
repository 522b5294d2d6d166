package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/outbox"
	"cis490/internal/shipper"
	"cis490/internal/terminal"
)

// maxReportAge is how long the report of a running shipper counts as current. It is written
// with each scan, every 30 s by default.
const maxReportAge = time.Minute

// failingLine describes how many episodes fail, and how old that information is.
func failingLine(st backlog.Status, now time.Time) string {
	if st.FailingTotal == 0 && st.Receiver == nil {
		return "0"
	}
	return fmt.Sprintf("%d%s", st.FailingTotal, reportAge(st, now))
}

// reportAge describes how old the shipper's report is, if it is not current.
func reportAge(st backlog.Status, now time.Time) string {
	age := cli.FormatAgo(st.ReportedAt, now)
	switch {
	case st.Running == "" && !st.RunningUnknown:
		return fmt.Sprintf(", when the last run ended %s", age)
	case now.Sub(st.ReportedAt) > maxReportAge || st.ReportedAt.After(now.Add(maxReportAge)):
		return fmt.Sprintf(", as it was %s", age)
	}
	return ""
}

// receiverLine describes whether the receiver accepts uploads, and how old that is.
func receiverLine(paint terminal.Painter, st backlog.Status, now time.Time) string {
	ago := func(t time.Time) string { return cli.FormatAgo(t, now) }
	last := ""
	if !st.AnsweredAt.IsZero() {
		last = ", last answered " + ago(st.AnsweredAt)
	}
	switch st.ReceiverState {
	case backlog.ReceiverAnswers:
		if now.Sub(st.AnsweredAt) > maxSilence {
			return "last answered " + ago(st.AnsweredAt) + "; an upload is in progress"
		}
		return paint.Paint("answers", terminal.Good) + ", asked " + ago(st.AnsweredAt)
	case backlog.ReceiverDown:
		return paint.Paint("not accepting uploads", terminal.Bad) + ", see below" + last
	case backlog.ReceiverAsked:
		return "is being asked" + last
	}
	switch {
	case st.Running == "" && !st.RunningUnknown:
		return paint.Paint("unknown", terminal.Fair) + ", no shipper is running" + last
	case st.ReportedAt.IsZero():
		return paint.Paint("unknown", terminal.Fair) + ", no report yet"
	}
	return paint.Paint("unknown", terminal.Fair) + ", last report " + ago(st.ReportedAt) + last
}

// maxSilence is longer than the interval between pings, with their timeouts: after it, an upload in
// progress is why the receiver was not asked.
const maxSilence = 2 * shipper.PingInterval

// printFailing shows what a shipper reports and the directories do not show.
func printFailing(to io.Writer, paint terminal.Painter, st backlog.Status, now time.Time) error {
	var b strings.Builder
	if st.Receiver != nil {
		fmt.Fprintf(&b, "\nreceiver has not accepted uploads since %s UTC\n", st.Receiver.Since.UTC().Format(time.DateTime))
		fmt.Fprintf(&b, "%s", wrapText(st.Receiver.Cause))
		if st.Receiver.Hint != "" {
			fmt.Fprintf(&b, "%s", wrapText("hint: "+st.Receiver.Hint))
		}
		if next := untilText(st.Receiver.NextPing, st, now); next != "" {
			fmt.Fprintf(&b, "  next attempt %s\n", next)
		}
	}
	for _, f := range st.Failing {
		fmt.Fprintf(&b, "\n%s\n", f.Episode)
		fmt.Fprintf(&b, "  %s, %s%s\n", paint.Paint("failing", terminal.Fair), attemptsText(f, now), nextTry(f, st, now))
		fmt.Fprintf(&b, "%s", wrapText(f.Cause))
	}
	if more := st.FailingTotal - len(st.Failing); more > 0 && len(st.Failing) > 0 {
		fmt.Fprintf(&b, "\nand %d more that fail\n", more)
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func attemptsText(f outbox.Failure, now time.Time) string {
	times := "once"
	if f.Attempts > 1 {
		times = fmt.Sprintf("%d times", f.Attempts)
	}
	return fmt.Sprintf("tried %s, first %s", times, cli.FormatAgo(f.Since, now))
}

func nextTry(f outbox.Failure, st backlog.Status, now time.Time) string {
	if next := untilText(f.NextAt, st, now); next != "" {
		return ", again " + next
	}
	return ""
}

// untilText describes when something happens, if a shipper runs that will do it.
func untilText(at time.Time, st backlog.Status, now time.Time) string {
	if at.IsZero() || st.Running == "" {
		return ""
	}
	if at.Before(now.Add(time.Second)) {
		return "now"
	}
	return humanize.RelTime(at, now, "", "from now")
}

// maxColumns is the width of a terminal.
const maxColumns = 80

// wrapText returns a text as indented lines of at most [maxColumns] columns.
func wrapText(text string) string {
	const width = maxColumns - len("  ")
	var words []string
	for word := range strings.FieldsSeq(asciiText(text)) {
		for ; len(word) > width; word = word[width:] { // longer than a line
			words = append(words, word[:width])
		}
		words = append(words, word)
	}
	var b strings.Builder
	for _, line := range cli.WrapLine(strings.Join(words, " "), width) {
		if line != "" {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	return b.String()
}
