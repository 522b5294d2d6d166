package cli

import (
	"time"

	"github.com/dustin/go-humanize"
)

// Ago says in words when something was. A time in the future is one of a clock that was
// set back since, or of a file whose times somebody has set.
func Ago(at, now time.Time) string {
	switch age := now.Sub(at); {
	case age < -time.Second:
		return "in the future (was the clock set back?)"
	case age < time.Second:
		return "just now"
	}
	return humanize.RelTime(at, now, "ago", "")
}
