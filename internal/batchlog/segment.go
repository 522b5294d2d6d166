package batchlog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"cis490/internal/bucket"
	"cis490/internal/index"
)

// segmentBatches is how many batches a segment joins, so that readers of the whole index send fewer
// requests. Segments are a cache: they have the same bytes whoever writes them.
const segmentBatches = 1000

// maxSegmentBytes is the maximum size of a segment: readers hold one in memory. Of larger ones they read
// the batches.
const maxSegmentBytes = 4 << 20

// segmentName returns the name of the segment whose last batch is n, a multiple of segmentBatches.
func segmentName(n int64) string { return fmt.Sprintf("segments/%0*d%s", digits, n, suffix) }

// readFrom reads batch n, or the segment that begins with it. end is the last batch that was read. It
// returns an error wrapping [fs.ErrNotExist] if there is no batch n.
func readFrom(ctx context.Context, from bucket.Bucket, n int64) (rows []index.Row, body []byte, end int64, err error) {
	body, end, err = readBytes(ctx, from, n)
	if err != nil {
		return nil, nil, 0, err
	}
	if rows, err = parseRows(body); err != nil {
		return nil, nil, 0, &CorruptError{Name(n), err}
	}
	return rows, body, end, nil
}

// readBytes is [readFrom] without parsing.
func readBytes(ctx context.Context, from bucket.Bucket, n int64) (body []byte, end int64, err error) {
	end = n + segmentBatches - 1
	if end%segmentBatches == 0 {
		body, err = readObject(ctx, from, segmentName(end), maxSegmentBytes)
		if !errors.Is(err, fs.ErrNotExist) {
			return body, end, err
		}
	}
	if body, err = readObject(ctx, from, Name(n), maxBatchBytes); err == nil {
		err = checkFence(ctx, from, body)
	}
	return body, n, err
}

// ReadFrom returns batch n, or the segment that begins with it if that ends by batch last: the text, its rows,
// and the number of the last batch in it. It returns an error wrapping [fs.ErrNotExist] if there is no batch n,
// and a [*MovedError] if that is a fence.
func ReadFrom(ctx context.Context, from bucket.Bucket, n, last int64) (rows []index.Row, text []byte, end int64, err error) {
	if last-n+1 >= segmentBatches {
		return readFrom(ctx, from, n)
	}
	b, err := readBatch(ctx, from, n)
	return b.rows, b.body, n, err
}

// segmenter writes at most one segment at a time, in the background.
type segmenter struct {
	running sync.WaitGroup
	slot    sync.Mutex
}

func (s *segmenter) wait() { s.running.Wait() }

// joinSegment writes the segment that ends with batch n, if one does. It is called by the receiver
// that has created the batch. A segment that could not be written is missing, and readers read its batches.
func (l *Log) joinSegment(ctx context.Context, n int64) {
	if n%segmentBatches != 0 || !l.segments.slot.TryLock() {
		return
	}
	l.segments.running.Go(func() {
		defer l.segments.slot.Unlock()
		if err := l.writeSegment(ctx, n); err != nil {
			l.log.Warn("could not write index segment", "segment", segmentName(n), "err", err)
		}
	})
}

func (l *Log) writeSegment(ctx context.Context, end int64) error {
	var body []byte
	for n := end - segmentBatches + 1; n <= end; n++ {
		l.mu.Lock()
		b, known := l.tail.batch(n)
		l.mu.Unlock()
		if !known {
			var err error
			if b, err = readBatch(ctx, l.bucket, n); err != nil {
				return err
			}
		}
		body = append(body, b.body...)
		if len(body) > maxSegmentBytes {
			return nil // readers read its batches
		}
	}
	return l.bucket.Put(ctx, segmentName(end), bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
}
