package diskbackend

import (
	"context"
	"errors"
	"io/fs"

	"cis490/internal/episode"
	"cis490/internal/refusal"
	"cis490/internal/wire"
)

// Announce returns what the sender of an archive must do: nothing if it is stored, and
// otherwise send the bytes from an offset on.
func (b *Backend) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := b.openOrResume(ctx, u)
	return got, unfinished, b.checkAnswer(ctx, err)
}

func (b *Backend) openOrResume(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := refusal.CheckSize(u.Size, b.cfg.ArchiveBytes); err != nil {
		return wire.Receipt{}, none, err
	}
	// A piece in flight, perhaps on a dead connection, is interrupted first: it has one of
	// the host's slots.
	for _, of := range []wire.Upload{u, {Key: u.Key}} {
		if err := b.interruptPiece(ctx, of); err != nil {
			return wire.Receipt{}, none, err
		}
	}
	release, err := b.uploadLimiter.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer release()
	for {
		found, err := b.findStored(ctx, u)
		if err != nil {
			return wire.Receipt{}, none, err
		}
		if found.isFinal() {
			got, err := found.wireResult()
			return got, none, errors.Join(err, b.discardSuperseded(ctx, u))
		}
		if err := b.attachOpen(ctx, u); err != nil {
			return wire.Receipt{}, none, err
		}
		unfinished, err := b.getOrCreateSession(ctx, u)
		// Another sender of the same archive may have completed it between the two.
		if errors.Is(err, wire.NoUpload) || err == nil && found.state == notStored && b.mayBeStored(u.Key) {
			continue
		}
		return wire.Receipt{}, unfinished, err
	}
}

// mayBeStored reports whether there is an archive under key, or that cannot be read.
func (b *Backend) mayBeStored(key episode.Key) bool {
	_, err := b.store.Stat(key)
	return !errors.Is(err, fs.ErrNotExist)
}

// interruptPiece interrupts the piece of an upload that is in flight, if there is one.
func (b *Backend) interruptPiece(ctx context.Context, of wire.Upload) error {
	session := b.sessions.Find(of)
	if session == nil {
		return nil
	}
	h, err := acquireSession(ctx, session, nil)
	if errors.Is(err, wire.NoUpload) {
		return nil
	}
	if err == nil {
		h.Close()
	}
	return err
}

// OpenUpload starts an upload whose size and digest are not known yet.
func (b *Backend) OpenUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	unfinished, err := b.openUpload(ctx, key)
	return unfinished, b.checkAnswer(ctx, err)
}

func (b *Backend) openUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	o, err := b.store.Stat(key)
	if err == nil {
		return wire.Unfinished{}, conflictError(o.Digest) // its sender compares the digest
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return wire.Unfinished{}, err
	}
	if err := b.discardSuperseded(ctx, wire.Upload{Key: key}); err != nil {
		return wire.Unfinished{}, err
	}
	return b.getOrCreateSession(ctx, wire.Upload{Key: key})
}

// attachOpen makes the open upload under the name of an archive a part of that. If it is not,
// the digest will show it.
func (b *Backend) attachOpen(ctx context.Context, u wire.Upload) error {
	open := b.sessions.Find(wire.Upload{Key: u.Key})
	if open == nil || u.Digest.IsZero() || b.sessions.Find(u) != nil {
		return nil
	}
	h, err := acquireSession(ctx, open, nil)
	if err != nil {
		return nil // it has ended, or the sender has disconnected
	}
	defer h.Close()
	if h.offset > u.Size {
		return b.dropSession(h, "its archive is shorter")
	}
	b.sessions.Finalize(h.Held, u)
	return nil
}

// getOrCreateSession returns the progress of an archive's session, a new one if there is
// none. A host with the maximum number of sessions loses the one that was not used for the
// longest time.
func (b *Backend) getOrCreateSession(ctx context.Context, u wire.Upload) (wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := b.store.CheckHost(u.Key.Host); err != nil {
		return none, err
	}
	if b.sessions.Find(u) == nil {
		if err := b.disk.CheckReserve(u.Key.Host, 0, u.Size); err != nil {
			return none, err // before another session is dropped for it
		}
	}
	session := b.findOrCreateSession(u)
	for session == nil {
		if err := b.dropOldestIdle(u.Key.Host); err != nil {
			return none, err
		}
		session = b.findOrCreateSession(u)
	}
	h, err := acquireSession(ctx, session, nil)
	if err != nil {
		return none, err
	}
	defer h.Close()
	if err := b.disk.CheckReserve(u.Key.Host, h.offset, max(h.offset, u.Size)); err != nil {
		return none, err
	}
	return h.unfinished(), nil
}

func (b *Backend) dropOldestIdle(host episode.Name) error {
	h := holdSession(b.sessions.AcquireOldestIdle(host))
	if h == nil {
		return hostBusy("%d uploads are unfinished", b.sessions.MaxPerHost())
	}
	defer h.Close()
	return b.dropSession(h, "the host has started others")
}

// discardSuperseded drops the session of an archive that was stored by another request, or
// conflicts with a stored one.
func (b *Backend) discardSuperseded(ctx context.Context, u wire.Upload) error {
	session := b.sessions.Find(u)
	if session == nil {
		return nil
	}
	h, err := acquireSession(ctx, session, nil)
	if err != nil {
		return nil // it has ended
	}
	defer h.Close()
	return b.dropSession(h, "its name is taken")
}

// dropSession ends a session and removes its staging file.
func (b *Backend) dropSession(h *heldSession, reason string) error {
	b.sessions.Remove(h.Held)
	if !h.started {
		return nil
	}
	b.log.Info("dropped an unfinished upload", "host", h.Key.Host, "episode", h.Key.Name, "bytes", h.offset, "reason", reason)
	return b.store.RemoveStaged(h.Key, h.ID())
}
