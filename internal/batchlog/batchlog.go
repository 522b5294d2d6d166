// Package batchlog keeps the index of a store in a bucket: objects with rows, numbered from 1.
// Joined in the order of their numbers they are the index.jsonl that readers know, the same bytes
// for everybody. Any number of receivers append.
//
// [Log] appends for a receiver. A batch is created only under a number that is free, by a receiver
// that knows the rows of all batches before it. A receiver that finds the number taken reads that
// batch first. [Export] reads the batches for those who want the file.
//
// Invariant: batches are never changed or deleted, and their numbers have no gap. So a commit gets
// one row, even if several receivers append it: see [Log.Ensure]. Nothing is appended after a [Fence].
package batchlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"cis490/internal/bucket"
	"cis490/internal/index"
)

const (
	logPrefix = "log/"
	suffix    = ".jsonl"
	digits    = 10
)

// maxBatchBytes is the maximum size of a batch that is read. It is more than maxRows rows have.
const maxBatchBytes = 1 << 20

// Name returns the name of batch n.
func Name(n int64) string { return fmt.Sprintf("%s%0*d%s", logPrefix, digits, n, suffix) }

// numberOf returns the number of a batch by its name, or 0.
func numberOf(name string) int64 {
	text, batch := strings.CutPrefix(strings.TrimSuffix(name, suffix), logPrefix)
	n, err := strconv.ParseInt(text, 10, 64)
	if !batch || err != nil || n < 1 || name != Name(n) {
		return 0
	}
	return n
}

// batch is the contents of one object.
type batch struct {
	number int64
	body   []byte
	rows   []index.Row
}

// A CorruptError says that an object of the log is not what a receiver has written.
type CorruptError struct {
	Name string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is not a batch of rows: %v; something else writes to this bucket, or the object store returns wrong bytes", e.Name, e.Err)
}

// Unwrap returns the reason.
func (e *CorruptError) Unwrap() error { return e.Err }

// readBatch reads batch n. It returns an error wrapping [fs.ErrNotExist] if there is none.
func readBatch(ctx context.Context, from bucket.Bucket, n int64) (batch, error) {
	body, err := readObject(ctx, from, Name(n), maxBatchBytes)
	if err != nil {
		return batch{}, err
	}
	if err := checkFence(ctx, from, body); err != nil {
		return batch{}, err
	}
	rows, err := parseRows(body)
	if err != nil {
		return batch{}, &CorruptError{Name(n), err}
	}
	return batch{n, body, rows}, nil
}

// readObject reads an object of at most limit bytes.
func readObject(ctx context.Context, from bucket.Bucket, name string, limit int64) ([]byte, error) {
	r, info, err := from.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Size > limit {
		return nil, &CorruptError{name, fmt.Errorf("it has %d bytes", info.Size)}
	}
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(body)) != info.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return body, nil
}

func parseRows(body []byte) ([]index.Row, error) {
	if len(body) == 0 || body[len(body)-1] != '\n' {
		return nil, errors.New("it does not end with a row")
	}
	var rows []index.Row
	for row, err := range index.ReadRows(bytes.NewReader(body)) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// findHead returns the number of the last object of the log, which may be a fence, or 0. known is one that
// exists, or 0. The number of requests is proportional to the logarithm of how many follow it.
func findHead(ctx context.Context, in bucket.Bucket, known int64) (int64, error) {
	low, high := known, known+1 // low exists, or is 0
	for {
		exists, err := hasBatch(ctx, in, high)
		if err != nil {
			return 0, err
		}
		if !exists {
			break
		}
		low, high = high, high+(high-known)
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		exists, err := hasBatch(ctx, in, middle)
		if err != nil {
			return 0, err
		}
		if exists {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

func hasBatch(ctx context.Context, in bucket.Bucket, n int64) (bool, error) {
	_, err := in.Stat(ctx, Name(n))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// checkGap returns an error if there is a batch above head+1: then head+1 was deleted, or head is
// wrong, and the next row would be written before existing ones. Other receivers may append meanwhile.
func checkGap(ctx context.Context, in bucket.Bucket, head int64) error {
	for info, err := range in.List(ctx, logPrefix, Name(head)) {
		if err != nil {
			return err
		}
		n := numberOf(info.Name)
		if n == 0 {
			return fmt.Errorf("%s is not an object of a receiver: nothing else may write to this bucket", info.Name)
		}
		if n == head+1 {
			head++ // appended just now
			continue
		}
		if exists, err := hasBatch(ctx, in, head+1); err != nil {
			return err
		} else if exists { // the list is older than it
			head = n
			continue
		}
		return fmt.Errorf("%s is missing although %s exists: the index has a hole; restore the object, and deny everybody but the receivers to delete", Name(head+1), info.Name)
	}
	return nil
}
