package printable_test

import (
	"strings"
	"testing"

	"cis490/internal/printable"
)

// TestTextIsEscapedOnce: a name that was quoted in an error or a note is still the name that an
// operator can find.
func TestTextIsEscapedOnce(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		`open "run\x1b": denied`:    `open "run\x1b": denied`,
		"esc\x1b[31m":               `esc\x1b[31m`,
		"\xff\xfe":                  `\xff\xfe`,
		"new\nline\t\x00":           `new\nline\t\x00`,
		"\u202eltr\u00fc\U0001f600": `\u202eltr\u00fc\U0001f600`,
		"\ufffd":                    `\ufffd`,
		`a\b "c" 'd'` + "\x7f":      `a\b "c" 'd'\x7f`,
	} {
		if got := printable.Text(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("run-1")
	f.Add("esc\x1b \"\\\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable.Text(s)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || printable.Text(got) != got {
			t.Errorf("%q: got %q, and then %q", s, got, printable.Text(got))
		}
	})
}
