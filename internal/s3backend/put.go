package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"cis490/internal/access"
	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/readback"
	"cis490/internal/refusal"
	"cis490/internal/wire"
)

// Stat returns the receipt of the archive under key.
func (b *Backend) Stat(ctx context.Context, key episode.Key) (wire.Receipt, error) {
	c, err := b.newestCommit(ctx, key)
	if err == nil {
		var isQuarantined bool
		if isQuarantined, err = b.isQuarantined(ctx, c); isQuarantined {
			err = fs.ErrNotExist
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = wire.Refuse(wire.NotFound, "no archive under this name")
	}
	return newReceipt(wire.AlreadyPresent, c.row), b.checkAnswer(ctx, err)
}

// Put stores an archive, and returns when the engine has it and its row.
func (b *Backend) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	got, err := b.putArchive(ctx, u, body)
	return got, b.checkReceipt(ctx, got, err)
}

// checkReceipt is [Backend.checkAnswer] for a request that ended with a receipt or err. A receipt for
// an archive that this request stored needs no access any more: the host had access at the commit.
func (b *Backend) checkReceipt(ctx context.Context, got wire.Receipt, err error) error {
	if err == nil && got.Status == wire.Stored {
		return nil
	}
	return b.checkAnswer(ctx, err)
}

func (b *Backend) putArchive(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	if err := refusal.CheckSize(u.Size, b.opts.Limits.MaxSize); err != nil {
		return wire.Receipt{}, err
	}
	release, err := b.uploads.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer release()
	found, err := b.find(ctx, u)
	if err != nil {
		return wire.Receipt{}, err
	}
	if found.isFinal() {
		return found.result()
	}
	reserved, err := b.disk.Reserve(u.Key.Host, 0, u.Size)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer reserved.Release()
	name := archiveName(u.Key, u.Digest, found.next())
	meta, err := b.putBody(ctx, u, body, name)
	if err != nil {
		return wire.Receipt{}, err
	}
	reserved.RecordWritten(u.Size)
	return b.commitArchive(ctx, u, found.next(), name, meta)
}

// putBody puts an archive into the bucket while it arrives, and returns the Git commit in its
// meta.json. The signature of the request covers the digest, so that the engine refuses other bytes.
// An archive that is smaller than [wire.MinAnnounced] is compared here first.
func (b *Backend) putBody(ctx context.Context, u wire.Upload, body io.Reader, name string) (string, error) {
	if u.Size >= wire.MinAnnounced {
		err := b.put(ctx, name, body, u)
		if errors.Is(err, bucket.ErrDigest) {
			return "", errors.Join(errMismatch, err)
		}
		if err != nil {
			return "", err
		}
		return b.readStoredMeta(b.workContext(ctx), u.Key, name)
	}
	archive := make([]byte, u.Size)
	if _, err := io.ReadFull(body, archive); err != nil {
		return "", err
	}
	if digest.Digest(sha256.Sum256(archive)) != u.Digest {
		return "", errMismatch
	}
	// All bytes have arrived: it continues if the sender disconnects.
	work := b.workContext(ctx)
	if err := b.put(work, name, bytes.NewReader(archive), u); err != nil {
		return "", access.CauseOf(work, err)
	}
	return b.readMeta(work, u.Key, bytes.NewReader(archive))
}

var errMismatch = wire.Refuse(wire.DigestMismatch, "nothing was stored")

func (b *Backend) put(ctx context.Context, name string, body io.Reader, u wire.Upload) error {
	if err := b.bucket.Put(ctx, name, body, u.Size, u.Digest); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// commitArchive commits an archive, which is an object of the bucket, and ensures its row. It continues if the
// sender disconnects, because all bytes have arrived.
func (b *Backend) commitArchive(sender context.Context, u wire.Upload, generation int, object, meta string) (wire.Receipt, error) {
	ctx, begun := context.WithoutCancel(sender), time.Now()
	unlock := b.keys.Lock(u.Key)
	defer unlock()
	// The host may have lost access since the request began. From here on it gets its receipt.
	if err := access.Recheck(sender); err != nil {
		return wire.Receipt{}, err
	}
	c := commit{
		generation: generation, object: object, since: b.index.Head(), offset: notCopied,
		row: index.Row{
			ReceivedAt: time.Now(), Key: u.Key, SHA256: u.Digest, Size: u.Size,
			Commit: meta, Skipped: u.Skipped, Repaired: generation > 1,
		},
	}
	status := wire.Stored
	err := b.createCommit(ctx, c)
	if errors.Is(err, fs.ErrExist) { // another request was first: its commit decides
		if c, err = b.readCommit(ctx, u.Key, generation); err == nil && c.row.SHA256 != u.Digest {
			b.noteConflict(u, c)
			return wire.Receipt{}, conflictError(c.row.SHA256)
		}
		status = wire.AlreadyPresent
		if err == nil {
			err = b.checkWinner(ctx, c, object)
		}
	}
	if err != nil {
		return wire.Receipt{}, err
	}
	row, err := b.ensureRow(ctx, c)
	if err != nil {
		return wire.Receipt{}, err
	}
	select {
	case b.appended <- struct{}{}:
	default: // the copy is being completed
	}
	b.read.Add(sender, readback.Archive{Key: u.Key, Digest: u.Digest})
	if status == wire.Stored {
		if b.opts.Observer != nil {
			b.opts.Observer.NoteStored(row, time.Since(begun))
		}
		b.log.Info("upload stored", "host", row.Key.Host, "episode", row.Key.Name, "sha256", row.SHA256, "bytes", row.Size, "repaired", row.Repaired)
	}
	return newReceipt(status, row), nil
}

// checkWinner checks the archive of a commit that another request has made meanwhile: the sender may
// delete its own for the answer. It reads the archive back unless that is object, which has just been put.
func (b *Backend) checkWinner(ctx context.Context, c commit, object string) error {
	isQuarantined, err := b.isQuarantined(ctx, c)
	switch {
	case err != nil:
		return err
	case isQuarantined:
		err = errQuarantined
	case c.object != object:
		err = b.readBack(ctx, c)
	}
	if errors.Is(err, errCorrupt) {
		return errors.Join(wire.Refuse(wire.Damaged, "send it again"), err)
	}
	return err
}

func newReceipt(s wire.Status, row index.Row) wire.Receipt {
	return wire.Receipt{
		Status: s, Host: row.Key.Host, Episode: row.Key.Name,
		Digest: row.SHA256, Size: row.Size, ReceivedAt: wire.Timestamp{Time: row.ReceivedAt},
	}
}
