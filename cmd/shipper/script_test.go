package main

import (
	"flag"
	"strings"
	"testing"

	"cis490/internal/scripttest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { scripttest.Main(m, newRootCommand) }

func TestScripts(t *testing.T) { scripttest.Run(t, "shipper", *update) }

func TestStatusShowsUntrustedTextAsASCII(t *testing.T) {
	for _, s := range []string{"esc\x1b[31m", "\xff", "a\nb", "ü\u202e", "\x7f"} {
		if got := asciiText(s); strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("ascii(%q): got %q, want printable ASCII", s, got)
		}
	}
	const printable = `the name "x" stays`
	if got := asciiText(printable); got != printable {
		t.Errorf("ascii: got %s, want %s", got, printable)
	}
}
