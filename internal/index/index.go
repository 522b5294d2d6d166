// Package index reads and appends to index.jsonl, which has one row per stored episode, in the
// order of arrival, for readers with pandas, jq or DuckDB.
//
// A line is a row as Python's json.dumps(row, sort_keys=True) writes it ([Row.Append]). Lines
// end with 0x0A, and bytes after the last newline are not a row yet. [ReadRows] reads the rows.
// [Log] appends rows for the receiver: a row that [Log.Append] has returned is durable.
// [Writer] appends for other processes. Memory does not grow with the file.
//
// Invariant: the index grows only by whole rows, under the lock of the file. Part of a row at its
// end is saved in another file before it is cut off.
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

// maxClockJump is how far the last row may be ahead of the clock. A Raspberry Pi without a
// battery starts in the past and is set later. If a row is further ahead, the clock was wrong
// when it was written.
const maxClockJump = 24 * time.Hour

// maxBatch is the maximum number of rows of one write.
const maxBatch = 1024

// Log appends rows to the index for the receiver. It must be closed. Its methods are safe for
// concurrent use.
//
// One goroutine, the committer, appends. It takes all rows that arrived while the disk was busy
// with the last ones, so that many uploads share one fdatasync.
type Log struct {
	w          *Writer // owned by the committer, except for log.Size, log.Synced and log.ReadAt
	requests   chan appendRequest
	pings      chan struct{}
	tailChecks chan struct{} // has a value if the committer must check the end of the index
	stop       chan struct{} // closed by Close
	stopped    chan struct{} // closed by the committer
	close      func() error

	mu       sync.Mutex // guards the fields below
	lastTime time.Time
	commits  int64
}

// appendRequest is a row to append. Its channel is unbuffered: until the committer receives it,
// a caller can cancel and nothing is written.
type appendRequest struct {
	row   Row
	since int64 // offset after which another process may have appended the row, or unconditional
	reply chan<- appendReply
}

// unconditional is the since of a row that is appended whatever the index has.
const unconditional = -1

type appendReply struct {
	row Row
	err error
}

// Open opens the index called name in dir and creates it, durably, if it is missing. A torn tail
// is saved in a file next to it and cut. Open reads the tail only. notify, unless nil, is called
// for each repair, now and later, from one goroutine at a time. dir must stay open until
// [Log.Close].
func Open(dir *durable.Dir, name string, notify func(TailNotice)) (*Log, error) {
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
		lastTime:   w.lastArrival,
	}
	l.close = sync.OnceValue(func() error {
		close(l.stop)
		<-l.stopped
		return w.Close()
	})
	go l.run()
	return l, nil
}

// Close ends the log after the batch that is being written. Rows that the committer has not
// received by then get an error wrapping [fs.ErrClosed].
func (l *Log) Close() error { return l.close() }

// Append makes r durable and returns it as it was written. Its time is not before that of the
// last row, unless that is more than a day ahead. A backfilled row keeps its time.
//
// If ctx ends first, the row may have been written or not. After an error that is
// [syscall.ENOSPC] the index is as it was. After a [durable.ErrFault] every later Append returns
// it again.
func (l *Log) Append(ctx context.Context, r Row) (Row, error) {
	return l.submitRequest(ctx, appendRequest{row: r, since: unconditional})
}

// EnsureRow makes sure that the last row of r's key has the sha256 and size of r, and returns it.
// Otherwise r is appended as by [Log.Append], marked as repaired if it supersedes a row. found
// must be the result of a search that included the key. Another process may append meanwhile.
func (l *Log) EnsureRow(ctx context.Context, r Row, found SearchResult) (Row, error) {
	last, exists := found.LastRow(r.Key)
	if exists && last.sameArchive(r) {
		return last, nil
	}
	r.Repaired = exists
	return l.submitRequest(ctx, appendRequest{row: r, since: found.size})
}

func (l *Log) submitRequest(ctx context.Context, req appendRequest) (Row, error) {
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

// RowTime returns the time that a row would get if it was appended now.
func (l *Log) RowTime(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return NotBefore(now, l.lastTime)
}

// CommitCount returns how many batches were made durable. Rows per batch show how well uploads
// share syncs.
func (l *Log) CommitCount() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

// DurableBytes returns the number of durable bytes of the index. They include the rows of each
// Append and Ensure that has returned.
func (l *Log) DurableBytes() int64 { return l.w.log.SyncedSize() }

// TailBytes is how much of the index [Log.TailHash] reads: about two rows, with their times of
// arrival and the sha256 of their archives.
const TailBytes = 512

// HashTail returns what identifies an index that ends with b, which must have its last [TailBytes], or
// all of it.
func HashTail(b []byte) string {
	sum := sha256.Sum256(b[max(0, len(b)-TailBytes):])
	return hex.EncodeToString(sum[:16])
}

// TailHash returns a hash of the last bytes of the index before the offset end, or "" if the index
// is shorter. If other rows were appended in their place it differs.
func (l *Log) TailHash(end int64) (string, error) {
	if end < 0 || end > l.DurableBytes() {
		return "", nil
	}
	b := make([]byte, min(end, TailBytes))
	n, err := l.w.log.ReadAt(b, end-int64(len(b)))
	if n < len(b) && errors.Is(err, io.EOF) { // another process has truncated it
		l.requestTailCheck()
		return "", nil
	}
	if n < len(b) {
		return "", fmt.Errorf("read the index at %d: %w", end, err)
	}
	return HashTail(b), nil
}

// requestTailCheck makes the committer check the end of the index, which another process has
// changed, before the next row.
func (l *Log) requestTailCheck() {
	select {
	case l.tailChecks <- struct{}{}:
	default: // a check is pending
	}
}

// IsAlive reports whether the committer receives requests before ctx ends. While the disk is busy
// it waits.
func (l *Log) IsAlive(ctx context.Context) bool {
	select {
	case l.pings <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-l.stopped:
	}
	return false
}

// FindRow returns the last row of key, or false if there is none. Its cost is that of
// [Log.FindRows].
func (l *Log) FindRow(ctx context.Context, key episode.Key) (Row, bool, error) {
	found, err := l.FindRows(ctx, key)
	row, ok := found.LastRow(key)
	return row, ok, err
}

// FindRows returns the last rows of keys. It reads backward, so that recent rows are found at once.
// An unknown key costs one read of the whole index, in bounded memory, for any number of keys.
func (l *Log) FindRows(ctx context.Context, keys ...episode.Key) (SearchResult, error) {
	size, err := l.w.log.Size()
	if err != nil {
		return SearchResult{}, err
	}
	return findAll(ctx, l.w.log, size, keys)
}

// run is the committer.
func (l *Log) run() {
	defer close(l.stopped)
	var fault error // the first one; no row is acknowledged after it
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

// commitAndReply commits a batch, replies to its callers, and returns the storage fault, if there
// was one.
func (l *Log) commitAndReply(batch []appendRequest, fault error) error {
	rows, err := make([]Row, len(batch)), fault
	if fault == nil {
		err = l.commitBatch(batch, rows)
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

// collectBatch returns first and all requests that wait, up to maxBatch.
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

// commitBatch appends a batch with one write and one fdatasync, and sets rows to what it wrote.
func (l *Log) commitBatch(batch []appendRequest, rows []Row) error {
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
				rows[i].ReceivedAt = NotBefore(r.row.ReceivedAt, last)
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
	l.lastTime, l.commits = last, l.commits+1
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
	for row, err := range ReadRows(io.NewSectionReader(l.w.log, since, l.w.end-since)) {
		if _, bad := errors.AsType[*LineError](err); bad || err == nil && row.Key != r.Key {
			continue
		}
		if err != nil {
			return false, err
		}
		appended = row.sameArchive(*r)
		if appended {
			*r = row
			continue
		}
		r.Repaired = true
	}
	return appended, nil
}

// NotBefore returns now, or last if that is later by at most maxClockJump.
func NotBefore(now, last time.Time) time.Time {
	if now.Before(last) && last.Sub(now) <= maxClockJump {
		return last
	}
	return now
}
