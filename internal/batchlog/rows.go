package batchlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"cis490/internal/bucket"
	"cis490/internal/index"
)

// Last returns the number of the last batch, or 0. It reads a list, so that a batch that is lost does not
// hide those behind it.
func Last(ctx context.Context, in bucket.Bucket) (int64, error) {
	last := int64(0)
	for info, err := range in.List(ctx, logPrefix, "") {
		if err != nil {
			return 0, fmt.Errorf("look for the end of the index: %w", err)
		}
		last = max(last, numberOf(info.Name))
	}
	if last == 0 {
		return 0, nil
	}
	_, err := readBatch(ctx, in, last)
	if _, moved := errors.AsType[*MovedError](err); moved {
		return last - 1, nil
	}
	return last, nil // an error is of those who read the batch
}

// Rows yields the rows of the batches from first to last, which must exist. It holds at most a segment in
// memory. It skips a batch after its [*CorruptError], and ends at a fence, and after any other error.
func Rows(ctx context.Context, from bucket.Bucket, first, last int64) iter.Seq2[index.Row, error] {
	return func(yield func(index.Row, error) bool) {
		for n := first; n <= last; {
			rows, end, err := readUpTo(ctx, from, n, last)
			if _, moved := errors.AsType[*MovedError](err); moved {
				return
			}
			if errors.Is(err, fs.ErrNotExist) {
				end, err = n, &CorruptError{Name(n), err}
			}
			if err != nil {
				_, corrupt := errors.AsType[*CorruptError](err)
				if !yield(index.Row{}, err) || !corrupt {
					return
				}
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
			n = end + 1
		}
	}
}

// readUpTo reads batch n, or the segment that begins with it unless that goes beyond last.
func readUpTo(ctx context.Context, from bucket.Bucket, n, last int64) (rows []index.Row, end int64, err error) {
	if last-n+1 >= segmentBatches {
		rows, _, end, err = readFrom(ctx, from, n)
		if _, corrupt := errors.AsType[*CorruptError](err); !corrupt {
			return rows, end, err
		}
	}
	b, err := readBatch(ctx, from, n)
	return b.rows, n, err
}
