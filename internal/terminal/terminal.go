// Package terminal colours status words for people at a terminal.
//
// Invariant: a colour only repeats what a word says, and anything but a terminal gets the plain
// text. Only constants of this package are control sequences: untrusted text must be escaped (see
// package printable) before it is coloured.
package terminal

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Color is how a state looks.
type Color int

// The colours, by what a state means to an operator.
const (
	Plain Color = iota
	Good        // nothing to do
	Fair        // worth a look
	Bad         // requires an operator
	Faint       // seldom of interest
)

// sequences are the control sequences of ECMA-48 that begin a colour.
var sequences = [...]string{Good: "\x1b[32m", Fair: "\x1b[33m", Bad: "\x1b[31m", Faint: "\x1b[2m"}

const reset = "\x1b[0m"

// Painter colours text. The zero value leaves it as it is.
type Painter struct{ on bool }

// NewPainter returns a painter for what is written to w. It colours if w is a terminal and the
// environment allows it: NO_COLOR (see no-color.org) is empty, and TERM names a terminal that is not
// "dumb".
func NewPainter(w io.Writer) Painter {
	kind := os.Getenv("TERM")
	return Painter{on: IsTerminal(w) && os.Getenv("NO_COLOR") == "" && kind != "" && kind != "dumb"}
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Paint returns text in a colour. In a table only the last cell of a row may be painted before the
// columns are aligned, because control sequences count towards the width of a column.
func (p Painter) Paint(text string, c Color) string {
	if !p.on || c == Plain || text == "" {
		return text
	}
	return sequences[c] + text + reset
}

// PaintFirstWords colours the first word of each line of an aligned table, if colors has it. The
// first words must be trusted.
func (p Painter) PaintFirstWords(table string, colors map[string]Color) string {
	if !p.on {
		return table
	}
	var b strings.Builder
	for line := range strings.Lines(table) {
		word := line
		if end := strings.IndexAny(line, " \n"); end >= 0 {
			word = line[:end]
		}
		b.WriteString(p.Paint(word, colors[word]) + line[len(word):])
	}
	return b.String()
}
