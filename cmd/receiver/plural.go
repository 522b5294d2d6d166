package main

import (
	"fmt"

	"github.com/dustin/go-humanize/english"
)

// plural returns a count with its noun. The number has no separators, unlike that of [english.Plural]: programs
// read it.
func plural(n int64, noun string) string {
	return fmt.Sprintf("%d %s", n, english.PluralWord(int(n), noun, ""))
}

// pluralAre is [plural] with a verb.
func pluralAre(n int64, noun string) string {
	return plural(n, noun) + " " + english.PluralWord(int(n), "is", "are")
}
