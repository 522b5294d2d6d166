package storecopy

import (
	"bytes"
	"fmt"
	"io"

	"cis490/internal/episode"
	"cis490/internal/index"
)

// placedRow is a row with its place in the index.
type placedRow struct {
	index.Row
	offset int64
}

// rowError says which line of the index is not a row.
func rowError(from io.ReaderAt, offset int64, err error) error {
	n := int64(1)
	buf := make([]byte, 64<<10)
	for at := int64(0); at < offset; {
		part := buf[:min(int64(len(buf)), offset-at)]
		if _, rerr := from.ReadAt(part, at); rerr != nil {
			return rerr
		}
		n += int64(bytes.Count(part, []byte("\n")))
		at += int64(len(part))
	}
	return fmt.Errorf("line %d of the index is not a row: %w; nothing from there on was copied", n, err)
}

// wholeRows returns how many of the first size bytes of an index are lines with their newline.
func wholeRows(from io.ReaderAt, size int64) (int64, error) {
	tail := make([]byte, min(size, maxBatchText))
	if _, err := from.ReadAt(tail, size-int64(len(tail))); err != nil && err != io.EOF {
		return 0, err
	}
	end := bytes.LastIndexByte(tail, '\n') + 1
	if end == 0 && size > int64(len(tail)) {
		return 0, fmt.Errorf("the last %d bytes of the index are not rows", len(tail))
	}
	return size - int64(len(tail)) + int64(end), nil
}

// readRows returns the rows from an offset on that are copied together, and their text. They are whole,
// and no two of them have the same key: a host that asks for the second one must not get the first. limit is
// where they end at the latest.
func readRows(from io.ReaderAt, offset, limit int64, maxRows, maxText int) ([]placedRow, []byte, error) {
	text := make([]byte, min(limit-offset, int64(maxText)))
	if n, err := from.ReadAt(text, offset); n < len(text) {
		return nil, nil, fmt.Errorf("read the index at %d: %w", offset, err)
	}
	rows, keys, length := []placedRow(nil), make(map[episode.Key]bool), 0
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) || len(rows) == maxRows {
			break
		}
		at := offset + int64(length)
		row, err := index.ParseRow(line)
		if err != nil {
			return nil, nil, rowError(from, at, err)
		}
		if keys[row.Key] {
			break
		}
		keys[row.Key] = true
		rows, length = append(rows, placedRow{row, at}), length+len(line)
	}
	if len(rows) == 0 {
		return nil, nil, rowError(from, offset, fmt.Errorf("it has more than %d bytes", len(text)))
	}
	return rows, text[:length], nil
}

// compareRows returns an error that names the first row of a copy that is not that of the store. text is
// that of the copy from an offset on.
func compareRows(store io.ReaderAt, offset int64, text []byte) error {
	had := make([]byte, len(text))
	n, err := store.ReadAt(had, offset)
	if err != nil && err != io.EOF {
		return err
	}
	return compareTexts(had[:n], text)
}

func compareTexts(store, copied []byte) error {
	if bytes.Equal(store, copied) {
		return nil
	}
	at := 0
	for line := range bytes.Lines(copied) {
		if !bytes.HasPrefix(store[at:], line) {
			break
		}
		at += len(line)
	}
	return &differenceError{line(store[at:]), line(copied[at:])}
}

// line returns the first line of text.
func line(text []byte) string {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	return string(first[:min(len(first), 300)])
}

// A differenceError has the first row in which a store and its copy differ.
type differenceError struct{ store, copied string }

func (e *differenceError) Error() string {
	if e.store == "" {
		return fmt.Sprintf("the copy has the row %q, which the store does not have: it is of another store, or the store's disk was restored from an older image", e.copied)
	}
	return fmt.Sprintf("the copy has the row %q where the store has %q: it is of another store, or the store's disk was restored from an older image", e.copied, e.store)
}
