package batchlog

import (
	"context"
	"errors"
	"io/fs"
	"iter"

	"cis490/internal/bucket"
	"cis490/internal/index"
)

// Rows yields the rows of the batches from first to last, or to the end of the log. It holds at most a
// segment in memory. It skips a batch after its [*CorruptError], and ends after any other error.
func Rows(ctx context.Context, from bucket.Bucket, first, last int64) iter.Seq2[index.Row, error] {
	return func(yield func(index.Row, error) bool) {
		for n := first; n <= last; {
			rows, end, err := readUpTo(ctx, from, n, last)
			if errors.Is(err, fs.ErrNotExist) {
				return
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
