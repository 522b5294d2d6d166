package diskbackend

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"cis490/internal/access"
	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/readback"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// storeStaged commits a staged upload and appends its row. If state reports a corrupt copy, the upload
// takes its place. It continues if the sender disconnects, because all bytes have arrived.
func (b *Backend) storeStaged(sender context.Context, up *store.Upload, u wire.Upload, state storedState) (wire.Receipt, error) {
	ctx, begun := context.WithoutCancel(sender), time.Now()
	row := index.Row{
		Key: u.Key, SHA256: u.Digest, Size: u.Size, Skipped: u.Skipped,
		Commit: b.readMetaCommit(u.Key, io.NewSectionReader(up, 0, u.Size)),
	}
	unlock := b.keyLocks.Lock(u.Key)
	row.ReceivedAt = b.index.RowTime(time.Now())
	var err error
	if row.Repaired, err = b.commitStaged(sender, up, u, row.ReceivedAt, state); err != nil {
		// The lock must be released first: resolveCommitError takes it to look for what another
		// upload has stored.
		unlock()
		return b.resolveCommitError(ctx, up, u, err)
	}
	defer unlock()
	if row, err = b.index.Append(ctx, row); err != nil {
		// The file is stored, and the remaining staging link marks a missing index row. The
		// next attempt or restart appends it.
		return wire.Receipt{}, errors.Join(err, up.Abandon())
	}
	if err := up.MarkIndexed(row.ReceivedAt); err != nil {
		return wire.Receipt{}, err
	}
	b.observer.NoteStored(row, time.Since(begun))
	b.readbackCache.Add(sender, readback.Archive{Key: u.Key, Digest: u.Digest})
	b.log.Info("upload stored", "host", row.Key.Host, "episode", row.Key.Name, "sha256", row.SHA256, "bytes", row.Size, "repaired", row.Repaired)
	return newReceipt(wire.Stored, row), nil
}

// commitStaged makes a staged upload durable and visible under its name. It reports whether the
// key has a row already. The caller must hold the lock of the key.
func (b *Backend) commitStaged(sender context.Context, up *store.Upload, u wire.Upload, arrived time.Time, state storedState) (repaired bool, err error) {
	work := access.WorkContext(sender, context.WithoutCancel(sender))
	if state == corrupt {
		err = b.quarantineCorrupt(work, u.Key)
	}
	if err == nil {
		repaired, err = b.supersedesRow(work, u)
	}
	if err = access.CauseOf(work, err); err == nil {
		// The host may have lost access since the request began. From here on it gets its
		// receipt.
		err = access.Recheck(sender)
	}
	if err == nil {
		err = cmp.Or(b.checkPaths(), b.store.CheckHost(u.Key.Host))
	}
	if err == nil {
		err = up.Commit(u.Digest, arrived)
	}
	return repaired, err
}

// quarantineCorrupt moves a corrupt copy to quarantine, once the bytes that replace it are
// staged. The caller must hold the lock of the key.
func (b *Backend) quarantineCorrupt(ctx context.Context, key episode.Key) error {
	// Another upload may have repaired it since: read it again, under the lock.
	_, err := b.store.ReadBack(ctx, key, digest.Digest{}, store.Reading{})
	if isCorrupt(err) {
		finding := findingOf(err)
		if err = b.store.Quarantine(key); err == nil {
			b.observer.NoteDamage(key, finding, true)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// supersedesRow reports whether the key has a row already, which the row of this upload
// supersedes. A copy may have been quarantined before a crash. Of one that was deleted by hand
// only its host knows.
func (b *Backend) supersedesRow(ctx context.Context, u wire.Upload) (bool, error) {
	quarantined, err := b.store.IsQuarantined(u.Key)
	if err != nil || !quarantined && !u.Resent {
		return false, err
	}
	rows, err := b.rowSearches.lookUp(ctx, u.Key.Host, u.Key)
	_, found := rows.LastRow(u.Key)
	return found, err
}

// resolveCommitError ends an upload that could not be committed. If another one of the same
// key was first, its archive decides the answer. The caller must not hold the lock of the
// key.
func (b *Backend) resolveCommitError(ctx context.Context, up *store.Upload, u wire.Upload, err error) (wire.Receipt, error) {
	if errors.Is(err, durable.ErrFault) {
		// The name may exist already: the staging name must stay as a mark.
		return wire.Receipt{}, errors.Join(err, up.Abandon())
	}
	if !errors.Is(err, fs.ErrExist) {
		return wire.Receipt{}, errors.Join(err, up.Discard())
	}
	if err := up.Discard(); err != nil {
		return wire.Receipt{}, err
	}
	found, err := b.findStored(ctx, u)
	if err != nil {
		return wire.Receipt{}, err
	}
	if !found.isFinal() {
		return wire.Receipt{}, wire.Refuse(wire.Damaged, "send it again")
	}
	return found.wireResult()
}

// rowOf returns the row of a stored archive. What only its upload or its bytes tell is missing.
func rowOf(o store.Object) index.Row {
	return index.Row{ReceivedAt: o.ReceivedAt, Key: o.Key, SHA256: o.Digest, Size: o.Size}
}

func newReceipt(s wire.Status, row index.Row) wire.Receipt {
	return wire.Receipt{
		Status: s, Host: row.Key.Host, Episode: row.Key.Name,
		Digest: row.SHA256, Size: row.Size, ReceivedAt: wire.Timestamp{Time: row.ReceivedAt},
	}
}

// maxMetaReaders is the number of decoders for meta.json. Each has a window of its own.
const maxMetaReaders = 2

func newMetaReaders() chan *archive.MetaReader {
	c := make(chan *archive.MetaReader, maxMetaReaders)
	for range maxMetaReaders {
		c <- new(archive.MetaReader)
	}
	return c
}

// readMetaCommit returns the Git commit in an archive's meta.json, or "". An archive without
// meta.json, or one that does not decode, is stored all the same.
func (b *Backend) readMetaCommit(key episode.Key, from io.Reader) string {
	reader := <-b.metaReaders
	defer func() { b.metaReaders <- reader }()
	meta, err := reader.Read(from, key.Name)
	if err == nil {
		return meta.Commit
	}
	log := b.log.With("host", key.Host, "episode", key.Name, "err", err)
	if _, bad := errors.AsType[*episode.MetaError](err); bad {
		log.Warn("meta.json cannot be read")
	} else {
		log.Debug("no meta.json")
	}
	return ""
}
