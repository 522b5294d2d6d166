package diskbackend

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"cis490/internal/access"
	"cis490/internal/digest"
	"cis490/internal/index"
	"cis490/internal/readback"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// storedState says what is stored under the key of an upload.
type storedState int

const (
	notStored storedState = iota
	stored                // the same archive
	conflicts             // another archive
	corrupt               // the same archive once, but its copy is corrupt now
)

// lookupResult is the result of [Backend.findStored].
type lookupResult struct {
	state  storedState
	row    index.Row // of what is stored, if state is stored or conflicts
	rowErr error     // with stored: why the row could not be ensured
}

// isFinal reports whether the upload has its answer, and nothing is to be stored.
func (l lookupResult) isFinal() bool { return l.state == stored || l.state == conflicts }

// wireResult returns the answer to an upload for which isFinal reports true.
func (l lookupResult) wireResult() (wire.Receipt, error) {
	switch {
	case l.state == conflicts:
		return wire.Receipt{}, conflictError(l.row.SHA256)
	case l.rowErr != nil:
		return wire.Receipt{}, l.rowErr
	}
	return newReceipt(wire.AlreadyPresent, l.row), nil
}

func conflictError(stored digest.Digest) error {
	p := wire.Refuse(wire.Conflict, "another archive is stored under this name")
	p.Stored = stored
	return p
}

// findStored looks for the archive of an upload in the store. It reads a stored copy from
// the disk, because the sender may delete its own for the answer, and makes sure that it
// has a row. It takes the lock of the key for all of that.
func (b *Backend) findStored(ctx context.Context, u wire.Upload) (lookupResult, error) {
	found, err := b.lookUpStored(ctx, u)
	if err == nil && found.state == conflicts {
		b.observer.NoteConflict(u.Key, u.Digest, found.row.SHA256)
	}
	return found, err
}

func (b *Backend) lookUpStored(ctx context.Context, u wire.Upload) (lookupResult, error) {
	unlock, err := b.keyLocks.LockContext(ctx, u.Key)
	if err != nil {
		return lookupResult{}, err
	}
	defer unlock()
	o, err := b.store.Stat(u.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return lookupResult{state: notStored}, nil
	}
	if err != nil {
		return lookupResult{}, err
	}
	if !o.Digest.IsZero() && o.Digest != u.Digest {
		return lookupResult{state: conflicts, row: rowOf(o)}, nil
	}
	id, work := readback.Archive{Key: u.Key, Digest: u.Digest}, access.WorkContext(ctx, b.baseCtx)
	if cached := b.readbackCache.Take(id); o.Digest.IsZero() || u.Resent || !cached {
		// One per host: a few bytes of request must not occupy the disk.
		unlockHost, lerr := b.readbackLocks.LockContext(ctx, u.Key.Host)
		if lerr != nil {
			return lookupResult{}, lerr
		}
		// It continues if the sender disconnects: the next attempt needs the result.
		o, err = b.store.ReadBack(work, u.Key, digest.Digest{}, store.Reading{})
		unlockHost()
	}
	if isCorrupt(err) {
		b.log.Error("stored archive is corrupt", "host", u.Key.Host, "episode", u.Key.Name, "err", err, "hint", "its host sends it again")
		return lookupResult{state: corrupt}, nil
	}
	if err != nil {
		return lookupResult{}, access.CauseOf(work, err)
	}
	if o.Digest != u.Digest {
		return lookupResult{state: conflicts, row: rowOf(o)}, nil
	}
	b.readbackCache.Add(ctx, id)
	if !o.Indexed {
		found, err := b.rowSearches.lookUp(ctx, u.Key.Host, u.Key)
		if err != nil {
			b.readbackCache.Add(ctx, id)
			return lookupResult{}, err
		}
		row, err := b.ensureIndexed(context.WithoutCancel(ctx), o, found)
		return lookupResult{stored, row, err}, nil
	}
	return lookupResult{state: stored, row: rowOf(o)}, nil
}

// isCorrupt reports whether err says that the bytes of a stored copy are wrong, or that the
// disk does not return them.
func isCorrupt(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, unix.EIO)
}

// ensureIndexed makes sure that a stored archive has a row: it may have been copied in by
// hand, or its row could not be appended. The caller must hold the lock of its key, and
// found must be the result of a search for the key under that lock.
func (b *Backend) ensureIndexed(ctx context.Context, o store.Object, found index.SearchResult) (index.Row, error) {
	if err := b.store.SyncHostDir(o.Key); err != nil {
		return index.Row{}, err
	}
	f, err := b.store.Open(o.Key)
	if err != nil {
		return index.Row{}, err
	}
	defer f.Close()
	row := rowOf(o)
	row.Commit = b.readMetaCommit(o.Key, f)
	if row, err = b.index.EnsureRow(ctx, row, found); err != nil {
		return index.Row{}, err
	}
	o.ReceivedAt = row.ReceivedAt
	return row, b.store.MarkIndexed(o)
}
