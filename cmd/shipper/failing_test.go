package main

import (
	"strings"
	"testing"
)

// FuzzWrapped: no line is wider than a terminal, and no word is lost.
func FuzzWrapped(f *testing.F) {
	f.Add("read \"x\": input/output error")
	f.Add(strings.Repeat("x", 500))
	f.Add(strings.Repeat("x", 77) + " " + strings.Repeat("y", 78) + " z")
	f.Add("\x1b[31m \n\n  ")
	f.Fuzz(func(t *testing.T, text string) {
		got := wrapped(text)
		for line := range strings.Lines(got) {
			if line = strings.TrimSuffix(line, "\n"); len(line) > 80 || !strings.HasPrefix(line, "  ") {
				t.Errorf("%q has the line %q", text, line)
			}
		}
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		if want := squeeze(ascii(text)); squeeze(got) != want {
			t.Errorf("%q became %q", want, got)
		}
	})
}
