package s3backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/index"
	"cis490/internal/wire"
)

const (
	// importName is the object that reserves an empty prefix for a store that is copied into it.
	importName = "import.json"
	// missingPrefix has an object for each row whose archive the disk did not have.
	missingPrefix = "missing/"
)

// importObject is the content of import.json.
type importObject struct {
	Store  string `json:"store"`
	CopyID string `json:"copy_id"` // random: another bucket may have the same name
}

// Import copies a store from a disk into a bucket. Until [Import.Finish] no receiver starts with that
// bucket, so only imports append to the log.
//
// The order for each row is archive, commit, batch, as for an upload. What is there already is left as it
// is, so that an import that was killed continues, and two of them do no harm. A commit has the offset of
// its row in the index of the disk, which tells the rows of one key apart.
//
// A row whose archive the disk does not have gets a commit all the same: the index has the same rows, and
// the archive counts as lost, so its host may send it again.
type Import struct {
	b      *Backend
	store  string
	copyID string
}

// CopyID returns the id that the copy in this bucket has, and no other one.
func (i *Import) CopyID() string { return i.copyID }

// StoreIdentity is what the store brings from the disk.
type StoreIdentity struct {
	ID        string
	CreatedAt time.Time
	Replaces  []string
}

// An ImportedError says that the store in the bucket is complete, and in use.
type ImportedError struct{ Store string }

func (e *ImportedError) Error() string {
	return fmt.Sprintf("the bucket has the store %s already, and receivers may use it", e.Store)
}

// checkNotImporting returns an error if a store is being copied into the bucket.
func checkNotImporting(ctx context.Context, in bucket.Bucket) error {
	_, err := in.Stat(ctx, importName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := readIdentity(ctx, in); !errors.Is(err, fs.ErrNotExist) {
		return err // complete since
	}
	return errors.New("a store is being copied into this bucket: 'receiver store copy --to s3 --final' completes it")
}

// IsImporting reports whether a store is being copied into the bucket, or was.
func IsImporting(ctx context.Context, in bucket.Bucket) (bool, error) {
	_, err := in.Stat(ctx, importName)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// OpenImport begins or continues the import of the store with an id. It returns an [*ImportedError] if it
// is complete, and another error if the bucket has anything else. Unless copyID is "", the import must have
// been begun, with that id.
func OpenImport(ctx context.Context, in bucket.Bucket, store, copyID string) (*Import, error) {
	if copyID != "" {
		if err := checkCopyID(ctx, in, copyID); err != nil {
			return nil, err
		}
	}
	id, err := readIdentity(ctx, in)
	switch {
	case err == nil && id.ID == store:
		return nil, &ImportedError{store}
	case err == nil:
		return nil, fmt.Errorf("the bucket has the store %s, and not %s: set store.s3.prefix to a name that nothing else uses", id.ID, store)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	i := &Import{b: &Backend{bucket: in, minPart: importPart}, store: store}
	var o importObject
	if err := i.b.readJSON(ctx, importName, &o); errors.Is(err, fs.ErrNotExist) {
		if o, err = i.reserve(ctx); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if o.Store != store {
		return nil, fmt.Errorf("the store %s is being copied into the bucket, and this is %s: set store.s3.prefix to a name that nothing else uses", o.Store, store)
	}
	i.copyID = o.CopyID
	return i, nil
}

// checkCopyID returns an error if the bucket does not have the copy with an id.
func checkCopyID(ctx context.Context, in bucket.Bucket, id string) error {
	var o importObject
	err := (&Backend{bucket: in}).readJSON(ctx, importName, &o)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if o.CopyID != id {
		return errors.New("the store has moved to a bucket of this name, and this is another one: correct endpoints, bucket and prefix")
	}
	return nil
}

// reserve creates import.json in an empty prefix.
func (i *Import) reserve(ctx context.Context) (importObject, error) {
	o := importObject{i.store, rand.Text()}
	for info, err := range i.b.bucket.List(ctx, "", "") {
		if err != nil {
			return o, fmt.Errorf("list the bucket: %w", err)
		}
		if !bucket.IsProbe(info.Name) && info.Name != importName {
			return o, fmt.Errorf("the bucket has objects such as %q: set store.s3.prefix to a name that nothing else uses", info.Name)
		}
	}
	err := i.b.createJSON(ctx, importName, o)
	if errors.Is(err, fs.ErrExist) {
		err = i.b.readJSON(ctx, importName, &o)
	}
	return o, err
}

// HasArchive reports whether the bucket has the archive of a row. One that was stored in parts is read: the
// run that completed it may have been killed before it did.
func (i *Import) HasArchive(ctx context.Context, row index.Row) (bool, error) {
	name := archiveName(row.Key, row.SHA256, 1)
	info, err := i.b.bucket.Stat(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && info.Size == row.Size && row.Size > maxSinglePut {
		err = i.b.checkObject(ctx, name, row.Key.Host, row.SHA256, row.Size)
		if errors.Is(err, errCorrupt) {
			return false, nil
		}
	}
	return err == nil && info.Size == row.Size, err
}

// Archives above maxSinglePut are copied in parts of at least importPart.
const (
	maxSinglePut = 256 << 20
	importPart   = 64 << 20
)

// PutArchive stores the archive of a row. It returns an error wrapping [bucket.ErrDigest] if from does not
// have the bytes of the row.
func (i *Import) PutArchive(ctx context.Context, row index.Row, from io.ReaderAt) error {
	name := archiveName(row.Key, row.SHA256, 1)
	if row.Size > maxSinglePut {
		return i.putParts(ctx, name, row, from)
	}
	whole := io.NewSectionReader(from, 0, row.Size+1) // one more, so that a longer one is noticed
	if err := i.b.bucket.Put(ctx, name, whole, row.Size, row.SHA256); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// putParts stores an archive in parts. What a run that was killed has left of it is removed first, or
// expires.
func (i *Import) putParts(ctx context.Context, name string, row index.Row, from io.ReaderAt) (err error) {
	dir := uploadDir(wire.Upload{Key: row.Key, Digest: row.SHA256, Size: row.Size})
	if err := i.b.removeDir(ctx, dir, ""); err != nil {
		return err
	}
	if d, n, err := digest.Of(io.NewSectionReader(from, 0, row.Size+1)); err != nil {
		return err
	} else if d != row.SHA256 || n != row.Size {
		return fmt.Errorf("put %s: %w", name, bucket.ErrDigest)
	}
	id, err := i.b.bucket.Begin(ctx, name)
	if err != nil {
		return fmt.Errorf("begin %s: %w", name, err)
	}
	if err := i.b.createJSON(ctx, dir+multipartName, multipart{ID: id, Object: name}); err != nil {
		return errors.Join(err, i.b.bucket.Abort(ctx, name, id))
	}
	defer func() { err = errors.Join(err, i.b.removeDir(context.WithoutCancel(ctx), dir, id)) }()
	var parts []bucket.Part
	each := i.b.partSize(row.Size)
	for at := int64(0); at < row.Size; at += each {
		part := io.NewSectionReader(from, at, min(each, row.Size-at))
		d, _, err := digest.Of(part)
		if err != nil {
			return err
		}
		if _, err := part.Seek(0, io.SeekStart); err != nil {
			return err
		}
		sent, err := i.b.bucket.PutPart(ctx, name, id, len(parts)+1, part, part.Size(), d)
		if err != nil {
			return fmt.Errorf("put part %d of %s: %w", len(parts)+1, name, err)
		}
		parts = append(parts, sent)
	}
	if err := i.b.bucket.Finish(ctx, name, id, parts); err != nil {
		return fmt.Errorf("finish %s: %w", name, err)
	}
	// What parts become is read back, as that of a host is.
	return i.b.checkObject(ctx, name, row.Key.Host, row.SHA256, row.Size)
}

// Commit commits the archive of a row, which batch since+1 or a later one is going to have. offset is
// where the row is in the index of the disk.
func (i *Import) Commit(ctx context.Context, row index.Row, offset, since int64) error {
	c := commit{generation: 1, row: row, object: archiveName(row.Key, row.SHA256, 1), since: since, offset: offset}
	for ; c.generation <= maxGenerations; c.generation++ {
		err := i.b.createCommit(ctx, c)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		had, err := i.b.readCommit(ctx, row.Key, c.generation)
		switch {
		case err != nil:
			return err
		case had.offset == offset && had.row.SHA256 == row.SHA256:
			return nil
		case had.offset == notCopied || had.offset >= offset:
			return fmt.Errorf("%s is of another row: the bucket has not been copied from this disk", commitName(row.Key, c.generation))
		}
	}
	return fmt.Errorf("%s/%s has more than %d rows", row.Key.Host, row.Key.Name, maxGenerations)
}

// missingObject is the content of an object below missing/.
type missingObject struct {
	Row    json.RawMessage `json:"row"`
	Offset int64           `json:"offset"`
}

func missingName(offset int64) string { return fmt.Sprintf("%s%015d.json", missingPrefix, offset) }

// NoteMissing records that the disk did not have the archive of a row, so that a later run looks again.
func (i *Import) NoteMissing(ctx context.Context, row index.Row, offset int64) error {
	err := i.b.createJSON(ctx, missingName(offset), missingObject{bytes.TrimSpace(row.Append(nil)), offset})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Missing returns the rows that [Import.NoteMissing] has recorded, by their offsets, unless a later row of
// the key has taken their place.
func (i *Import) Missing(ctx context.Context) (map[int64]index.Row, error) {
	rows := make(map[int64]index.Row)
	for info, err := range i.b.bucket.List(ctx, missingPrefix, "") {
		if err != nil {
			return nil, err
		}
		var o missingObject
		if err := i.b.readJSON(ctx, info.Name, &o); err != nil {
			return nil, err
		}
		row, err := index.ParseRow(o.Row)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", info.Name, err)
		}
		newest, err := i.b.newestCommit(ctx, row.Key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case newest.offset > o.Offset:
			if err := i.Found(ctx, o.Offset); err != nil {
				return nil, err
			}
			continue
		}
		rows[o.Offset] = row
	}
	return rows, nil
}

// Found removes what [Import.NoteMissing] has recorded.
func (i *Import) Found(ctx context.Context, offset int64) error {
	return i.b.bucket.Remove(ctx, missingName(offset))
}

// Finish makes the bucket the store, with the length of its index in bytes and batches. From here on receivers
// start with it, so the disk must be given up before. A second call does nothing.
func (i *Import) Finish(ctx context.Context, id StoreIdentity, indexBytes, batches int64) error {
	is := identity{Layout: layout, ID: id.ID, CreatedAt: id.CreatedAt, Replaces: id.Replaces, Moved: moved{indexBytes, batches}}
	if is.Moved != (moved{}) { // an empty store is like one that began here
		is.Layout = movedLayout
	}
	body, err := json.Marshal(is)
	if err != nil {
		return err
	}
	err = i.b.bucket.Create(ctx, identityName, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	now, err := readIdentity(ctx, i.b.bucket)
	if err == nil && (now.ID != id.ID || now.Moved != moved{indexBytes, batches}) {
		err = fmt.Errorf("%s is not of this copy: the store is %s with an index of %d bytes", identityName, strings.TrimSpace(now.ID), now.Moved.IndexBytes)
	}
	return err
}
