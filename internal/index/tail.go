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

// maxCut is the largest torn tail that is cut without asking a person. A power
// cut tears a batch of rows; more than this is another kind of damage.
const maxCut = 4 << 20

// appender is the index opened for appending. Every method but open and close
// needs the lock, which other processes may hold in between: a live receiver
// and a backfill share the file.
type appender struct {
	dir    *durable.Dir
	name   string
	log    *durable.Log
	notify func(Notice)
	end    int64     // where the last append of ours ended; -1 if not known
	last   time.Time // of the last row that was written at its arrival
}

// openAppender opens the index in dir, makes it durably if it is missing, and
// mends its tail. notify, unless nil, is called for what a person should know.
func openAppender(dir *durable.Dir, name string, notify func(Notice)) (*appender, error) {
	log, err := dir.OpenLog(name, 0o640)
	if err != nil {
		return nil, err
	}
	if notify == nil {
		notify = func(Notice) {}
	}
	a := &appender{dir: dir, name: name, log: log, notify: notify, end: -1}
	if err := a.locked(a.catchUp); err != nil {
		log.Close()
		return nil, err
	}
	return a, nil
}

func (a *appender) close() error { return a.log.Close() }

// locked calls do while no other process appends.
func (a *appender) locked(do func() error) error {
	if err := a.log.Lock(); err != nil {
		return err
	}
	err := do()
	if unlock := a.log.Unlock(); err == nil {
		return unlock
	}
	return err
}

// append adds lines, which are whole rows, durably. catchUp must have gone before.
func (a *appender) append(lines []byte) error {
	if err := a.log.Append(lines); err != nil {
		return err
	}
	a.end += int64(len(lines)) // after a failure catchUp sees another size and looks
	return nil
}

// catchUp brings end and last up to date with what other processes appended. A last row
// that lacks only its newline gets it; a torn tail, which a killed process or a power cut
// left, is cut.
func (a *appender) catchUp() error {
	size, err := a.log.Size()
	if err != nil || size == a.end {
		return err
	}
	if size < a.end {
		a.log.NoteTruncated(size)
		a.notify(Notice{Kind: Shortened, Path: a.dir.Path(a.name), Bytes: a.end - size})
	}
	if size, err = a.completeRow(size); err != nil {
		return fmt.Errorf("complete the last row of %s: %w", a.dir.Path(a.name), err)
	}
	end, last, err := readTail(a.log, size)
	if err != nil {
		return fmt.Errorf("%s: %w", a.dir.Path(a.name), err)
	}
	if end < size {
		if err := a.cut(end, size); err != nil {
			return fmt.Errorf("cut the torn tail of %s: %w", a.dir.Path(a.name), err)
		}
	}
	a.end = end
	if !last.IsZero() {
		a.last = last
	}
	return nil
}

// completeRow appends the newline that the last row lacks, if that is all it lacks, and
// returns the size of the index then. A closing brace ends a row: nothing tore it.
func (a *appender) completeRow(size int64) (int64, error) {
	b := make([]byte, min(size, maxLine+1))
	if _, err := a.log.ReadAt(b, size-int64(len(b))); err != nil {
		return size, err
	}
	last := b[bytes.LastIndexByte(b, '\n')+1:]
	if len(last) > maxLine || !whole(last) {
		return size, nil
	}
	if err := a.log.CheckSoleAppender(); err != nil { // an older program may be writing it
		return size, err
	}
	if err := a.log.Append([]byte{'\n'}); err != nil {
		return size, err
	}
	a.notify(Notice{Kind: Completed, Path: a.dir.Path(a.name), Bytes: 1})
	return size + 1, nil
}

// cut saves the bytes from end to size in a file of their own and then cuts
// them off. A crash in between leaves the tail as it was, and a copy.
func (a *appender) cut(end, size int64) error {
	if err := a.log.CheckSoleAppender(); err != nil { // before a copy is saved, which each attempt would do
		return err
	}
	torn := stem(a.name) + tornMark
	temp := "." + torn + "tmp"
	if err := a.dir.Unlink(temp); err != nil { // left by a crash
		return err
	}
	f, err := a.dir.Create(temp, 0o640)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(a.log, end, size-end)); err != nil {
		return errors.Join(err, f.Discard())
	}
	saved := torn + time.Now().UTC().Format("20060102T150405.000000000Z")
	if err := f.Commit(saved); err != nil {
		return err
	}
	if err := a.log.Truncate(end); err != nil {
		return err
	}
	a.notify(Notice{Kind: TailCut, Path: a.dir.Path(a.name), Bytes: size - end, Saved: a.dir.Path(saved)})
	return nil
}

var errTail = fmt.Errorf("nothing in its last %d MiB is a row: this is more than a power cut tears; "+
	"move the file aside, keep what is good of it as the new one, and run `receiver index backfill` for the rest", maxCut>>20)

// readTail returns where the last good line ends, and the time of the last row
// that was written at its arrival (zero if the tail has none). It reads no more
// than the tail that could be cut, whatever the size.
func readTail(r io.ReaderAt, size int64) (end int64, last time.Time, err error) {
	to := max(0, size-maxCut-maxLine)
	end = -1
	for l, err := range backward(r, size, to) {
		if err != nil {
			return 0, time.Time{}, err
		}
		row, err := l.row()
		if end < 0 && (err == nil || whole(l.text)) {
			end = l.end
		}
		// A backfilled row tells the time of a file, not of our clock.
		if err == nil && !row.Backfilled {
			last = row.ReceivedAt
			break
		}
	}
	end = max(end, 0)
	if size-end > maxCut {
		return 0, time.Time{}, errTail
	}
	return end, last, nil
}

// whole reports whether a line is a JSON object, though perhaps no row of ours:
// nothing tore it, and a newer version may have written it. Verify reports it.
func whole(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) && json.Valid(text)
}
