package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"cis490/internal/archive"
	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/retry"
	"cis490/internal/scrub"
	"cis490/internal/store"
	"cis490/internal/wire"
)

const (
	verifiedPrefix   = "verified/"
	quarantinePrefix = "quarantine/"
)

// verification is the content of an object that says that an archive was read and decoded. It is a hint:
// without it the archive counts as not verified.
type verification struct {
	Object   string         `json:"object"`
	ETag     string         `json:"etag"` // of the object that was read
	At       wire.Timestamp `json:"at"`
	Contents digest.Digest  `json:"contents_sha256"`
	// Decoded is the number of decoded bytes, if it is large. Then the archive is not decoded again.
	Decoded int64 `json:"decoded_bytes,omitzero"`
}

// quarantineRecord is the content of an object that says that an archive was found corrupt. The archive
// stays where it is. For its host it is absent, until it is sent again as the next generation.
type quarantineRecord struct {
	Object string        `json:"object"`
	SHA256 digest.Digest `json:"sha256"` // that it should have
	At     time.Time     `json:"at"`
	Reason string        `json:"reason"`
}

func nameBeside(prefix string, c commit) string {
	return fmt.Sprintf("%s%s/%s/%d.json", prefix, c.row.Key.Host, c.row.Key.Name, c.generation)
}

// readVerification returns the verification of an archive, if it has one.
func (b *Backend) readVerification(ctx context.Context, c commit) (v verification, known bool, err error) {
	err = b.readJSON(ctx, nameBeside(verifiedPrefix, c), &v)
	if errors.Is(err, fs.ErrNotExist) || err == nil && v.Object != c.object {
		return verification{}, false, nil
	}
	return v, err == nil, err
}

func (b *Backend) recordVerification(ctx context.Context, c commit, v verification) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.bucket.Put(ctx, nameBeside(verifiedPrefix, c), bytes.NewReader(body), int64(len(body)), sha256.Sum256(body))
}

// errQuarantined says that an archive was found corrupt earlier.
var errQuarantined = fmt.Errorf("%w: it was quarantined earlier", errCorrupt)

// isQuarantined reports whether an archive was found corrupt.
func (b *Backend) isQuarantined(ctx context.Context, c commit) (bool, error) {
	at, err := b.quarantinedAt(ctx, c)
	return !at.IsZero(), err
}

// quarantinedAt returns when an archive was quarantined, or the zero time.
func (b *Backend) quarantinedAt(ctx context.Context, c commit) (time.Time, error) {
	info, err := b.bucket.Stat(ctx, nameBeside(quarantinePrefix, c))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err == nil && info.ModifiedAt.IsZero() {
		info.ModifiedAt = time.Unix(0, 0)
	}
	return info.ModifiedAt, err
}

// quarantineArchive records that an archive is corrupt. Its verification goes first: for that, its host may delete
// the episode.
func (b *Backend) quarantineArchive(ctx context.Context, c commit, reason error) error {
	if err := b.bucket.Remove(ctx, nameBeside(verifiedPrefix, c)); err != nil {
		return err
	}
	err := b.createJSON(ctx, nameBeside(quarantinePrefix, c), quarantineRecord{
		Object: c.object, SHA256: c.row.SHA256, At: time.Now().UTC().Truncate(time.Second), Reason: reason.Error(),
	})
	if errors.Is(err, fs.ErrExist) {
		err = nil // another receiver has found it
	}
	return err
}

// archiveReader reads archives, decodes them, and records the result.
type archiveReader struct {
	backend    *Backend
	budget     *scrub.Budget // nil: a host waits for the result
	quarantine bool          // quarantine what is corrupt
	onBytes    func(int)     // unless nil, is called with the number of bytes of each read
}

// rereadDelay is how long an object store that failed to return an archive may recover before it is asked
// again, unless a host waits.
const rereadDelay = 5 * time.Second

// verify reads an archive until a reading succeeds, or two of them fail. earlier is its last verification,
// or zero. It returns the new one, which is zero if the archive is not verified. The error wraps
// [fs.ErrNotExist] if the archive is missing.
func (r *archiveReader) verify(ctx context.Context, c commit, earlier verification) (scrub.Result, verification, error) {
	var v verification
	var newExpansion bool
	attempt := 0
	read := func(m *scrub.Meter) (store.Object, error) {
		attempt++
		if attempt > 1 && r.budget != nil {
			retry.Sleep(ctx, rereadDelay)
		}
		m.Start(ctx, r.budget, c.row.Size, nil) // readOnce counts the bytes
		var err error
		v, newExpansion, err = r.readOnce(ctx, c, earlier, m)
		return store.Object{Key: c.row.Key, Size: c.row.Size, Digest: c.row.SHA256}, err
	}
	result, err := r.backend.verifier.ReadTwice(c.row.Key, read)
	if result.Err != nil && !errors.Is(result.Err, store.ErrUnreadable) {
		r.backend.verifier.RecordReadError(nil) // the engine has returned bytes
	}
	result.ExpandedSize, result.NewExpansion = v.Decoded, newExpansion
	if err == nil {
		err = r.record(ctx, c, &result, v)
	}
	if err != nil || result.Err != nil {
		v = verification{}
	}
	return result, v, err
}

// readOnce reads and decodes an archive once. It returns an error of package store, of ctx, or one
// wrapping [fs.ErrNotExist].
func (r *archiveReader) readOnce(ctx context.Context, c commit, earlier verification, m *scrub.Meter) (v verification, newExpansion bool, err error) {
	decodedBefore := false
	contents, info, err := readArchive(ctx, r.backend.bucket, c, archiveReading{
		pace: func(from io.Reader) io.Reader { return m.Pace(&countedReader{from, r.onBytes}) }, decoded: m,
		contents: func(now bucket.Info) (digest.Digest, bool) {
			decodedBefore = earlier.Decoded > archive.ExpansionLimit(c.row.Size) && earlier.ETag == now.ETag
			return earlier.Contents, decodedBefore
		},
	})
	switch {
	case ctx.Err() != nil:
		return v, false, ctx.Err()
	case errors.Is(err, store.ErrUndecided), errors.Is(err, fs.ErrNotExist):
		if errors.Is(err, store.ErrUndecided) {
			err = nil // the scrub decodes it
		}
		return v, false, err
	case errors.Is(err, errCorrupt):
		return v, false, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	case errors.Is(err, errUndecodable):
		return v, false, fmt.Errorf("%w: %w", store.ErrUndecodable, err)
	case err != nil:
		return v, false, fmt.Errorf("%w: %w", store.ErrUnreadable, err)
	}
	v = verification{Object: c.object, ETag: info.ETag, At: wire.Timestamp{Time: time.Now()}, Contents: contents}
	switch {
	case decodedBefore:
		v.Decoded = earlier.Decoded
	case m.IsExpansive():
		v.Decoded, newExpansion = m.Decoded(), true
	}
	return v, newExpansion, nil
}

// countedReader passes the number of bytes of each read to count, unless that is nil.
type countedReader struct {
	io.Reader
	count func(int)
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if c.count != nil {
		c.count(n)
	}
	return n, err
}

// record records the result of a verification in the bucket.
func (r *archiveReader) record(ctx context.Context, c commit, result *scrub.Result, v verification) error {
	b := r.backend
	switch {
	case errors.Is(result.Err, store.ErrUnreadable):
		return nil // an object store that does not answer says nothing about the archive
	case errors.Is(result.Err, store.ErrCorrupt) && r.quarantine:
		err := b.quarantineArchive(ctx, c, result.Err)
		result.Quarantined = err == nil
		return err
	case result.Err != nil:
		return b.bucket.Remove(ctx, nameBeside(verifiedPrefix, c))
	case v.At.IsZero():
		return nil
	}
	if err := b.recordVerification(ctx, c, v); err != nil { // it is read again
		b.log.Warn("verification not recorded", "host", c.row.Key.Host, "episode", c.row.Key.Name, "err", err)
	}
	// Another receiver may have quarantined the archive meanwhile. The engine does not return it reliably.
	isQuarantined, err := b.isQuarantined(ctx, c)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnreadable, err)
	}
	if !isQuarantined {
		return nil
	}
	result.Err, result.Quarantined = fmt.Errorf("%w: %w", store.ErrCorrupt, errQuarantined), true
	return b.bucket.Remove(ctx, nameBeside(verifiedPrefix, c))
}
