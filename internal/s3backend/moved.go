package s3backend

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"cis490/internal/batchlog"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// moved says what of the index was copied from a disk when the store moved into the bucket.
type moved struct {
	IndexBytes int64 `json:"index_bytes"` // in the batches up to Batches
	Batches    int64 `json:"batches"`
}

// indexBytes returns what hosts are told as the length of the index up to a batch. A disk tells its hosts
// bytes. So that the number does not decrease when the store moves, each batch since counts as one byte.
// It does not decrease either when the store moves back to a disk: no batch has less than one byte.
func (m moved) indexBytes(batch int64) int64 { return m.IndexBytes + batch - m.Batches }

// copiedIndex answers for the index as it was on the disk.
type copiedIndex struct {
	mu   sync.Mutex
	ends []int64 // of the batches that were copied; nil until a host needs them
}

// hadOnDisk reports whether this is the store that a host knows from the time when it was on a disk.
func (b *Backend) hadOnDisk(ctx context.Context, known wire.Store) (bool, error) {
	if known.IndexBytes > b.id.Moved.IndexBytes {
		return false, nil
	}
	if known.IndexTail == "" {
		return true, nil
	}
	tail, err := b.copiedTail(ctx, known.IndexBytes)
	return tail == known.IndexTail, err
}

// copiedTail returns what [index.Log.TailHash] returned for an offset while the store was on a disk.
func (b *Backend) copiedTail(ctx context.Context, end int64) (string, error) {
	ends, err := b.copiedEnds(ctx)
	if err != nil {
		return "", err
	}
	var tail []byte
	i, _ := slices.BinarySearch(ends, end)
	for ; i >= 0 && len(tail) < index.TailBytes; i-- {
		text, err := b.index.Text(ctx, int64(i)+1)
		if err != nil {
			return "", err
		}
		if start := ends[i] - int64(len(text)); end < ends[i] {
			text = text[:max(0, end-start)]
		}
		tail = slices.Concat(text, tail)
	}
	return index.HashTail(tail), nil
}

// copiedEnds returns where the batches that were copied end. They never change.
func (b *Backend) copiedEnds(ctx context.Context) ([]int64, error) {
	b.copied.mu.Lock()
	defer b.copied.mu.Unlock()
	if b.copied.ends != nil {
		return b.copied.ends, nil
	}
	ends, err := batchlog.Ends(ctx, b.bucket)
	if err != nil {
		return nil, err
	}
	n := b.id.Moved.Batches
	if int64(len(ends)) < n || n > 0 && ends[n-1] != b.id.Moved.IndexBytes {
		return nil, fmt.Errorf("the first %d batches do not have the %d bytes with which the store came from a disk: an object is missing, or the list of the bucket is", n, b.id.Moved.IndexBytes)
	}
	b.copied.ends = slices.Clone(ends[:n])
	return b.copied.ends, nil
}
