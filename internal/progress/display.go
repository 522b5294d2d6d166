package progress

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// refreshInterval is the time between two refreshes.
const refreshInterval = 200 * time.Millisecond

// minRedraw is the minimum time between two redraws of the rows with lines that are written above them.
// During a flood of lines, only refreshes draw the rows.
const minRedraw = 20 * time.Millisecond

// stopTimeout bounds how long [Display.Stop] waits for a terminal that does not accept output.
const stopTimeout = time.Second

// Display shows progress at the bottom of a terminal. The zero value shows nothing.
type Display struct {
	terminal *os.File // nil: nothing is shown
	stop     chan struct{}
	ended    chan struct{} // closed once nothing more is drawn

	mu      sync.Mutex // guards the fields below, and is held during each write to the terminal
	active  bool
	midLine bool      // the last line above is unfinished, so no rows may follow
	rows    []string  // as last drawn
	shown   int       // how many rows are on the terminal now, directly above the cursor
	drawnAt time.Time // when rows were last written
}

// NewDisplay returns a display on w. It shows nothing unless w is a terminal that can move its
// cursor.
func NewDisplay(w io.Writer) *Display {
	f, ok := w.(*os.File)
	name := os.Getenv("TERM")
	if !ok || name == "" || name == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return &Display{}
	}
	return &Display{terminal: f}
}

// Visible reports whether the display shows anything.
func (d *Display) Visible() bool { return d.terminal != nil }

// Above returns a writer that prints lines above the rows of progress if w is the same terminal.
// Otherwise it returns w.
func (d *Display) Above(w io.Writer) io.Writer {
	if !d.IsOn(w) {
		return w
	}
	return lineWriter{d, w}
}

// IsOn reports whether w is the terminal of the display.
func (d *Display) IsOn(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || d.terminal == nil {
		return false
	}
	var own, other unix.Stat_t
	return unix.Fstat(int(d.terminal.Fd()), &own) == nil && unix.Fstat(int(f.Fd()), &other) == nil &&
		own.Dev == other.Dev && own.Ino == other.Ino
}

// Start shows what poll returns until [Display.Stop] is called. The display calls poll a few times
// per second from a goroutine of its own. Start must be called at most once.
func (d *Display) Start(poll func() Status) {
	if d.terminal == nil {
		return
	}
	d.stop, d.ended = make(chan struct{}), make(chan struct{})
	d.mu.Lock()
	d.active = true
	d.mu.Unlock()
	go d.run(poll)
}

// Stop removes the rows. Later lines are printed as without a display. It may be called more than
// once, and without Start.
func (d *Display) Stop() {
	if d.stop == nil {
		return
	}
	select {
	case <-d.stop:
	default:
		close(d.stop)
	}
	select {
	case <-d.ended:
	case <-time.After(stopTimeout):
	}
}

func (d *Display) run(poll func() Status) {
	defer close(d.ended)
	var l layout
	tick := time.NewTicker(refreshInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			width, height := d.size()
			d.draw(l.rows(poll(), now, width, height), now)
		case <-d.stop:
			d.mu.Lock()
			defer d.mu.Unlock()
			d.active = false
			if !d.inForeground() {
				return
			}
			d.terminal.Write(d.erase()) // an error of the terminal must not fail the command
			return
		}
	}
}

// size returns the size of the terminal. A serial line reports no size.
func (d *Display) size() (width, height int) {
	width, height, err := term.GetSize(int(d.terminal.Fd()))
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

// draw replaces the rows on the terminal.
func (d *Display) draw(rows []string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.active || d.midLine || d.shown == len(rows) && slices.Equal(d.rows, rows) {
		return
	}
	if !d.inForeground() { // another program has the terminal, and may have written above the cursor
		d.shown = 0
		return
	}
	text := d.erase()
	d.rows = rows
	d.terminal.Write(d.appendRows(text, now)) // an error of the terminal must not fail the command
}

// inForeground reports whether this process is in the foreground job of the terminal. After ^Z, or if this
// is a background job, it is not. A terminal that is not the controlling one has no jobs.
func (d *Display) inForeground() bool {
	group, err := unix.IoctlGetInt(int(d.terminal.Fd()), unix.TIOCGPGRP)
	return err != nil || group == 0 || group == unix.Getpgrp()
}

// erase returns the control sequence that removes the rows from the terminal. The cursor may be anywhere on the line
// below them, because the terminal echoes what is typed, such as ^C. The caller must hold d.mu.
func (d *Display) erase() []byte {
	if d.shown == 0 {
		return nil
	}
	text := fmt.Appendf(nil, "\r\x1b[%dA\x1b[J", d.shown)
	d.shown = 0
	return text
}

// appendRows appends the rows to what is written next. The caller must hold d.mu.
func (d *Display) appendRows(text []byte, now time.Time) []byte {
	for _, row := range d.rows {
		text = append(append(text, row...), '\n')
	}
	d.shown, d.drawnAt = len(d.rows), now
	return text
}

// lineWriter writes above the rows of a display.
type lineWriter struct {
	d *Display
	w io.Writer // the same terminal
}

// Write writes p above the rows.
func (l lineWriter) Write(p []byte) (int, error) {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.active || len(p) == 0 {
		return l.w.Write(p)
	}
	if !d.inForeground() {
		d.shown = 0
		return l.w.Write(p)
	}
	text := append(d.erase(), p...)
	d.midLine = p[len(p)-1] != '\n'
	if now := time.Now(); !d.midLine && now.Sub(d.drawnAt) >= minRedraw {
		text = d.appendRows(text, now)
	}
	if _, err := l.w.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}
