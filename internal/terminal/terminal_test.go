package terminal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/terminal"
)

// openTerminal returns a pseudo-terminal, or skips the test.
func openTerminal(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOnlyTerminalsGetColours(t *testing.T) {
	tty := openTerminal(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	fixture.Must(t, err)
	defer file.Close()
	for _, c := range []struct {
		what, noColor, term string
		painted             bool
	}{
		{"a terminal", "", "xterm-256color", true},
		{"NO_COLOR", "1", "xterm", false},
		{"a dumb terminal", "", "dumb", false},
		{"no TERM", "", "", false},
	} {
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		want := "held"
		if c.painted {
			want = "\x1b[31mheld\x1b[0m"
		}
		if got := terminal.NewPainter(tty).Paint("held", terminal.Bad); got != want {
			t.Errorf("%s: got %q, want %q", c.what, got, want)
		}
		for _, p := range []terminal.Painter{{}, terminal.NewPainter(file), terminal.NewPainter(new(bytes.Buffer))} {
			if got := p.Paint("held", terminal.Bad); got != "held" {
				t.Errorf("%s: no terminal got %q", c.what, got)
			}
		}
	}
}

func TestPaintFirstWordsKeepsTheTable(t *testing.T) {
	tty := openTerminal(t)
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	const table = "STATE     HOST\nactive    a\ndisabled  active\n\nactive\nodd"
	colors := map[string]terminal.Color{"active": terminal.Good, "disabled": terminal.Fair}
	const want = "STATE     HOST\n\x1b[32mactive\x1b[0m    a\n\x1b[33mdisabled\x1b[0m  active\n\n\x1b[32mactive\x1b[0m\nodd"
	if got := terminal.NewPainter(tty).PaintFirstWords(table, colors); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (terminal.Painter{}).PaintFirstWords(table, colors); got != table {
		t.Errorf("without colours: got %q", got)
	}
}
