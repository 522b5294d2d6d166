package s3backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"cis490/internal/access"
	"cis490/internal/archive"
	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/readback"
	"cis490/internal/wire"
)

// storedState says what is stored under the key of an upload.
type storedState int

const (
	notStored storedState = iota
	stored                // the same archive
	conflicts             // another archive
	corrupt               // the same archive once, but the bucket does not return it any more
)

// lookupResult is the result of [Backend.find].
type lookupResult struct {
	state  storedState
	commit commit    // the newest one, unless state is notStored
	row    index.Row // in the index, if state is stored
}

// isFinal reports whether the upload has its answer, and nothing is to be stored.
func (l lookupResult) isFinal() bool { return l.state == stored || l.state == conflicts }

// result returns the answer to an upload for which isFinal reports true.
func (l lookupResult) result() (wire.Receipt, error) {
	if l.state == conflicts {
		return wire.Receipt{}, conflictError(l.commit.row.SHA256)
	}
	return newReceipt(wire.AlreadyPresent, l.row), nil
}

// next returns the generation of the next commit.
func (l lookupResult) next() int { return l.commit.generation + 1 }

func conflictError(stored digest.Digest) error {
	p := wire.Refuse(wire.Conflict, "another archive is stored under this name")
	p.Stored = stored
	return p
}

// find looks for the archive of an upload. It reads a stored one back, because the sender may delete
// its own for the answer, and ensures that it has a row. So a corrupt one has its row before the
// commit that replaces it.
func (b *Backend) find(ctx context.Context, u wire.Upload) (lookupResult, error) {
	unlock, err := b.keys.LockContext(ctx, u.Key)
	if err != nil {
		return lookupResult{}, err
	}
	defer unlock()
	c, err := b.newestCommit(ctx, u.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return lookupResult{}, nil
	}
	if err != nil {
		return lookupResult{}, err
	}
	if c.row.SHA256 != u.Digest {
		b.noteConflict(u, c)
		return lookupResult{state: conflicts, commit: c}, nil
	}
	found := lookupResult{state: stored, commit: c}
	isQuarantined, err := b.isQuarantined(ctx, c)
	if err != nil {
		return lookupResult{}, err
	}
	// It continues if the sender disconnects: the next attempt needs the result.
	id, work := readback.Archive{Key: u.Key, Digest: u.Digest}, b.workContext(ctx)
	if isQuarantined {
		err = errQuarantined
	} else if cached := b.read.Take(id); u.Resent || !cached {
		err = b.readBack(work, c)
	}
	if errors.Is(err, errCorrupt) {
		if !isQuarantined && b.opts.Observer != nil {
			b.opts.Observer.NoteDamage(u.Key, "damaged", false)
		}
		b.log.Error("stored archive is corrupt", "host", u.Key.Host, "episode", u.Key.Name, "object", c.object, "err", err, "hint", "its host sends it again")
		found.state = corrupt
	} else if err != nil {
		return lookupResult{}, access.CauseOf(work, err)
	} else {
		b.read.Add(ctx, id)
	}
	found.row, err = b.ensureRow(context.WithoutCancel(ctx), c)
	if err == nil && found.state == stored {
		err = b.index.CatchUp(ctx) // after a fence only the new place acknowledges
	}
	return found, err
}

// noteConflict tells the observer of an upload that is refused for the archive of a commit.
func (b *Backend) noteConflict(u wire.Upload, c commit) {
	if b.opts.Observer != nil {
		b.opts.Observer.NoteConflict(u.Key, u.Digest, c.row.SHA256)
	}
}

// errCorrupt says that an archive is missing from the bucket, or has other bytes than its commit says.
var errCorrupt = errors.New("archive is corrupt")

// readBack reads an archive from the bucket, and returns an error wrapping [errCorrupt] if it is not
// what was committed.
func (b *Backend) readBack(ctx context.Context, c commit) error {
	return b.checkObject(ctx, c.object, c.row.Key.Host, c.row.SHA256, c.row.Size)
}

// checkObject reads an object, and returns an error wrapping [errCorrupt] if it has another digest or
// size. A host reads one at a time: a few bytes of request must not cause more.
func (b *Backend) checkObject(ctx context.Context, name string, host episode.Name, want digest.Digest, size int64) error {
	unlock, err := b.readings.LockContext(ctx, host)
	if err != nil {
		return err
	}
	defer unlock()
	r, _, err := b.bucket.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer r.Close()
	got, n, err := digest.Of(io.LimitReader(r, size+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if got != want || n != size {
		return fmt.Errorf("%w: %s has the sha256 %s", errCorrupt, name, got)
	}
	return nil
}

// decodeArchive reads an archive to its end and decodes it. It returns an error wrapping [errCorrupt] if
// it is not what was committed, and errUndecodable if it is and cannot be decoded. It decodes at most
// [archive.ExpansionLimit] bytes.
func decodeArchive(ctx context.Context, in bucket.Bucket, c commit) (contents digest.Digest, err error) {
	contents, _, err = readArchive(ctx, in, c, archiveReading{decoded: &limitedWriter{archive.ExpansionLimit(c.row.Size)}})
	return contents, err
}

// archiveReading says how an archive is read.
type archiveReading struct {
	pace    func(io.Reader) io.Reader // unless nil, slows the reading down
	decoded io.Writer                 // gets the decoded bytes; its error ends the decoding
	// contents, unless nil, returns the digest of the contents of an object that was decoded before.
	contents func(bucket.Info) (digest.Digest, bool)
}

// readArchive reads an archive to its end and decodes it, with the errors of [decodeArchive]. It returns
// the object that it has read.
func readArchive(ctx context.Context, in bucket.Bucket, c commit, how archiveReading) (contents digest.Digest, info bucket.Info, err error) {
	r, info, err := in.Open(ctx, c.object)
	if errors.Is(err, fs.ErrNotExist) {
		return contents, info, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	if err != nil {
		return contents, info, fmt.Errorf("open %s: %w", c.object, err)
	}
	defer r.Close()
	source := &sourceReader{r: io.LimitReader(r, c.row.Size+1)}
	if how.pace != nil {
		source.r = how.pace(source.r)
	}
	whole := digest.NewWriter(io.Discard)
	read := io.TeeReader(source, whole)
	known := false
	if how.contents != nil {
		contents, known = how.contents(info)
	}
	var undecodable error
	if !known {
		contents, undecodable = archive.ContentDigest(read, how.decoded)
	}
	if source.err == nil {
		_, _ = io.Copy(io.Discard, read) // what the decoder has left; source has the error
	}
	if source.err != nil {
		return contents, info, fmt.Errorf("read %s: %w", c.object, source.err)
	}
	if got, n := whole.Sum(); got != c.row.SHA256 || n != c.row.Size {
		return contents, info, fmt.Errorf("%w: %s has %d bytes with the sha256 %s", errCorrupt, c.object, info.Size, got)
	}
	if undecodable != nil {
		return contents, info, fmt.Errorf("%w: %s: %w", errUndecodable, c.object, undecodable)
	}
	return contents, info, nil
}

// errUndecodable says that an archive is what was committed, and no archive of an episode.
var errUndecodable = errors.New("archive cannot be decoded")

// limitedWriter discards a number of bytes, and fails then.
type limitedWriter struct{ left int64 }

func (w *limitedWriter) Write(b []byte) (int, error) {
	w.left -= int64(len(b))
	if w.left < 0 {
		return 0, fmt.Errorf("it decodes to more than %d times its size", archive.MaxRatio)
	}
	return len(b), nil
}

// readMeta returns the Git commit in an archive's meta.json, or "". An archive without meta.json, or
// one that does not decode, is stored all the same. An error is of the reading.
func (b *Backend) readMeta(ctx context.Context, key episode.Key, from io.Reader) (string, error) {
	var reader *archive.MetaReader
	select {
	case reader = <-b.metas:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { b.metas <- reader }()
	source := &sourceReader{r: from}
	meta, err := reader.Read(source, key.Name)
	if source.err != nil {
		return "", fmt.Errorf("read meta.json of %s/%s: %w", key.Host, key.Name, source.err)
	}
	if err == nil {
		return meta.Commit, nil
	}
	log := b.log.With("host", key.Host, "episode", key.Name, "err", err)
	if _, bad := errors.AsType[*episode.MetaError](err); bad {
		log.Warn("meta.json cannot be read")
	} else {
		log.Debug("no meta.json")
	}
	return "", nil
}

// sourceReader keeps the error of a reader, which a decoder hides.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// metaTimeout bounds the reading of meta.json from the bucket, because it occupies one of few decoders.
const metaTimeout = 15 * time.Second

// readStoredMeta is [Backend.readMeta] of an archive in the bucket.
func (b *Backend) readStoredMeta(ctx context.Context, key episode.Key, object string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	defer cancel()
	r, _, err := b.bucket.Open(ctx, object)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", object, err)
	}
	defer r.Close()
	return b.readMeta(ctx, key, r)
}
