// Package bucket keeps objects in an S3 bucket, as package durable keeps files in a directory.
//
// Only what all engines do alike is used: PutObject with "If-None-Match: *" for small objects, and
// the SHA-256 that the signature of a request covers, so that an engine refuses bytes other than
// those that were announced. [Probe] checks that an engine does both before anything is stored.
//
// Invariant: Create and Put return nil only after the engine has confirmed the whole object. An
// error that is none of the errors named here leaves unknown whether the engine has stored it.
package bucket

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"cis490/internal/digest"
)

// Errors that say what the engine did. An object that exists is [fs.ErrExist], and a missing one
// [fs.ErrNotExist].
var (
	// ErrFull says that the engine has no space, or the bucket's quota is spent. Nothing was stored.
	ErrFull = errors.New("the object store is full")
	// ErrDigest says that the bytes do not have the SHA-256 or the size that was announced. Nothing
	// was stored.
	ErrDigest = errors.New("the bytes do not have the announced sha256")
	// ErrNoUpload says that a multipart upload does not exist: it was completed or aborted.
	ErrNoUpload = errors.New("no such multipart upload")
	// ErrPart says that a part is not the one that was recorded. The upload cannot be completed.
	ErrPart = errors.New("a part of the multipart upload has changed")
)

// Info describes an object.
type Info struct {
	Name       string // below the prefix of the bucket
	Size       int64
	ETag       string
	ModifiedAt time.Time
}

// Part is a part of a multipart upload that the engine has confirmed.
type Part struct {
	Number int    `json:"number"` // from 1
	ETag   string `json:"etag"`
}

// MinPart is the minimum size of each part of a multipart upload but the last, and MaxParts the
// maximum number of parts, by the S3 protocol.
const (
	MinPart  = 5 << 20
	MaxParts = 10_000
)

// Bucket is a part of a bucket below a prefix. Its methods are safe for concurrent use. Readers
// never see a part of an object.
type Bucket interface {
	// Create stores a new object of size bytes, which must have the digest d. It returns an error
	// wrapping [fs.ErrExist] if there is an object with this name.
	Create(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error
	// Put is Create, but replaces an object. The caller must name objects so that a replacement has
	// the same bytes, or is a hint whose loss does not matter.
	Put(ctx context.Context, name string, body io.Reader, size int64, d digest.Digest) error
	// Open returns the contents of an object, or an error wrapping [fs.ErrNotExist]. The caller must
	// close it. Reading fails if the object ends early.
	Open(ctx context.Context, name string) (io.ReadCloser, Info, error)
	// Stat describes an object, or returns an error wrapping [fs.ErrNotExist].
	Stat(ctx context.Context, name string) (Info, error)
	// List yields the objects whose names begin with prefix and are greater than after, in the order
	// of their bytes. It ends after the first error. ETag may be empty.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
	// Remove deletes an object. A missing one is no error. It must only be called for what is
	// temporary.
	Remove(ctx context.Context, name string) error

	// Begin begins a multipart upload of an object, and returns its id.
	Begin(ctx context.Context, name string) (id string, err error)
	// PutPart stores a part, which must have the digest d. It replaces a part with the same number.
	PutPart(ctx context.Context, name, id string, number int, body io.Reader, size int64, d digest.Digest) (Part, error)
	// Finish makes an object of the parts, and replaces one with the same name.
	Finish(ctx context.Context, name, id string, parts []Part) error
	// Abort discards a multipart upload. A missing one is no error.
	Abort(ctx context.Context, name, id string) error
}
