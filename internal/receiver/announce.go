package receiver

import (
	"context"
	"errors"
	"io/fs"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Announce says what an archive's sender is to do.
func (r *Receiver) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := r.announce(ctx, u)
	return got, unfinished, r.checkFault(err)
}

func (r *Receiver) announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := r.checkSize(u); err != nil {
		return wire.Receipt{}, none, err
	}
	// First of all a piece is ended that may come by a dead connection: it has
	// one of the host's places.
	for _, of := range []wire.Upload{u, {Key: u.Key}} {
		if err := r.interruptPiece(ctx, of); err != nil {
			return wire.Receipt{}, none, err
		}
	}
	release, err := r.uploadLimiter.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer release()
	for {
		got, is, err := r.lookupStored(ctx, u)
		if is == here {
			return got, none, errors.Join(err, r.discardSuperseded(ctx, u))
		}
		if err != nil {
			return wire.Receipt{}, none, err
		}
		if err := r.attachOpen(ctx, u); err != nil {
			return wire.Receipt{}, none, err
		}
		unfinished, err := r.getOrCreateSession(ctx, u)
		// Another sender of the same archive may have ended it between the two.
		if errors.Is(err, wire.NoUpload) || err == nil && is == absent && r.isStored(u.Key) {
			continue
		}
		return wire.Receipt{}, unfinished, err
	}
}

// isStored reports whether there may be an archive under key.
func (r *Receiver) isStored(key episode.Key) bool {
	_, err := r.store.Stat(key)
	return !errors.Is(err, fs.ErrNotExist)
}

// interruptPiece ends a piece of an upload that is just coming, if there is one.
func (r *Receiver) interruptPiece(ctx context.Context, of wire.Upload) error {
	known := r.sessions.find(of)
	if known == nil {
		return nil
	}
	give, err := known.acquire(ctx, nil)
	if err == nil {
		give()
	}
	if errors.Is(err, wire.NoUpload) {
		return nil
	}
	return err
}

// Open begins an upload whose end is not known yet.
func (r *Receiver) Open(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	unfinished, err := r.openUpload(ctx, key)
	return unfinished, r.checkFault(err)
}

func (r *Receiver) openUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	o, err := r.store.Stat(key)
	if err == nil {
		return wire.Unfinished{}, conflict(o.Digest) // its sender will see which it is
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return wire.Unfinished{}, err
	}
	if err := r.discardSuperseded(ctx, wire.Upload{Key: key}); err != nil {
		return wire.Unfinished{}, err
	}
	return r.getOrCreateSession(ctx, wire.Upload{Key: key})
}

// attachOpen makes what was opened under the name of an archive the beginning of it. If
// it is another's, the digest will tell.
func (r *Receiver) attachOpen(ctx context.Context, u wire.Upload) error {
	open := r.sessions.find(wire.Upload{Key: u.Key})
	if open == nil || u.Digest.IsZero() || r.sessions.find(u) != nil {
		return nil
	}
	give, err := open.acquire(ctx, nil)
	if err != nil {
		return nil // it has ended, or the sender has gone
	}
	if open.offset > u.Size {
		return r.dropSession(open, "its archive is shorter")
	}
	r.sessions.finalize(open, u)
	give()
	return nil
}

// getOrCreateSession returns the unfinished upload of an archive, a new one if there is none.
func (r *Receiver) getOrCreateSession(ctx context.Context, u wire.Upload) (wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := r.store.CheckHost(u.Key.Host); err != nil {
		return none, err
	}
	if r.sessions.find(u) == nil {
		if err := r.disk.Check(u.Key.Host, 0, u.Size); err != nil {
			return none, err // before another gives way to it
		}
	}
	known := r.sessions.getOrCreate(u)
	for known == nil {
		last := r.sessions.acquireOldestIdle(u.Key.Host)
		if last == nil {
			return none, hostBusy("%d uploads are unfinished", r.sessions.maxPerHost)
		}
		if err := r.dropSession(last, "the host has begun others"); err != nil {
			return none, err
		}
		known = r.sessions.getOrCreate(u)
	}
	give, err := known.acquire(ctx, nil)
	if err != nil {
		return none, err
	}
	defer give()
	if err := r.disk.Check(u.Key.Host, known.offset, max(known.offset, u.Size)); err != nil {
		return none, err
	}
	return known.progress(), nil
}

// discardSuperseded gives up what there is of an archive that came another way, or in the
// place of which another one did.
func (r *Receiver) discardSuperseded(ctx context.Context, u wire.Upload) error {
	known := r.sessions.find(u)
	if known == nil {
		return nil
	}
	if _, err := known.acquire(ctx, nil); err != nil {
		return nil // it has ended
	}
	return r.dropSession(known, "its name is taken")
}

// dropSession gives an upload up, whose turn the caller has.
func (r *Receiver) dropSession(u *uploadSession, why string) error {
	defer u.release()
	r.sessions.remove(u)
	if !u.started {
		return nil
	}
	r.log.Info("dropped an unfinished upload", "host", u.Key.Host, "episode", u.Key.Name, "bytes", u.offset, "reason", why)
	return r.store.Drop(u.Key, u.id)
}
