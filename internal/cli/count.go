package cli

import (
	"fmt"

	"github.com/dustin/go-humanize/english"
)

// FormatCount returns a count with its noun, as "1 archive" or "2 archives". The number has no separators,
// unlike that of [english.Plural]: programs read it.
func FormatCount[N int | int64](n N, noun string) string {
	return fmt.Sprintf("%d %s", n, english.PluralWord(int(n), noun, ""))
}

// FormatCountWith is [FormatCount] with a verb, as "1 archive is" or "2 archives are".
func FormatCountWith[N int | int64](n N, noun, one, many string) string {
	return FormatCount(n, noun) + " " + english.PluralWord(int(n), one, many)
}
