package index

import (
	"io"
	"iter"
)

// PlacedRow is a row and the offsets of its line.
type PlacedRow struct {
	Row
	Start, End int64
}

// RowsBackward yields the rows of an index between the offsets to and from, the last one first. It
// skips a line that begins before to, bytes after the last newline, and lines that are not rows,
// which 'receiver index verify' reports. It ends at an error of r. It holds one block and one line
// in memory, and another process may append at the same time.
func RowsBackward(r io.ReaderAt, from, to int64) iter.Seq2[PlacedRow, error] {
	return placedRows(linesBackward(r, from, to), 0)
}

// RowsBetween yields the rows of an index between two offsets, in order. A line must begin at from.
// It skips what [RowsBackward] skips.
func RowsBetween(r io.ReaderAt, from, to int64) iter.Seq2[PlacedRow, error] {
	return placedRows(linesForward(io.NewSectionReader(r, from, to-from)), from)
}

// placedRows yields the rows among lines whose offsets are relative to base.
func placedRows(lines iter.Seq2[indexLine, error], base int64) iter.Seq2[PlacedRow, error] {
	return func(yield func(PlacedRow, error) bool) {
		for l, err := range lines {
			if err != nil {
				yield(PlacedRow{}, err)
				return
			}
			row, err := l.parseRow()
			if err != nil {
				continue
			}
			if !yield(PlacedRow{row, base + l.start, base + l.end}, nil) {
				return
			}
		}
	}
}
