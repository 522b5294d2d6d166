// Package printable makes untrusted text safe to show on a terminal and in a log. Names and
// contents of episodes come from malware, and any machine can send requests.
//
// Invariant: [Text], [TextWithin], [Quote] and [Name] return one line of printable ASCII, whatever they are
// given. [JSON] keeps line breaks and tabs. [Clip] only shortens.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Text returns s with all but printable ASCII escaped. Quotes and backslashes stay as they
// are, so that text which passes through twice, or holds a quoted name, is escaped once.
func Text(s string) string {
	if !strings.ContainsFunc(s, isUnprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case !isUnprintable(r):
			b.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// JSON returns JSON text with all but printable ASCII escaped as JSON does it, so that its values are the
// same. Line breaks and tabs stay: they can only be between values. [Text] is not for JSON, which has no
// \x and no \U.
func JSON(text string) string {
	if !strings.ContainsFunc(text, isUnprintable) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if !isUnprintable(r) || r == '\n' || r == '\r' || r == '\t' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

func isUnprintable(r rune) bool { return r < ' ' || r > '~' }

// Quote returns the first maxBytes bytes of s as a quoted Go string.
func Quote(s string, maxBytes int) string { return strconv.QuoteToASCII(Clip(s, maxBytes)) }

// Clip returns the first maxBytes bytes of s, and "..." if there are more.
func Clip(s string, maxBytes int) string {
	if len(s) > maxBytes {
		return s[:maxBytes] + "..."
	}
	return s
}

// TextWithin returns [Text] of s, or as much of its beginning as fits with "..." into maxBytes bytes.
func TextWithin(s string, maxBytes int) string {
	s = Text(s)
	if len(s) > maxBytes {
		s = s[:maxBytes-3] + "..."
	}
	return s
}

// Name returns s if it is plain, and s quoted otherwise.
func Name(s string) string {
	if IsPlain(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}

// IsPlain reports whether s is printable ASCII without quotes and backslashes.
func IsPlain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return isUnprintable(r) || r == '"' || r == '\\' })
}
