package batchlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/retry"
)

const (
	// maxRows is the maximum number of rows of a batch.
	maxRows = 1024
	// createTimeout bounds one request, and maxAttempts how often a batch is tried while the object
	// store fails. Then its senders get an error, and try again by themselves.
	createTimeout = 30 * time.Second
	maxAttempts   = 4
	// A receiver that has lost a batch number to another one within the last competingFor creates one
	// batch per turn, so that more rows share it: each of the others reads it too.
	competingFor = time.Second
	turn         = 40 * time.Millisecond // on average
)

// Log appends rows for one receiver. It must be closed. Its methods are safe for concurrent use.
//
// One goroutine, the committer, creates batches. It takes all rows that arrived while the last batch
// was being created, so that many uploads share a request.
type Log struct {
	bucket   bucket.Bucket
	log      *slog.Logger
	requests chan request
	cancel   context.CancelFunc
	stopped  chan struct{} // closed by the committer
	segments segmenter

	// Of the committer.
	lostAt     time.Time     // when another receiver last created a batch in place of this one's
	createdAt  time.Time     // when this one last created a batch
	createTook time.Duration // how long that took: others may create one for as long after it

	reading chan struct{} // held to read several batches

	mu    sync.Mutex // guards the fields below
	tail  tail
	moved *MovedError // what a fence says that was read; nil before
}

// request asks the committer for a row.
type request struct {
	row   index.Row
	since int64        // no batch up to this one has the row
	reply chan<- reply // has room for the reply
}

type reply struct {
	row index.Row
	err error
}

// errUnreadable is of an object store that contradicts itself.
var errUnreadable = errors.New("the batch exists, and is not there to be read")

// errOverrun says that the tail begins after the batch since which a row is looked for.
var errOverrun = errors.New("the log has grown")

// Open finds the end of the log. It returns an error if the log has a gap or a batch at its end is
// corrupt, and a [*MovedError] if it is fenced.
func Open(ctx context.Context, in bucket.Bucket, log *slog.Logger) (*Log, error) {
	head, err := findHead(ctx, in, 0)
	if err == nil {
		err = checkGap(ctx, in, head)
	}
	if err != nil {
		return nil, fmt.Errorf("find the end of the index: %w", err)
	}
	l := &Log{
		bucket: in, log: log, requests: make(chan request), stopped: make(chan struct{}), reading: make(chan struct{}, 1),
		tail: newTail(head),
	}
	if head > 0 { // its last row has the time that no later one may be before
		l.tail = newTail(head - 1)
		b, err := readBatch(ctx, in, head)
		if err != nil {
			return nil, fmt.Errorf("read the end of the index: %w", err)
		}
		l.add(b)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go l.run(run)
	return l, nil
}

// Close ends the committer. Rows that are not yet in a batch get an error.
func (l *Log) Close() error {
	l.cancel()
	<-l.stopped
	l.segments.wait()
	return nil
}

// Head returns the number of the last batch that this receiver knows. Others may have appended since.
func (l *Log) Head() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.head
}

// Refresh reads batches until the receiver knows batch n. It reports whether there is one.
func (l *Log) Refresh(ctx context.Context, n int64) (bool, error) {
	if n > l.Head() { // do not read up to a number that a host has made up
		if exists, err := hasBatch(ctx, l.bucket, n); !exists || err != nil {
			return false, err
		}
	}
	release, err := l.holdReading(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	for l.Head() < n {
		if more, err := l.readNext(ctx); !more || err != nil {
			return false, err
		}
	}
	return true, nil
}

// Moved returns a [*MovedError] if this receiver has read a fence. [Log.CatchUp] looks for one.
func (l *Log) Moved() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moved == nil {
		return nil
	}
	return l.moved
}

// CatchUp reads the batches that other receivers have appended, so that requests need not wait for that. It
// returns a [*MovedError] if the log is fenced.
func (l *Log) CatchUp(ctx context.Context) error {
	release, err := l.holdReading(ctx)
	if err != nil {
		return err
	}
	defer release()
	for {
		if more, err := l.readNext(ctx); err != nil {
			return err
		} else if !more {
			return l.Moved()
		}
	}
}

// holdReading waits until no other caller reads several batches: they are the same ones.
func (l *Log) holdReading(ctx context.Context) (release func(), err error) {
	select {
	case l.reading <- struct{}{}:
		return func() { <-l.reading }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Sum returns a digest of batch n, which must exist. No two logs have the same one, because the rows
// have the times and digests of their archives.
func (l *Log) Sum(ctx context.Context, n int64) (digest.Digest, error) {
	body, err := l.Text(ctx, n)
	return sha256.Sum256(body), err
}

// Text returns the rows of batch n, which must exist. The caller must not change them.
func (l *Log) Text(ctx context.Context, n int64) ([]byte, error) {
	l.mu.Lock()
	b, known := l.tail.batch(n)
	l.mu.Unlock()
	if known {
		return b.body, nil
	}
	return ReadBatch(ctx, l.bucket, n)
}

// readFrom is like the function [readFrom], but takes batch n from memory if the log has it there. It
// returns [fs.ErrNotExist] for a batch after the last known one.
func (l *Log) readFrom(ctx context.Context, n int64) (rows []index.Row, body []byte, end int64, err error) {
	l.mu.Lock()
	b, known := l.tail.batch(n)
	head := l.tail.head
	l.mu.Unlock()
	switch {
	case known:
		return b.rows, b.body, n, nil
	case n > head:
		return nil, nil, 0, fs.ErrNotExist
	}
	return readFrom(ctx, l.bucket, n)
}

// readNext reads the batch after the last known one. It reports whether there is one.
func (l *Log) readNext(ctx context.Context) (bool, error) {
	b, err := l.readNoting(ctx, l.Head()+1)
	if isEnd(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	l.add(b)
	return true, nil
}

// readNoting reads a batch, and notes a fence for [Log.Moved].
func (l *Log) readNoting(ctx context.Context, n int64) (batch, error) {
	b, err := readBatch(ctx, l.bucket, n)
	if moved, ok := errors.AsType[*MovedError](err); ok {
		l.mu.Lock()
		l.moved = moved
		l.mu.Unlock()
	}
	return b, err
}

// add adds a batch to the tail, unless it is known.
func (l *Log) add(b batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.number == l.tail.head+1 {
		l.tail.add(b)
	}
}

// Ensure makes sure that the log has one row for a commit, and returns the row as it was written:
// its time is not before that of the last row, unless that is more than a day ahead. All who call it
// for the same commit must use the same since: the number of a batch, such as [Log.Head] when the
// commit was made, up to which no batch can have the row.
//
// If Ensure returns an error the row may have been written or not. Calling it again with the same
// since, at any receiver, does not write a second row.
func (l *Log) Ensure(ctx context.Context, row index.Row, since int64) (index.Row, error) {
	row.ReceivedAt = row.ReceivedAt.UTC().Truncate(time.Microsecond)
	if err := row.Validate(); err != nil {
		return index.Row{}, fmt.Errorf("append a row to the index: %w", err)
	}
	// A batch that this process creates must be one after since, or the row is not found in it.
	if known, err := l.Refresh(ctx, since); err != nil {
		return index.Row{}, fmt.Errorf("read the index up to batch %d: %w", since, err)
	} else if !known {
		return index.Row{}, fmt.Errorf("the index ends with batch %d, and a commit was made after batch %d: the object store has lost %s; "+
			"see its log, run 'receiver index verify', and restore what is lost from a backup", l.Head(), since, Name(l.Head()+1))
	}
	for {
		found, next, err := l.search(ctx, row.Key, since)
		if err != nil {
			return index.Row{}, fmt.Errorf("search the index since batch %d: %w", since, err)
		}
		if found != nil {
			return *found, nil
		}
		written, err := l.submit(ctx, row, next)
		if !errors.Is(err, errOverrun) {
			return written, err
		}
		since = next
	}
}

func (l *Log) submit(ctx context.Context, row index.Row, since int64) (index.Row, error) {
	done := make(chan reply, 1)
	select {
	case l.requests <- request{row, since, done}:
	case <-ctx.Done():
		return index.Row{}, ctx.Err()
	case <-l.stopped:
		return index.Row{}, fmt.Errorf("append a row to the index: %w", fs.ErrClosed)
	}
	select {
	case got := <-done:
		return got.row, got.err
	case <-ctx.Done():
		return index.Row{}, ctx.Err()
	}
}

// search looks for a row of key in the batches after since. If it finds none it returns the batch up
// to which it has read, from which on the tail has the rows.
func (l *Log) search(ctx context.Context, key episode.Key, since int64) (*index.Row, int64, error) {
	for {
		l.mu.Lock()
		row, known := l.tail.find(key, since)
		l.mu.Unlock()
		if known {
			return row, since, nil
		}
		rows, _, end, err := readFrom(ctx, l.bucket, since+1)
		if err != nil {
			return nil, since, err
		}
		for _, row := range rows {
			if row.Key == key {
				// A later commit of the key must be after this row.
				_, err := l.Refresh(ctx, end)
				return &row, since, err
			}
		}
		since = end
	}
}

func (l *Log) run(ctx context.Context) {
	defer close(l.stopped)
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-l.requests:
			l.append(ctx, []request{first})
		}
	}
}

// collect returns the pending requests and all that wait, up to maxRows.
func (l *Log) collect(pending []request) []request {
	for len(pending) < maxRows {
		select {
		case r := <-l.requests:
			pending = append(pending, r)
		default:
			return pending
		}
	}
	return pending
}

// append creates a batch with the rows of all requests that the log does not have yet.
func (l *Log) append(ctx context.Context, pending []request) {
	err := l.awaitTurn(ctx)
	for attempt := 1; ; {
		pending = l.replyFound(l.collect(pending))
		if len(pending) == 0 {
			return
		}
		b, began := l.render(pending), time.Now()
		if err == nil {
			err = l.create(ctx, b)
		}
		if err == nil {
			l.createdAt, l.createTook = time.Now(), time.Since(began)
			l.add(b)
			l.replyFound(pending)
			l.joinSegment(ctx, b.number)
			return
		}
		if errors.Is(err, fs.ErrExist) { // of another receiver, or this one's, which it did not learn
			l.lostAt = time.Now()
			if err = l.awaitTurn(ctx); err == nil && l.Head() >= b.number {
				continue
			}
			err = cmp.Or(err, errUnreadable)
		}
		l.log.Warn("could not append to the index", "batch", b.number, "rows", len(pending), "attempt", attempt, "err", err)
		_, corrupt := errors.AsType[*CorruptError](err)
		_, moved := errors.AsType[*MovedError](err)
		attempt++
		if corrupt || moved || attempt > maxAttempts || !retry.Sleep(ctx, time.Duration(attempt)*time.Second/4) {
			for _, r := range pending {
				r.reply <- reply{err: fmt.Errorf("append to the index: %w", err)}
			}
			return
		}
		err = nil
	}
}

// replyFound replies to the requests whose row the log has, and to those that must search again. It
// returns the others.
func (l *Log) replyFound(pending []request) []request {
	l.mu.Lock()
	defer l.mu.Unlock()
	var missing []request
	for _, r := range pending {
		row, known := l.tail.find(r.row.Key, r.since)
		switch {
		case !known:
			r.reply <- reply{err: errOverrun}
		case row != nil:
			r.reply <- reply{row: *row}
		default:
			missing = append(missing, r)
		}
	}
	return missing
}

// render returns the batch after the last known one. Requests for the same key are for the same commit,
// since a later one has a row only after the first has, so they share a row.
func (l *Log) render(pending []request) batch {
	l.mu.Lock()
	b, last := batch{number: l.tail.head + 1}, l.tail.lastTime
	l.mu.Unlock()
	keys := make(map[episode.Key]bool, len(pending))
	for _, r := range pending {
		row := r.row
		if keys[row.Key] {
			continue
		}
		keys[row.Key] = true
		if !row.Backfilled {
			row.ReceivedAt = index.NotBefore(row.ReceivedAt, last)
			last = row.ReceivedAt
		}
		b.rows = append(b.rows, row)
		b.body = row.Append(b.body)
	}
	return b
}

func (l *Log) create(ctx context.Context, b batch) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	return l.bucket.Create(ctx, Name(b.number), bytes.NewReader(b.body), int64(len(b.body)), sha256.Sum256(b.body))
}

// awaitTurn waits until this receiver may create a batch. If others append too, it reads what they have
// appended.
func (l *Log) awaitTurn(ctx context.Context) error {
	pause, competing := min(l.createTook, turn), time.Since(l.lostAt) < competingFor
	if competing {
		pause = turn/2 + rand.N(turn)
	}
	retry.Sleep(ctx, pause-time.Since(l.createdAt)) // a request fails if ctx has ended
	if !competing {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	return l.CatchUp(ctx)
}
