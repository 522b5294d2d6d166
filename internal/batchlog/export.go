package batchlog

import (
	"context"

	"cis490/internal/bucket"
)

// Export passes the contents of the batches from next on to write, in order, and returns the number
// of the batch after the last one that write has taken. It ends with the log. Others may append
// meanwhile.
func Export(ctx context.Context, from bucket.Bucket, next int64, write func(rows []byte) error) (int64, error) {
	for {
		body, end, err := readBytes(ctx, from, next)
		if isEnd(err) {
			return next, nil
		}
		if err == nil {
			err = write(body)
		}
		if err != nil {
			return next, err
		}
		next = end + 1
	}
}
