package index

import (
	"context"
	"io"

	"cis490/internal/episode"
)

// Lookup is [Log.Find] for who does not append: in the first size bytes of an
// index that somebody else may append to.
func Lookup(ctx context.Context, r io.ReaderAt, size int64, key episode.Key) (Row, bool, error) {
	return find(ctx, r, size, key)
}
