package cli

import (
	"cmp"
	"time"

	"github.com/dustin/go-humanize"

	"cis490/internal/terminal"
)

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
