package diskbackend

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"cis490/internal/access"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/refusal"
	"cis490/internal/resumable"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// AppendPiece appends a piece to an upload.
func (b *Backend) AppendPiece(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := b.appendPiece(ctx, host, id, p, body)
	return got, unfinished, b.checkReceipt(ctx, got, err)
}

func (b *Backend) appendPiece(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	session := b.sessions.ByID(host, id)
	if session == nil {
		return wire.Receipt{}, none, resumable.ErrNoUpload
	}
	h, err := acquireSession(ctx, session, p.Interrupt)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer h.Close()
	if err := refusal.CheckPiece(p, h.Upload, h.offset, b.cfg.ArchiveBytes); err != nil {
		return wire.Receipt{}, none, err
	}
	release, err := b.uploadLimiter.Acquire(ctx, host)
	if err != nil {
		return wire.Receipt{}, none, access.CauseOf(ctx, err)
	}
	defer release()
	if h.IsOpen() {
		_, err := b.writePiece(ctx, h, p, body)
		return wire.Receipt{}, h.unfinished(), err
	}
	found, err := b.findStored(ctx, h.Upload)
	if err != nil {
		return wire.Receipt{}, none, access.CauseOf(ctx, err)
	}
	if found.isFinal() { // stored by another request meanwhile, or in conflict
		b.sessions.Remove(h.Held)
		got, err := found.wireResult()
		return got, none, errors.Join(err, b.store.RemoveStaged(h.Key, h.ID()))
	}
	work := access.WorkContext(ctx, b.baseCtx)
	up, err := b.writePiece(work, h, p, body)
	if err != nil {
		return wire.Receipt{}, none, access.CauseOf(work, err)
	}
	if up == nil {
		return wire.Receipt{}, h.unfinished(), nil
	}
	got, err := b.storeStaged(ctx, up, h.Upload, found.state)
	// Not earlier, or an announcement meanwhile would find neither the session nor the
	// archive, and start a new upload.
	b.sessions.Remove(h.Held)
	return got, none, err
}

// writePiece writes a piece after the bytes of the session. It returns the upload if that is
// complete and is what was announced, and nil if more pieces follow. Received bytes are kept
// on any error except a digest mismatch. ctx is for what follows the last byte.
func (b *Backend) writePiece(ctx context.Context, h *heldSession, p wire.Piece, body io.Reader) (*store.Upload, error) {
	if err := b.store.CheckHost(h.Key.Host); err != nil {
		return nil, err
	}
	reserved, err := b.disk.Reserve(h.Key.Host, h.offset, h.offset+p.Size)
	if err != nil {
		return nil, err
	}
	defer reserved.Release()
	up, err := b.openStaged(h)
	if errors.Is(err, fs.ErrNotExist) {
		// The staging file was removed externally.
		b.log.Warn("staging file of upload is missing", "host", h.Key.Host, "episode", h.Key.Name, "err", err)
		b.sessions.Remove(h.Held)
		return nil, errors.Join(resumable.ErrNoUpload, b.store.RemoveStaged(h.Key, h.ID()))
	}
	if err != nil {
		return nil, err
	}
	w, err := h.hashWriter(up)
	if err != nil {
		return nil, errors.Join(err, up.Abandon())
	}
	c := checkpointer{h: h, up: up, w: w, lastAt: time.Now()}
	err = b.copyBody(w, p.Size, body, reserved, c.maybeFlush)
	if err == nil && w.Size() < p.Offset+p.Size {
		err = io.ErrUnexpectedEOF // or a broken connection would look like a digest mismatch
	}
	if err == nil && p.Last {
		if err = b.verifyComplete(ctx, &c); err == nil {
			err = access.Recheck(ctx) // now, because a commit that is refused discards the bytes
		}
		if err == nil {
			return up, nil
		}
	}
	if errors.Is(err, wire.DigestMismatch) {
		b.sessions.Remove(h.Held)
		return nil, errors.Join(err, up.Discard())
	}
	return nil, errors.Join(err, c.close(err))
}

// verifyComplete returns [wire.DigestMismatch] if a complete upload is not what was
// announced. The hash of a restored part was computed by an earlier process, and does not
// show what happened to these bytes since: they are read from the disk.
func (b *Backend) verifyComplete(ctx context.Context, c *checkpointer) error {
	mismatch := wire.Refuse(wire.DigestMismatch, "nothing was stored")
	if d, n := c.w.Sum(); d != c.h.Digest || n != c.h.Size {
		return mismatch
	}
	if !c.h.restored {
		return nil
	}
	if err := c.writeCheckpoint(); err != nil {
		return err
	}
	err := c.up.ReadBack(ctx, c.h.Digest)
	if isCorrupt(err) {
		b.log.Error("restored part of upload is corrupt", "host", c.h.Key.Host, "episode", c.h.Key.Name, "err", err,
			"hint", "its host sends it again")
		return mismatch
	}
	return err
}

// openStaged opens the staging file of a session, and creates it for the first piece.
func (b *Backend) openStaged(h *heldSession) (*store.Upload, error) {
	if h.started {
		return b.store.ContinueUpload(h.Key, h.ID(), h.offset)
	}
	up, err := b.store.CreateWithID(h.Key, h.ID())
	h.started = err == nil
	return up, err
}

func (h *heldSession) hashWriter(up *store.Upload) (*digest.Writer, error) {
	if h.offset == 0 {
		return digest.NewWriter(up), nil
	}
	return digest.ResumeWriter(up, h.offset, h.hashState)
}

// How often an upload in flight is made durable, so that little of it is sent again after a
// crash: each checkpointBytes, within these limits of time.
const (
	checkpointBytes       = 4 << 20
	minCheckpointInterval = time.Second
	maxCheckpointInterval = 10 * time.Second
)

// checkpointer makes an upload durable while it is received.
type checkpointer struct {
	h      *heldSession
	up     *store.Upload
	w      *digest.Writer
	lastAt time.Time
}

// maybeFlush makes a checkpoint if it is time for one.
func (c *checkpointer) maybeFlush() error {
	since := time.Since(c.lastAt)
	if since < minCheckpointInterval || c.w.Size()-c.h.offset < checkpointBytes && since < maxCheckpointInterval {
		return nil
	}
	c.lastAt = time.Now()
	return c.writeCheckpoint()
}

// close ends a piece that does not complete the upload. cause is the error that ended it.
func (c *checkpointer) close(cause error) error {
	if errors.Is(cause, durable.ErrFault) {
		return c.up.Abandon()
	}
	if c.w.Size() == 0 {
		c.h.started = false // nothing was received: there is nothing to continue
		return c.up.Discard()
	}
	return errors.Join(c.writeCheckpoint(), c.up.Abandon())
}

// writeCheckpoint makes all received bytes durable, and records how many they are.
func (c *checkpointer) writeCheckpoint() error {
	n := c.w.Size()
	if n == c.h.offset {
		return nil
	}
	state := c.w.HashState()
	err := c.up.Checkpoint(store.Progress{Digest: c.h.Digest, Size: c.h.Size, Skipped: c.h.Skipped, Resent: c.h.Resent, Offset: n, State: state})
	if err == nil {
		c.h.advanceTo(n, state)
	}
	return err
}

// UploadState returns the offset of an upload.
func (b *Backend) UploadState(ctx context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	h, err := b.acquireByID(ctx, host, id)
	if err != nil {
		return wire.Unfinished{}, b.checkAnswer(ctx, err)
	}
	defer h.Close()
	return h.unfinished(), b.checkAnswer(ctx, nil)
}

// CancelUpload drops an upload because its sender cancels it.
func (b *Backend) CancelUpload(ctx context.Context, host episode.Name, id string) error {
	h, err := b.acquireByID(ctx, host, id)
	if err == nil {
		defer h.Close()
		err = b.dropSession(h, "the host cancelled it")
	}
	return b.checkAnswer(ctx, err)
}

// acquireByID acquires the session of a host with an id, or returns [wire.NoUpload].
func (b *Backend) acquireByID(ctx context.Context, host episode.Name, id string) (*heldSession, error) {
	session := b.sessions.ByID(host, id)
	if session == nil {
		return nil, resumable.ErrNoUpload
	}
	return acquireSession(ctx, session, nil)
}

// expireInterval is how often expired uploads are looked for.
const expireInterval = time.Hour

// ExpireUploads drops the uploads that were not continued within limits.unfinished_age,
// until ctx ends. It returns an error only if the storage can no longer be trusted.
func (b *Backend) ExpireUploads(ctx context.Context) error {
	tick := time.NewTicker(expireInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, held := range b.sessions.AcquireIdle(time.Now().Add(-b.cfg.UnfinishedAge)) {
			h := holdSession(held)
			err := b.dropSession(h, "its host did not continue it")
			h.Close()
			if errors.Is(err, durable.ErrFault) {
				return b.checkFault(err)
			}
			if err != nil {
				b.log.Warn("could not drop unfinished upload", "host", h.Key.Host, "episode", h.Key.Name, "err", err)
			}
		}
	}
}
