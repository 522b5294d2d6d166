package index

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"cis490/internal/durable"
)

// maxCut is the maximum size of a torn tail that is cut automatically. A power loss tears a
// batch of rows. More than this is another kind of damage.
const maxCut = 4 << 20

// Writer appends rows to an index that other processes may append to as well: a live
// receiver and a backfill share the file. It must be used by one goroutine.
type Writer struct {
	dir         *durable.Dir
	name        string
	log         *durable.Log
	notify      func(TailNotice)
	end         int64     // of the rows that this Writer knows; -1 if not known
	lastArrival time.Time // of the last row that was appended at its arrival
}

// OpenWriter opens the index called name in dir, creates it durably if it is missing, and
// repairs its tail. notify, unless nil, is called for each repair. dir must stay open until
// [Writer.Close].
func OpenWriter(dir *durable.Dir, name string, notify func(TailNotice)) (*Writer, error) {
	log, err := dir.OpenLog(name, 0o640)
	if err != nil {
		return nil, err
	}
	if notify == nil {
		notify = func(TailNotice) {}
	}
	w := &Writer{dir: dir, name: name, log: log, notify: notify, end: -1}
	if err := w.withLock(w.catchUp); err != nil {
		log.Close()
		return nil, err
	}
	return w, nil
}

// Close closes the index.
func (w *Writer) Close() error { return w.log.Close() }

// Update appends the rows that choose returns, with one durable write. No other process
// appends meanwhile, and choose may read the index.
func (w *Writer) Update(choose func(index io.ReaderAt) ([]Row, error)) error {
	return w.withLock(func() error {
		if err := w.catchUp(); err != nil {
			return err
		}
		rows, err := choose(w.log)
		if err != nil || len(rows) == 0 {
			return err
		}
		var lines []byte
		for _, r := range rows {
			lines = r.Append(lines)
		}
		if err := w.log.Append(lines); err != nil {
			return err
		}
		w.end += int64(len(lines)) // after a failure catchUp sees another size and looks
		return nil
	})
}

// withLock calls do while no other process appends.
func (w *Writer) withLock(do func() error) error {
	if err := w.log.Lock(); err != nil {
		return err
	}
	err := do()
	if unlock := w.log.Unlock(); err == nil {
		return unlock
	}
	return err
}

// catchUp sets end and lastArrival after other processes have appended. A last row that
// lacks only its newline gets it. A torn tail, which a killed process or a power loss left,
// is cut. The caller must hold the lock.
func (w *Writer) catchUp() error {
	size, err := w.log.Size()
	if err != nil || size == w.end {
		return err
	}
	if size < w.end {
		w.log.NoteTruncated(size)
		w.notify(TailNotice{Kind: Shortened, Path: w.dir.Path(w.name), Bytes: w.end - size})
	}
	if size, err = w.completeRow(size); err != nil {
		return fmt.Errorf("complete the last row of %s: %w", w.dir.Path(w.name), err)
	}
	end, last, err := readTail(w.log, size)
	if err != nil {
		return fmt.Errorf("%s: %w", w.dir.Path(w.name), err)
	}
	if end < size {
		if err := w.cutTail(end, size); err != nil {
			return fmt.Errorf("cut the torn tail of %s: %w", w.dir.Path(w.name), err)
		}
	}
	w.end = end
	if !last.IsZero() {
		w.lastArrival = last
	}
	return nil
}

// completeRow appends the newline that the last row lacks, if that is all it lacks, and
// returns the size of the index then. A row with its closing brace is not torn.
func (w *Writer) completeRow(size int64) (int64, error) {
	b := make([]byte, min(size, maxLine+1))
	if _, err := w.log.ReadAt(b, size-int64(len(b))); err != nil {
		return size, err
	}
	last := b[bytes.LastIndexByte(b, '\n')+1:]
	if len(last) > maxLine || !isObject(last) {
		return size, nil
	}
	if err := w.log.CheckSoleAppender(); err != nil { // an older program may be writing it
		return size, err
	}
	if err := w.log.Append([]byte{'\n'}); err != nil {
		return size, err
	}
	w.notify(TailNotice{Kind: Completed, Path: w.dir.Path(w.name), Bytes: 1})
	return size + 1, nil
}

// cutTail saves the bytes from end to size in a file of their own and then truncates the
// index. A crash in between leaves the tail as it was, and a copy.
func (w *Writer) cutTail(end, size int64) error {
	if err := w.log.CheckSoleAppender(); err != nil { // before a copy is saved, which each attempt would do
		return err
	}
	torn := baseName(w.name) + tornInfix
	temp := "." + torn + "tmp"
	if err := w.dir.Unlink(temp); err != nil { // left by a crash
		return err
	}
	f, err := w.dir.Create(temp, 0o640)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(w.log, end, size-end)); err != nil {
		return errors.Join(err, f.Discard())
	}
	saved := torn + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := f.Commit(saved); err != nil {
		return err
	}
	if err := w.log.Truncate(end); err != nil {
		return err
	}
	w.notify(TailNotice{Kind: TailCut, Path: w.dir.Path(w.name), Bytes: size - end, Saved: w.dir.Path(saved)})
	return nil
}

var errTailTooLarge = fmt.Errorf("nothing in its last %d MiB is a row: this is more than a power cut tears; "+
	"move the file aside, keep what is good of it as the new one, and run `receiver index backfill` for the rest", maxCut>>20)

// readTail returns where the last good line ends, and the time of the last row that was
// appended at its arrival (zero if the tail has none). It reads no more than the tail that
// could be cut.
func readTail(r io.ReaderAt, size int64) (end int64, last time.Time, err error) {
	to := max(0, size-maxCut-maxLine)
	end = -1
	for l, err := range linesBackward(r, size, to) {
		if err != nil {
			return 0, time.Time{}, err
		}
		row, err := l.parseRow()
		if end < 0 && (err == nil || isObject(l.text)) {
			end = l.end
		}
		// The time of a backfilled row is that of a file, not of the clock.
		if err == nil && !row.Backfilled {
			last = row.ReceivedAt
			break
		}
	}
	end = max(end, 0)
	if size-end > maxCut {
		return 0, time.Time{}, errTailTooLarge
	}
	return end, last, nil
}

// isObject reports whether a line is a JSON object. If it is not a row, it is not torn
// either: a newer version may have written it. Package fsck reports it.
func isObject(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) && json.Valid(text)
}
