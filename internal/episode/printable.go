package episode

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable returns text that somebody else may have written as one line of printable
// ASCII. What is not is escaped. What is stays as it is, so that text which passes through
// twice, or holds a name that was quoted before, is escaped once.
func Printable(text string) string {
	if !strings.ContainsFunc(text, isUnprintable) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case !isUnprintable(r):
			b.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

func isUnprintable(r rune) bool { return r < ' ' || r > '~' }
