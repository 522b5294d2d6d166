package printable_test

import (
	"encoding/json"
	"errors"
	"maps"
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

// TestJSONKeepsItsValues: a reader gets the same strings, and a terminal no control characters.
func TestJSONKeepsItsValues(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		`{"a":"b\u001b\n"}`:         `{"a":"b\u001b\n"}`,
		"{\n\t\"a\": \"\u00f6\"\n}": "{\n\t\"a\": \"\\u00f6\"\n}",
		"\"\x7f\u009b\U0001f600\"":  `"\u007f\u009b\ud83d\ude00"`,
		"\"\xff\x1b\"":              `"\ufffd\u001b"`, // encoding/json writes neither
	} {
		if got := printable.JSON(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add("run-1")
	f.Add("\x1b \x7f \u009b \U0001f600 \xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		valid, err := json.MarshalIndent(map[string]string{s: s}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		got := printable.JSON(string(valid))
		if strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && r != '\t' && (r < ' ' || r > '~') }) {
			t.Errorf("%q: got %q", s, got)
		}
		var before, after map[string]string
		if err := errors.Join(json.Unmarshal(valid, &before), json.Unmarshal([]byte(got), &after)); err != nil || !maps.Equal(before, after) {
			t.Errorf("%q: got %q and then %q, %v", s, before, after, err)
		}
	})
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
