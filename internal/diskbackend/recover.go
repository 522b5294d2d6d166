package diskbackend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cis490/internal/durable"
	"cis490/internal/scrub"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Recover completes or drops the uploads that a crash interrupted. It lists staging
// only: its cost is proportional to the uploads in flight. progress, unless nil,
// is called with the number of bytes of each read of a committed upload.
//
// An upload that cannot be read does not affect the others. Too many of them in a row are a
// storage fault.
func (b *Backend) Recover(ctx context.Context, progress func(bytes int)) error {
	for staged, err := range b.store.AllStaged() {
		if stray, ok := errors.AsType[*store.StrayError](err); ok {
			b.log.Warn("unknown file in staging", "err", stray)
			continue
		}
		if err == nil {
			err = b.recoverStaged(ctx, staged, progress)
		} else if fault := b.countReadError(err); fault != nil {
			err = fault
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):
			return err
		case err != nil:
			// It stays in staging as a mark of the missing row: the next upload of its
			// key, or the next start, tries again.
			b.log.Error("could not recover interrupted upload", "host", staged.Key.Host, "episode", staged.Key.Name, "err", err, "hint", scrub.UnreadableHint)
		}
	}
	return nil
}

// countReadError counts err if it is a read error, and returns a [durable.ErrFault] if there
// were too many in a row.
func (b *Backend) countReadError(err error) error {
	if b.verifier.RecordReadError(err) {
		return fmt.Errorf("%w: %w: %w", durable.ErrFault, scrub.ErrDisk, err)
	}
	return nil
}

// recoverStaged completes the upload of a staging file if it was committed.
func (b *Backend) recoverStaged(ctx context.Context, staged store.Staged, progress func(bytes int)) error {
	o, committed, err := staged.Linked(ctx, progress)
	if store.FailsVerification(err) { // two readings must agree
		o, committed, err = staged.Linked(ctx, progress)
	}
	if committed || err != nil {
		if fault := b.countReadError(err); fault != nil {
			return fault
		}
	}
	if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrUnreadable) {
		return b.recoverCorrupt(ctx, staged, err)
	}
	if err != nil {
		return err
	}
	if !committed {
		return b.recoverUncommitted(staged)
	}
	found, err := b.index.FindRows(ctx, o.Key)
	if err != nil {
		return err
	}
	row, err := b.ensureIndexed(ctx, o, found)
	if err != nil {
		return err
	}
	b.observer.NoteRecovered(row)
	b.log.Info("recovered upload", "host", o.Key.Host, "episode", o.Key.Name, "sha256", o.Digest, "bytes", o.Size)
	return nil
}

// recoverUncommitted restores the session of an upload that was not acknowledged, if it can
// be continued, and drops the upload otherwise.
func (b *Backend) recoverUncommitted(staged store.Staged) error {
	log := b.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	restored, err := b.restoreSession(staged)
	if errors.Is(err, store.ErrUnreadable) {
		if fault := b.countReadError(err); fault != nil {
			return fault
		}
		log.Error("quarantined unreadable unfinished upload", "err", err, "hint", "its host sends it again")
		return staged.Quarantine()
	}
	if restored || err != nil {
		return err
	}
	log.Info("dropped interrupted upload", "hint", "its host sends it again")
	return staged.Unlink()
}

// restoreSession restores the session of a staging file. It reports whether the upload can
// be continued.
func (b *Backend) restoreSession(staged store.Staged) (bool, error) {
	p, id, at, ok, err := staged.ReadProgress()
	if err != nil || !ok || time.Since(at) > b.cfg.UnfinishedAge {
		return false, err
	}
	// Another request may have stored the archive: after a start that could not read the directory
	// of the upload, for example.
	if o, err := b.store.Stat(staged.Key); err == nil && !p.Digest.IsZero() && o.Digest == p.Digest {
		return false, nil
	}
	u := wire.Upload{Key: staged.Key, Digest: p.Digest, Size: p.Size, Skipped: p.Skipped, Resent: p.Resent}
	return b.sessions.Restore(u, id, at, stagedBytes{started: true, restored: true, offset: p.Offset, hashState: p.State}), nil
}

// recoverCorrupt ends a committed upload whose bytes are corrupt or unreadable. With a row it
// may have been acknowledged. Then it stays for the scrub, and for its host, which may still
// have the bytes.
func (b *Backend) recoverCorrupt(ctx context.Context, staged store.Staged, cause error) error {
	log := b.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	_, acknowledged, err := b.index.FindRow(ctx, staged.Key)
	switch {
	case err != nil:
		return err
	case !staged.Exists():
		// The disk does not even return which file this is: nothing is moved.
		return cause
	case acknowledged:
		log.Error("stored archive is corrupt", "err", cause, "hint", "send it again from its host's shipped folder")
		b.observer.NoteDamage(staged.Key, "damaged", false)
		return staged.Unlink()
	}
	log.Error("quarantined unacknowledged corrupt archive", "err", cause, "hint", "a crash damaged it: see quarantine")
	return staged.QuarantineStored()
}
