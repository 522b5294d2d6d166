package progress

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

// startDisplay returns a display that runs on a terminal, with rows on the screen.
func startDisplay(t *testing.T, term *fixture.Terminal, poll func() Status) *Display {
	t.Helper()
	t.Setenv("TERM", "xterm")
	d := NewDisplay(term.File)
	d.Start(poll)
	t.Cleanup(d.Stop)
	term.WaitFor(t, "progress", func(screen string) bool { return strings.Contains(screen, poll().What) })
	return d
}

func twoTransfers() Status {
	return Status{What: "episodes", Items: 1, TotalItems: 4, Transfers: []Transfer{
		{Name: "run-1", State: "sending", Bytes: 1, Size: 2}, {Name: "esc\x1b[2J", State: "packing", Bytes: 5},
	}}
}

const twoRows = `episodes 1/4  [######..................]  25%
  run-1       sending  1 B/2 B
  esc\x1b[2J  packing  5 B
`

func TestLinesStayWholeAboveTheRows(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	d := startDisplay(t, term, twoTransfers)
	var writers sync.WaitGroup
	want := map[string]bool{}
	for w := range 4 {
		for i := range 50 {
			want[fmt.Sprintf("line %d of writer %d", i, w)] = true
		}
		writers.Go(func() {
			to := d.Above(term.File)
			for i := range 50 {
				fmt.Fprintf(to, "line %d of writer %d\n", i, w)
			}
		})
	}
	writers.Wait()
	screen := term.WaitFor(t, "the rows below all lines", func(screen string) bool {
		return strings.HasSuffix(screen, twoRows) && strings.Count(screen, "\n") >= 200+strings.Count(twoRows, "\n")
	})
	for line := range strings.Lines(strings.TrimSuffix(screen, twoRows)) {
		line = strings.TrimSuffix(line, "\n")
		if !want[line] {
			t.Errorf("the screen has %q", line)
		}
		delete(want, line)
	}
	if len(want) > 0 {
		t.Errorf("%d lines are not on the screen", len(want))
	}
}

// What is typed is echoed below the rows.
func TestStopLeavesNothing(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	d := startDisplay(t, term, twoTransfers)
	term.Type(t, "ab")
	term.WaitFor(t, "the echo", func(screen string) bool { return strings.HasSuffix(screen, "ab\n") })
	d.Stop()
	d.Stop()
	d.mu.Lock()
	d.drawnAt = time.Time{} // rows would be due
	d.mu.Unlock()
	fmt.Fprintln(d.Above(term.File), "shipper: interrupted")
	term.WaitFor(t, "only the error", func(screen string) bool { return screen == "shipper: interrupted\n" })
}

// A line that is written in parts is not torn by the rows.
func TestUnfinishedLineHidesTheRows(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	d := startDisplay(t, term, twoTransfers)
	out := d.Above(term.File)
	io.WriteString(out, "half a ")
	d.draw([]string{"other rows"}, time.Now())
	term.WaitFor(t, "half a line", func(screen string) bool { return screen == "half a\n" })
	io.WriteString(out, "line\n")
	term.WaitFor(t, "all of it", func(screen string) bool { return screen == "half a line\n"+twoRows })
}

func TestRowsFollowTheWidth(t *testing.T) {
	term := fixture.NewTerminal(t, 40, 24)
	startDisplay(t, term, twoTransfers)
	term.WaitFor(t, "narrow rows", func(screen string) bool {
		return strings.HasPrefix(screen, "episodes 1/4  [####..............]  25%\n")
	})
	term.Resize(t, 80, 24)
	term.WaitFor(t, "wide rows", func(screen string) bool { return screen == twoRows })
	term.Resize(t, 20, 24)
	term.WaitFor(t, "narrower rows", func(screen string) bool {
		return strings.HasSuffix(screen, "episodes 1/4  25%\n  run-1       se...\n  esc\\x1b[2J  pa...\n")
	})
}

// A serial console reports no size.
func TestUnknownSizeCountsAs80Columns(t *testing.T) {
	term := fixture.NewTerminal(t, 0, 0)
	t.Setenv("TERM", "linux")
	d := NewDisplay(term.File)
	if width, height := d.size(); width != 80 || height != 24 {
		t.Errorf("size: got %dx%d, want 80x24", width, height)
	}
}

func TestNothingIsShownWithoutATerminal(t *testing.T) {
	r, w, err := os.Pipe()
	fixture.Must(t, err)
	defer r.Close()
	term := fixture.NewTerminal(t, 80, 24)
	for _, c := range []struct {
		name, term string
		to         io.Writer
	}{
		{"a pipe", "xterm", w}, {"a buffer", "xterm", &bytes.Buffer{}}, {"a dumb terminal", "dumb", term.File}, {"an unknown terminal", "", term.File},
	} {
		t.Setenv("TERM", c.term)
		d := NewDisplay(c.to)
		if d.Visible() || d.Above(c.to) != c.to {
			t.Errorf("%s counts as a terminal with a cursor", c.name)
		}
		d.Start(func() Status { t.Error("it is polled"); return Status{} })
		d.Stop()
	}
	t.Setenv("TERM", "xterm")
	d := NewDisplay(term.File)
	if d.Above(w) != w {
		t.Error("a pipe beside a terminal gets the control sequences of the terminal")
	}
	if other := fixture.NewTerminal(t, 80, 24); d.Above(other.File) != other.File {
		t.Error("another terminal gets the control sequences of this one")
	}
	if !d.Visible() || d.Above(term.File) == term.File {
		t.Error("a terminal does not count as one")
	}
}

// A terminal that was stopped by ^S, or a line that is dead, must not keep a command from ending.
func TestStopDoesNotWaitForAStoppedTerminal(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	d := startDisplay(t, term, twoTransfers)
	flow := func(action int) { fixture.Must(t, unix.IoctlSetInt(int(term.File.Fd()), unix.TCXONC, action)) }
	flow(unix.TCOOFF)
	ended := make(chan struct{})
	go func() { d.Stop(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("it waits")
	}
	flow(unix.TCOON)
	<-d.ended
}

// What cannot be written is an error for the writer, as without a display.
func TestErrorOfTheTerminalIsReturned(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	d := startDisplay(t, term, twoTransfers)
	broken, err := os.Open(os.DevNull)
	fixture.Must(t, err)
	defer broken.Close()
	if _, err := fmt.Fprintln(lineWriter{d, broken}, "a line"); err == nil {
		t.Error("there was no error")
	}
}

// A flood of lines is not multiplied by the rows below each of them.
func TestRowsAreNotDrawnForEachLineOfAFlood(t *testing.T) {
	term := fixture.NewTerminal(t, 80, 24)
	begun := time.Now()
	d := startDisplay(t, term, twoTransfers)
	for i := range 5000 {
		fmt.Fprintln(d.Above(term.File), "line", i)
	}
	d.Stop()
	elapsed := time.Since(begun)
	most := int(elapsed/minRedraw) + int(elapsed/refreshInterval) + 2
	term.WaitFor(t, "the last line", func(screen string) bool { return strings.HasSuffix(screen, "line 4999\n") })
	if n := strings.Count(term.Output(), "episodes 1/4"); n > most {
		t.Errorf("the rows were drawn %d times, want at most %d", n, most)
	}
}
