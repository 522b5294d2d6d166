package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/printable"
	"cis490/internal/progress"
	"cis490/internal/terminal"
)

// Note prints a message on stderr that an operator should read, but that is not an error.
func Note(c *cobra.Command, format string, args ...any) {
	word := terminal.NewPainter(c.ErrOrStderr()).Paint("note", terminal.Fair)
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s: %s\n", c.Root().Name(), word, printable.Text(line))
	}
}

// printError prints an error on stderr. On a terminal the name of the program has the colour of an
// error, because messages begin with it and not with a word such as "error".
func printError(root *cobra.Command, text string) {
	name := terminal.NewPainter(root.ErrOrStderr()).Paint(root.Name()+":", terminal.Bad)
	for line := range strings.SplitSeq(text, "\n") { // the faults of a file are one error
		fmt.Fprintf(root.ErrOrStderr(), "%s %s\n", name, printable.Text(line))
	}
}

// NewDisplay returns a progress display on the stderr of a command. While it is shown, the command
// must print through [progress.Display.Above]. Nothing is shown if stderr is not a terminal, or if
// the command prints JSON on the same terminal, where a program may read it.
func NewDisplay(c *cobra.Command) *progress.Display {
	d := progress.NewDisplay(c.ErrOrStderr())
	if f := c.Flag("json"); f != nil && f.Value.String() == "true" && d.IsOn(c.OutOrStdout()) {
		return &progress.Display{}
	}
	return d
}

// FormatAgo describes a time in the past in words. A time in the future means that the clock was
// set back since, or that the times of a file were set.
func FormatAgo(at, now time.Time) string {
	switch age := now.Sub(at); {
	case age < -time.Second:
		return "in the future (was the clock set back?)"
	case age < time.Second:
		return "just now"
	}
	return humanize.RelTime(at, now, "ago", "")
}

// DescribeHolder describes the process that holds the lock of a daemon, for a status. If no process
// does, the text has the colour noneColor.
func DescribeHolder(paint terminal.Painter, noneColor terminal.Color, holder string, unknown bool, daemon string) string {
	if unknown {
		return "unknown: only root and the " + daemon + "'s user can read the lock"
	}
	return cmp.Or(holder, paint.Paint("no", noneColor))
}

// shortDigestLen is the number of hex digits of a digest that commands print: enough to tell two apart.
const shortDigestLen = 12

// AddFull adds --full to a command that prints digests for people. JSON and log lines always have
// whole digests.
func AddFull(c *cobra.Command, full *bool) {
	c.Flags().BoolVar(full, "full", false, "print whole digests, not their first 12 digits")
}

// ShortDigest returns the first digits of a digest in hex, or all of them if full is set.
func ShortDigest(whole string, full bool) string {
	if full || len(whole) <= shortDigestLen {
		return whole
	}
	return whole[:shortDigestLen]
}

// ShortenDigests shortens the given digests in text, unless full is set. It leaves other digests
// alone, because an episode may be named after the digest of its malware.
func ShortenDigests[D fmt.Stringer](text string, full bool, digests ...D) string {
	for _, d := range digests {
		text = strings.ReplaceAll(text, d.String(), ShortDigest(d.String(), full))
	}
	return text
}

// WriteJSON prints v as one line.
func WriteJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// WriteJSONList prints each element of a list as one line.
func WriteJSONList[T any](w io.Writer, list []T) error {
	for _, v := range list {
		if err := WriteJSON(w, v); err != nil {
			return err
		}
	}
	return nil
}

// TableRow is a row of a table, with one or more lines.
type TableRow struct {
	Name  string
	Lines []string
}

// tableWidth is the width of a terminal.
const tableWidth = 80

// PrintRows prints rows with their names in a column. It wraps lines at the width of a terminal,
// but does not split words, so that paths can be copied.
func PrintRows(w io.Writer, rows []TableRow) error {
	width := 0
	for _, r := range rows {
		width = max(width, len(r.Name)+2)
	}
	var b strings.Builder
	for _, r := range rows {
		name := r.Name
		for _, line := range r.Lines {
			for _, part := range WrapLine(line, tableWidth-width) {
				fmt.Fprintf(&b, "%-*s%s\n", width, name, part)
				name = ""
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WrapLine splits a line at blanks into parts of at most width bytes, unless a word is longer.
func WrapLine(line string, width int) []string {
	var lines []string
	at := ""
	for word := range strings.FieldsSeq(line) {
		if at != "" && len(at)+1+len(word) > width {
			lines, at = append(lines, at), ""
		}
		at = strings.TrimPrefix(at+" "+word, " ")
	}
	return append(lines, at)
}
