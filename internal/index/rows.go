package index

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

// maxLine is the maximum length of a line. It limits the memory for a hostile or broken index.
// Rows of this package are shorter than 1 KiB.
const maxLine = 64 << 10

// A LineError says which line of the index is not a row. Walks continue after it.
type LineError struct {
	Line int64 // counted from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the reason.
func (e *LineError) Unwrap() error { return e.Err }

var errLineTooLong = fmt.Errorf("is longer than %d bytes", maxLine)

// ReadRows yields the rows of an index. Only a newline ends a line. Bytes after the
// last one are a row that is being appended, and are skipped. For a line that is not a row it
// yields a [*LineError] and continues. An error of r ends it.
func ReadRows(r io.Reader) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		n := int64(0)
		for l, err := range linesForward(r) {
			if err != nil {
				yield(Row{}, err)
				return
			}
			n++
			row, err := l.parseRow()
			if err != nil {
				err = &LineError{n, err}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// indexLine is a line of the index that ends with a newline.
type indexLine struct {
	start, end int64  // end is after the newline
	text       []byte // without the newline; valid until the next line; nil if it is too long
}

func (l indexLine) parseRow() (Row, error) {
	if l.text == nil {
		return Row{}, errLineTooLong
	}
	return ParseRow(l.text)
}

// linesForward yields the lines of r, which begins at offset 0.
func linesForward(r io.Reader) iter.Seq2[indexLine, error] {
	return func(yield func(indexLine, error) bool) {
		b := bufio.NewReaderSize(r, maxLine+1)
		pos := int64(0)
		for {
			l := indexLine{start: pos, end: pos}
			text, err := b.ReadSlice('\n')
			l.end += int64(len(text))
			long := errors.Is(err, bufio.ErrBufferFull)
			for errors.Is(err, bufio.ErrBufferFull) {
				text, err = b.ReadSlice('\n')
				l.end += int64(len(text))
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(indexLine{}, fmt.Errorf("read the index: %w", err))
				return
			}
			if !long {
				l.text = text[:len(text)-1]
			}
			pos = l.end
			if !yield(l, nil) {
				return
			}
		}
	}
}

// blockSize is how much linesBackward reads at a time.
const blockSize = 64 << 10

// linesBackward yields the lines of r between the offsets to and from, the last one
// first. It skips a line that begins before to, and bytes after the last newline. It holds one
// block and one line in memory.
func linesBackward(r io.ReaderAt, from, to int64) iter.Seq2[indexLine, error] {
	return func(yield func(indexLine, error) bool) {
		w := partialLine{end: -1}
		buf := make([]byte, blockSize)
		for pos := from; pos > to; {
			n := min(blockSize, pos-to)
			b, err := readBlock(r, buf[:n], pos-n, pos == from)
			if err != nil {
				yield(indexLine{}, err)
				return
			}
			pos -= n
			for {
				i := bytes.LastIndexByte(b, '\n')
				w.prependBytes(b[i+1:])
				if i < 0 {
					break
				}
				if w.end >= 0 && !yield(w.toLine(pos+int64(i)+1), nil) {
					return
				}
				w = partialLine{end: pos + int64(i) + 1, text: w.text[:0]}
				b = b[:i]
			}
		}
		if to == 0 && w.end >= 0 {
			yield(w.toLine(0), nil)
		}
	}
}

// partialLine is the end of a line that was read so far.
type partialLine struct {
	end  int64 // -1 for the bytes after the last newline
	text []byte
	long bool
}

func (w *partialLine) prependBytes(b []byte) {
	if w.long || len(b)+len(w.text) > maxLine {
		w.long, w.text = true, w.text[:0]
		return
	}
	w.text = slices.Insert(w.text, 0, b...)
}

func (w *partialLine) toLine(start int64) indexLine {
	l := indexLine{start: start, end: w.end, text: w.text}
	if w.long {
		l.text = nil
	} else if l.text == nil {
		l.text = []byte{}
	}
	return l
}

// readBlock reads b at off. Only the last block of the file may have become shorter: an append
// that found no space truncates what it wrote.
func readBlock(r io.ReaderAt, b []byte, off int64, last bool) ([]byte, error) {
	n, err := r.ReadAt(b, off)
	if n == len(b) || last && errors.Is(err, io.EOF) {
		return b[:n], nil
	}
	return nil, fmt.Errorf("read the index at %d: %w", off, err)
}
