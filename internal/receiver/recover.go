package receiver

import (
	"context"
	"errors"
	"fmt"

	"cis490/internal/durable"
	"cis490/internal/scrub"
	"cis490/internal/store"
)

// recover ends what a crash interrupted. It lists staging and nothing else, so
// that it costs what was under way, however much is stored. Read, unless nil, is told
// how many bytes each read of a committed upload gave.
//
// An upload that the disk does not give ends nothing but itself. More than [scrub.Verifier.RecordReadError]
// allows in a row are a fault of the storage.
func (r *Receiver) recover(ctx context.Context, read func(bytes int)) error {
	for staged, err := range r.store.Staged() {
		if stray, ok := errors.AsType[*store.StrayError](err); ok {
			r.log.Warn("left alone what is not ours", "err", stray)
			continue
		}
		if err == nil {
			err = r.recoverStaged(ctx, staged, read)
		} else if gone := r.countReadError(err); gone != nil {
			err = gone
		}
		switch {
		case ctx.Err() != nil || errors.Is(err, durable.ErrFault) || durable.IsShortage(err):
			return err
		case err != nil:
			// It stays in staging, so that its row stays owed: the next upload of
			// its key, or the next start, looks at it again.
			r.log.Error("left an interrupted upload", "host", staged.Key.Host, "episode", staged.Key.Name, "err", err, "hint", scrub.UnreadableHint)
		}
	}
	return nil
}

// countReadError counts err if it says that the disk does not give something, and returns
// a [durable.ErrFault] if that has happened too often in a row.
func (r *Receiver) countReadError(err error) error {
	if r.verifier.RecordReadError(err) {
		return fmt.Errorf("%w: %w: %w", durable.ErrFault, scrub.ErrDisk, err)
	}
	return nil
}

func (r *Receiver) recoverStaged(ctx context.Context, staged store.Staged, read func(bytes int)) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	o, published, err := staged.Linked(ctx, read)
	if store.FailsVerification(err) { // one wrong reading is no proof
		o, published, err = staged.Linked(ctx, read)
	}
	if published || err != nil {
		if gone := r.countReadError(err); gone != nil {
			return gone
		}
	}
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrUnreadable) {
		return r.recoverCorrupt(ctx, staged, err)
	}
	if err != nil {
		return err
	}
	if !published {
		return r.recoverUncommitted(staged)
	}
	found, err := r.index.FindAll(ctx, o.Key)
	if err != nil {
		return err
	}
	if _, err := r.ensureIndexed(ctx, o, found); err != nil {
		return err
	}
	log.Info("recovered", "sha256", o.Digest, "bytes", o.Size)
	return nil
}

// recoverUncommitted keeps an upload of which nobody was told that it is stored, if it can
// go on, and drops it otherwise.
func (r *Receiver) recoverUncommitted(staged store.Staged) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	kept, err := r.restoreUnlessStored(staged)
	if errors.Is(err, store.ErrUnreadable) {
		if gone := r.countReadError(err); gone != nil {
			return gone
		}
		log.Error("quarantined an unfinished upload that the disk does not give; its host sends it again", "err", err)
		return staged.Quarantine()
	}
	if kept || err != nil {
		return err
	}
	log.Info("dropped an upload that a crash interrupted; its host sends it again")
	return staged.Unlink()
}

// restoreUnlessStored is [Receiver.restoreSession], but for an upload whose archive came another
// way: after a start that could not look into its folder, say.
func (r *Receiver) restoreUnlessStored(staged store.Staged) (bool, error) {
	p, _, _, ok, err := staged.Progress()
	if err != nil || !ok {
		return false, err
	}
	if o, err := r.store.Stat(staged.Key); err == nil && !p.Digest.IsZero() && o.Digest == p.Digest {
		return false, nil
	}
	return r.restoreSession(staged)
}

// recoverCorrupt ends a published upload whose bytes are others, or are not given by the
// disk. With a row it may have been acknowledged: then it stays, for the scrub or for its
// host, which may still have the bytes.
func (r *Receiver) recoverCorrupt(ctx context.Context, staged store.Staged, bad error) error {
	log := r.log.With("host", staged.Key.Host, "episode", staged.Key.Name)
	_, acknowledged, err := r.index.Find(ctx, staged.Key)
	switch {
	case err != nil:
		return err
	case !staged.Listed():
		// The disk does not even say which files these are: nothing is moved.
		return bad
	case acknowledged:
		log.Error("a stored archive is damaged: send it again from its host's shipped folder", "err", bad)
		return staged.Unlink()
	}
	log.Error("set aside an archive that a crash damaged before it was acknowledged; see quarantine", "err", bad)
	return staged.SetAside()
}
