package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
)

// Export reads a store from a bucket, beside its receivers.
type Export struct {
	b  *Backend
	id identity
}

// OpenExport opens the store in a bucket.
func OpenExport(ctx context.Context, in bucket.Bucket) (*Export, error) {
	id, err := readIdentity(ctx, in)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the bucket has no store: correct bucket or prefix: %w", err)
	}
	return &Export{b: &Backend{bucket: in}, id: id}, err
}

// Identity returns what the store takes along.
func (e *Export) Identity() StoreIdentity {
	return StoreIdentity{ID: e.id.ID, CreatedAt: e.id.CreatedAt, Replaces: e.id.Replaces}
}

// ExportedArchive is the archive that counts for a key.
type ExportedArchive struct {
	Digest digest.Digest
	Size   int64
	object string
}

// Find returns the archive of the newest commit of a key. The error wraps [fs.ErrNotExist] if there is no
// commit.
func (e *Export) Find(ctx context.Context, key episode.Key) (ExportedArchive, error) {
	c, err := e.b.newestCommit(ctx, key)
	return ExportedArchive{c.row.SHA256, c.row.Size, c.object}, err
}

// Open opens an archive. The error wraps [fs.ErrNotExist] if the bucket does not have it any more.
func (e *Export) Open(ctx context.Context, a ExportedArchive) (io.ReadCloser, error) {
	r, _, err := e.b.bucket.Open(ctx, a.object)
	return r, err
}
