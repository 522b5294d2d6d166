package receiver

import (
	"context"
	"errors"
	"io/fs"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Announce returns what the sender of an archive must do: nothing if it is stored, and
// otherwise send the bytes from an offset on.
func (r *Receiver) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := r.openOrResume(ctx, u)
	return got, unfinished, r.checkAnswer(ctx, err)
}

func (r *Receiver) openOrResume(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := r.checkSize(u); err != nil {
		return wire.Receipt{}, none, err
	}
	// A piece in flight, perhaps on a dead connection, is interrupted first: it has one of
	// the host's slots.
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
		found, err := r.findStored(ctx, u)
		if err != nil {
			return wire.Receipt{}, none, err
		}
		if found.isFinal() {
			got, err := found.wireResult()
			return got, none, errors.Join(err, r.discardSuperseded(ctx, u))
		}
		if err := r.attachOpen(ctx, u); err != nil {
			return wire.Receipt{}, none, err
		}
		unfinished, err := r.getOrCreateSession(ctx, u)
		// Another sender of the same archive may have completed it between the two.
		if errors.Is(err, wire.NoUpload) || err == nil && found.state == notStored && r.mayBeStored(u.Key) {
			continue
		}
		return wire.Receipt{}, unfinished, err
	}
}

// mayBeStored reports whether there is an archive under key, or that cannot be read.
func (r *Receiver) mayBeStored(key episode.Key) bool {
	_, err := r.store.Stat(key)
	return !errors.Is(err, fs.ErrNotExist)
}

// interruptPiece interrupts the piece of an upload that is in flight, if there is one.
func (r *Receiver) interruptPiece(ctx context.Context, of wire.Upload) error {
	session := r.sessions.findSession(of)
	if session == nil {
		return nil
	}
	h, err := session.acquire(ctx, nil)
	if errors.Is(err, wire.NoUpload) {
		return nil
	}
	if err == nil {
		h.Close()
	}
	return err
}

// OpenUpload starts an upload whose size and digest are not known yet.
func (r *Receiver) OpenUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	unfinished, err := r.openUpload(ctx, key)
	return unfinished, r.checkAnswer(ctx, err)
}

func (r *Receiver) openUpload(ctx context.Context, key episode.Key) (wire.Unfinished, error) {
	o, err := r.store.Stat(key)
	if err == nil {
		return wire.Unfinished{}, conflictError(o.Digest) // its sender compares the digest
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return wire.Unfinished{}, err
	}
	if err := r.discardSuperseded(ctx, wire.Upload{Key: key}); err != nil {
		return wire.Unfinished{}, err
	}
	return r.getOrCreateSession(ctx, wire.Upload{Key: key})
}

// attachOpen makes the open upload under the name of an archive a part of that. If it is not,
// the digest will show it.
func (r *Receiver) attachOpen(ctx context.Context, u wire.Upload) error {
	open := r.sessions.findSession(wire.Upload{Key: u.Key})
	if open == nil || u.Digest.IsZero() || r.sessions.findSession(u) != nil {
		return nil
	}
	h, err := open.acquire(ctx, nil)
	if err != nil {
		return nil // it has ended, or the sender has disconnected
	}
	defer h.Close()
	if h.offset > u.Size {
		return r.dropSession(h, "its archive is shorter")
	}
	r.sessions.finalizeLength(h, u)
	return nil
}

// getOrCreateSession returns the progress of an archive's session, a new one if there is
// none. A host with the maximum number of sessions loses the one that was not used for the
// longest time.
func (r *Receiver) getOrCreateSession(ctx context.Context, u wire.Upload) (wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := r.store.CheckHost(u.Key.Host); err != nil {
		return none, err
	}
	if r.sessions.findSession(u) == nil {
		if err := r.disk.CheckReserve(u.Key.Host, 0, u.Size); err != nil {
			return none, err // before another session is dropped for it
		}
	}
	session := r.sessions.getOrCreate(u)
	for session == nil {
		if err := r.dropOldestIdle(u.Key.Host); err != nil {
			return none, err
		}
		session = r.sessions.getOrCreate(u)
	}
	h, err := session.acquire(ctx, nil)
	if err != nil {
		return none, err
	}
	defer h.Close()
	if err := r.disk.CheckReserve(u.Key.Host, h.offset, max(h.offset, u.Size)); err != nil {
		return none, err
	}
	return h.progress(), nil
}

func (r *Receiver) dropOldestIdle(host episode.Name) error {
	h := r.sessions.acquireOldestIdle(host)
	if h == nil {
		return hostBusy("%d uploads are unfinished", r.sessions.maxPerHost)
	}
	defer h.Close()
	return r.dropSession(h, "the host has started others")
}

// discardSuperseded drops the session of an archive that was stored by another request, or
// conflicts with a stored one.
func (r *Receiver) discardSuperseded(ctx context.Context, u wire.Upload) error {
	session := r.sessions.findSession(u)
	if session == nil {
		return nil
	}
	h, err := session.acquire(ctx, nil)
	if err != nil {
		return nil // it has ended
	}
	defer h.Close()
	return r.dropSession(h, "its name is taken")
}

// dropSession ends a session and removes its staging file.
func (r *Receiver) dropSession(h *heldSession, reason string) error {
	r.sessions.removeSession(h)
	if !h.started {
		return nil
	}
	r.log.Info("dropped an unfinished upload", "host", h.Key.Host, "episode", h.Key.Name, "bytes", h.offset, "reason", reason)
	return r.store.RemoveStaged(h.Key, h.id)
}
