// Package index keeps index.jsonl: one row for each stored episode, in the
// order of arrival, for people who read it with pandas, jq or DuckDB.
//
// A line is a row as Python's json.dumps(row, sort_keys=True) writes it
// ([Row.Append]); lines end with 0x0A, and what stands behind the last newline
// is not a row yet. [Rows] reads the rows. [Log] is the receiver's end of the
// file: a row that [Log.Append] returned is on the disk. [Backfill] makes the
// rows that are missing, beside a live receiver, and [Verify] compares rows
// and files both ways. Memory does not grow with the file, and nothing but
// those two reads all of it.
//
// The law: the index grows by whole rows under the lock of the file, and what
// is no whole row at its end is saved aside before it is cut.
package index

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// maxClockJump is how far the last row may lie ahead of a clock that is believed. A
// Raspberry Pi without a battery starts in the past and is set right later; a
// row from further ahead was written by a clock that was wrong.
const maxClockJump = 24 * time.Hour

// maxBatch bounds the rows of one write.
const maxBatch = 1024

// Log is the index opened for appending. It must be closed. Its methods are
// safe for concurrent use.
//
// One goroutine appends: it takes all rows that came while the disk was busy
// with the last ones, so that many uploads share one fdatasync.
type Log struct {
	w          *Writer // owned by the committer, except for log.Size, log.Synced and log.ReadAt
	requests   chan appendRequest
	pings      chan struct{}
	tailChecks chan struct{} // holds a value if the end of the index must be looked at
	stop       chan struct{} // closed by Close
	stopped    chan struct{} // closed by the committer
	close      func() error

	mu      sync.Mutex // guards the fields below
	last    time.Time
	commits int64
}

// appendRequest is a row that waits, unbuffered until the committer takes it: a
// caller who gives up before that has written nothing.
type appendRequest struct {
	row   Row
	since int64 // where to look whether another process has written the row, or unconditional
	reply chan<- appendReply
}

// unconditional is the since of a row that is written whatever the index has.
const unconditional = -1

type appendReply struct {
	row Row
	err error
}

// Open opens the index called name in dir and makes it, durably, if it is
// missing. A torn tail is saved in a file beside it and cut. Open reads the
// tail only. notify, unless nil, is called for what a person should know, now and
// later, from one goroutine at a time. dir must stay open as long as the log.
func Open(dir *durable.Dir, name string, notify func(Notice)) (*Log, error) {
	w, err := OpenWriter(dir, name, notify)
	if err != nil {
		return nil, err
	}
	l := &Log{
		w:          w,
		requests:   make(chan appendRequest),
		pings:      make(chan struct{}),
		tailChecks: make(chan struct{}, 1),
		stop:       make(chan struct{}),
		stopped:    make(chan struct{}),
		last:       w.lastArrival,
	}
	l.close = sync.OnceValue(func() error {
		close(l.stop)
		<-l.stopped
		return w.Close()
	})
	go l.run()
	return l, nil
}

// Close ends the log after the batch that is being written. Rows that nobody
// took by then get an error wrapping [fs.ErrClosed].
func (l *Log) Close() error { return l.close() }

// Append makes r durable and returns it as it was written: its time does not go
// backwards against the last row's, unless that lies more than a day ahead (a
// backfilled row keeps its time).
//
// A caller whose ctx ends first does not know whether the row was written. An
// error for which errors.Is(err, [syscall.ENOSPC]) holds leaves the index as it
// was; after a [durable.ErrFault] every later Append returns it again.
func (l *Log) Append(ctx context.Context, r Row) (Row, error) {
	return l.submit(ctx, appendRequest{row: r, since: unconditional})
}

// Ensure makes sure that the last row of r's key says the same sha256 and size
// as r, and returns it. If it does not, r is appended as by [Log.Append], marked
// as repaired if it supersedes one. Another process may append meanwhile.
func (l *Log) Ensure(ctx context.Context, r Row) (Row, error) {
	found, err := l.FindAll(ctx, r.Key())
	if err != nil {
		return Row{}, err
	}
	return l.EnsureAfter(ctx, r, found)
}

// EnsureAfter is [Log.Ensure] after a search that included r's key.
func (l *Log) EnsureAfter(ctx context.Context, r Row, found SearchResult) (Row, error) {
	last, exists := found.Last(r.Key())
	if exists && last.sameArchive(r) {
		return last, nil
	}
	r.Repaired = exists
	return l.submit(ctx, appendRequest{row: r, since: found.size})
}

func (l *Log) submit(ctx context.Context, req appendRequest) (Row, error) {
	req.row.ReceivedAt = req.row.ReceivedAt.UTC().Truncate(time.Microsecond)
	if err := req.row.Validate(); err != nil {
		return Row{}, fmt.Errorf("append a row to the index: %w", err)
	}
	done := make(chan appendReply, 1)
	req.reply = done
	select {
	case l.requests <- req:
	case <-ctx.Done():
		return Row{}, ctx.Err()
	case <-l.stopped:
		return Row{}, fmt.Errorf("append a row to the index: %w", fs.ErrClosed)
	}
	select {
	case result := <-done:
		return result.row, result.err
	case <-ctx.Done():
		return Row{}, ctx.Err()
	}
}

// Now returns the time that a row of now would get.
func (l *Log) Now(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return notBefore(now, l.last)
}

// Commits returns how many batches were made durable, for a metric: rows a
// batch show how well uploads share the disk's syncs.
func (l *Log) Commits() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

// DurableBytes returns the length of the rows that are on the disk. It has those of each
// Append and Ensure that has returned.
func (l *Log) DurableBytes() int64 { return l.w.log.Synced() }

// tailBytes is how much of the index [Log.TailHash] looks at: about two rows, which have the
// time of their arrival and the sha256 of an archive in them.
const tailBytes = 512

// TailHash returns what stands for the bytes of the index before an offset, or "" if so many
// are not on the disk. Rows that were appended in the place of others give another one.
func (l *Log) TailHash(end int64) (string, error) {
	if end < 0 || end > l.DurableBytes() {
		return "", nil
	}
	b := make([]byte, min(end, tailBytes))
	n, err := l.w.log.ReadAt(b, end-int64(len(b)))
	if n < len(b) && errors.Is(err, io.EOF) { // somebody has truncated it
		l.requestTailCheck()
		return "", nil
	}
	if n < len(b) {
		return "", fmt.Errorf("read the index at %d: %w", end, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16]), nil
}

// requestTailCheck has the committer look at the end of the index, which somebody else has
// changed, before the next row.
func (l *Log) requestTailCheck() {
	select {
	case l.tailChecks <- struct{}{}:
	default: // it is about to
	}
}

// Alive reports whether the committer takes requests before ctx ends. While
// the disk is busy it waits.
func (l *Log) Alive(ctx context.Context) bool {
	select {
	case l.pings <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-l.stopped:
	}
	return false
}

// Find returns the last row of key, or false if there is none. See [Log.FindAll] for
// what it costs.
func (l *Log) Find(ctx context.Context, key episode.Key) (Row, bool, error) {
	found, err := l.FindAll(ctx, key)
	row, ok := found.Last(key)
	return row, ok, err
}

// FindAll returns the last rows of keys. It reads from the end, so that what arrived
// lately is found at once; an unknown key costs a read of the whole index, in bounded
// memory, however many other keys are looked for with it.
func (l *Log) FindAll(ctx context.Context, keys ...episode.Key) (SearchResult, error) {
	size, err := l.w.log.Size()
	if err != nil {
		return SearchResult{}, err
	}
	return findAll(ctx, l.w.log, size, keys)
}

// run is the committer.
func (l *Log) run() {
	defer close(l.stopped)
	var fault error // the first one: nothing is acknowledged after it
	for {
		select {
		case <-l.stop:
			return
		case <-l.pings:
		case <-l.tailChecks:
			l.w.withLock(l.w.catchUp) // the next row meets the same error
		case first := <-l.requests:
			fault = l.commitAndReply(l.collectBatch(first), fault)
		}
	}
}

// commitAndReply commits a batch, answers those who wait for it and returns the fault
// that is known by then.
func (l *Log) commitAndReply(batch []appendRequest, fault error) error {
	rows, err := make([]Row, len(batch)), fault
	if fault == nil {
		err = l.commit(batch, rows)
	}
	for i, r := range batch {
		if err != nil {
			r.reply <- appendReply{err: err}
			continue
		}
		r.reply <- appendReply{row: rows[i]}
	}
	if errors.Is(err, durable.ErrFault) {
		return err
	}
	return nil
}

// collectBatch takes what waits beside first.
func (l *Log) collectBatch(first appendRequest) []appendRequest {
	batch := []appendRequest{first}
	for len(batch) < maxBatch {
		select {
		case r := <-l.requests:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit writes a batch with one write and one fdatasync, and says in rows what
// it wrote.
func (l *Log) commit(batch []appendRequest, rows []Row) error {
	last := time.Time{}
	err := l.w.Update(func(io.ReaderAt) ([]Row, error) {
		last = l.w.lastArrival
		var missing []Row
		for i, r := range batch {
			rows[i] = r.row
			appended, err := l.alreadyAppended(&rows[i], r.since)
			if err != nil {
				return nil, err
			}
			if appended {
				continue
			}
			if !r.row.Backfilled {
				rows[i].ReceivedAt = notBefore(r.row.ReceivedAt, last)
				last = rows[i].ReceivedAt
			}
			missing = append(missing, rows[i])
		}
		return missing, nil
	})
	if err != nil {
		return fmt.Errorf("append %d rows to the index: %w", len(batch), err)
	}
	l.w.lastArrival = last
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.commits = last, l.commits+1
	return nil
}

// alreadyAppended reports whether another process has appended a row like r after the offset
// since, and sets r to that row. If the row of r's key is another one, r supersedes it. The
// caller must hold the lock of the index.
func (l *Log) alreadyAppended(r *Row, since int64) (bool, error) {
	if since == unconditional || since >= l.w.end {
		return false, nil
	}
	appended := false
	for row, err := range Rows(io.NewSectionReader(l.w.log, since, l.w.end-since)) {
		if _, bad := errors.AsType[*LineError](err); bad || err == nil && row.Key() != r.Key() {
			continue
		}
		if err != nil {
			return false, err
		}
		if appended = row.sameArchive(*r); appended {
			*r = row
			continue
		}
		r.Repaired = true
	}
	return appended, nil
}

// notBefore returns now, or last if now lies before it by no more than a maxClockJump.
func notBefore(now, last time.Time) time.Time {
	if now.Before(last) && last.Sub(now) <= maxClockJump {
		return last
	}
	return now
}
