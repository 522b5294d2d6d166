package receiver

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// commitUpload makes a staged upload a stored archive with a row, in the place of a corrupt
// copy if state reports one. It continues if the sender disconnects, because all bytes have
// arrived.
func (r *Receiver) commitUpload(sender context.Context, up *store.Upload, u wire.Upload, state storedState) (wire.Receipt, error) {
	ctx := context.WithoutCancel(sender)
	commit := r.readCommit(u.Key, func() (io.Reader, func() error, error) {
		return io.NewSectionReader(up, 0, u.Size), func() error { return nil }, nil
	})
	unlock := r.keyLocks.Lock(u.Key)
	o := store.Object{Key: u.Key, Size: u.Size, Digest: u.Digest, ReceivedAt: r.index.RowTime(time.Now())}
	repaired, err := r.commitFile(sender, up, u, o, state)
	if err != nil {
		// The lock must be released first: resolveCommitError calls lookupStored, which
		// takes it.
		unlock()
		return r.resolveCommitError(ctx, up, u, err)
	}
	defer unlock()
	row := rowOf(o)
	row.Commit, row.Skipped, row.Repaired = commit, u.Skipped, repaired
	if row, err = r.index.Append(ctx, row); err != nil {
		// The file is stored, and the remaining staging link marks a missing index row. The
		// next attempt or restart appends it.
		return wire.Receipt{}, errors.Join(err, up.Abandon())
	}
	o.ReceivedAt = row.ReceivedAt
	if err := up.MarkIndexed(o.Digest, o.ReceivedAt); err != nil {
		return wire.Receipt{}, err
	}
	r.readbackCache.addResult(sender, archiveID{u.Key, u.Digest})
	r.log.Info("upload stored", "host", o.Key.Host, "episode", o.Key.Name, "sha256", o.Digest, "bytes", o.Size, "repaired", repaired)
	return newReceipt(wire.Stored, o), nil
}

// commitFile gives a staged upload its name in the store. It reports whether the key has a
// row already. The caller must hold the lock of the key.
func (r *Receiver) commitFile(sender context.Context, up *store.Upload, u wire.Upload, o store.Object, state storedState) (repaired bool, err error) {
	work := workContext(sender, context.WithoutCancel(sender))
	repaired, err = r.quarantineCorrupt(work, u, state)
	if err = contextCause(work, err); err == nil {
		// The host may have lost access since the request began. From here on it gets its
		// receipt.
		err = r.access.recheckRequest(sender)
	}
	if err == nil {
		err = cmp.Or(r.checkPaths(), r.store.CheckHost(u.Key.Host))
	}
	if err == nil {
		err = up.Commit(o.Digest, o.ReceivedAt)
	}
	return repaired, err
}

// quarantineCorrupt moves a corrupt copy to quarantine, once the bytes that replace it are
// staged. It reports whether the key has a row already, which the next one supersedes. A
// copy may have been quarantined before a crash. Of one that was deleted by hand only its
// host knows. The caller must hold the lock of the key.
func (r *Receiver) quarantineCorrupt(ctx context.Context, u wire.Upload, state storedState) (hasRow bool, err error) {
	key := u.Key
	if state == corrupt {
		// Another upload may have repaired it since: read it again, under the lock.
		_, err := r.store.ReadBack(ctx, key, digest.Digest{}, store.Reading{})
		if isCorrupt(err) {
			err = r.store.Quarantine(key)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	quarantined, err := r.store.IsQuarantined(key)
	if err != nil || !quarantined && !u.Resent {
		return false, err
	}
	rows, err := r.rowSearches.lookUp(ctx, key.Host, key)
	_, found := rows.LastRow(key)
	return found, err
}

// resolveCommitError ends an upload that could not be committed. If another one of the same
// key was first, its archive decides the answer. The caller must not hold the lock of the
// key.
func (r *Receiver) resolveCommitError(ctx context.Context, up *store.Upload, u wire.Upload, err error) (wire.Receipt, error) {
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
	found, err := r.lookupStored(ctx, u)
	if err != nil {
		return wire.Receipt{}, err
	}
	if !found.isFinal() {
		return wire.Receipt{}, wire.Refuse(wire.Damaged, "send it again")
	}
	return found.wireResult()
}

func rowOf(o store.Object) index.Row {
	return index.Row{ReceivedAt: o.ReceivedAt, Host: o.Key.Host, Episode: o.Key.Name, SHA256: o.Digest, Size: o.Size}
}

func newReceipt(s wire.Status, o store.Object) wire.Receipt {
	return wire.Receipt{
		Status: s, Host: o.Key.Host, Episode: o.Key.Name,
		Digest: o.Digest, Size: o.Size, ReceivedAt: wire.Timestamp{Time: o.ReceivedAt},
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

// readCommit returns the commit in an archive's meta.json, or "". An archive without
// meta.json, or one that does not decode, is stored all the same.
func (r *Receiver) readCommit(key episode.Key, open func() (io.Reader, func() error, error)) string {
	reader := <-r.metaReaders
	defer func() { r.metaReaders <- reader }()
	from, done, err := open()
	if err == nil {
		defer done()
		var meta episode.Meta
		if meta, err = reader.Read(from, key.Name); err == nil {
			return meta.Commit
		}
	}
	log := r.log.With("host", key.Host, "episode", key.Name, "err", err)
	if _, bad := errors.AsType[*episode.MetaError](err); bad {
		log.Warn("meta.json cannot be read")
	} else {
		log.Debug("no meta.json")
	}
	return ""
}

func (r *Receiver) openStored(key episode.Key) func() (io.Reader, func() error, error) {
	return func() (io.Reader, func() error, error) {
		f, err := r.store.Open(key)
		if err != nil {
			return nil, nil, err
		}
		return f, f.Close, nil
	}
}
