package cli

import (
	"time"

	"github.com/dustin/go-humanize"
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
