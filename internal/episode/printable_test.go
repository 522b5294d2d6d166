package episode_test

import (
	"strings"
	"testing"

	"cis490/internal/episode"
)

// TestPrintableEscapesOnce: a name that was quoted, in an error, in a note, is still the
// name that a person can find.
func TestPrintableEscapesOnce(t *testing.T) {
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
		if got := episode.Printable(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("run-1")
	f.Add("esc\x1b \"\\\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := episode.Printable(s)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || episode.Printable(got) != got {
			t.Errorf("%q: got %q, and then %q", s, got, episode.Printable(got))
		}
	})
}
