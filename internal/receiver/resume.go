package receiver

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Append takes in a piece of an archive.
func (r *Receiver) Append(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := r.appendPiece(ctx, host, id, p, body)
	return got, unfinished, r.checkFault(err)
}

func (r *Receiver) appendPiece(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	u := r.sessions.byID(host, id)
	if u == nil {
		return wire.Receipt{}, none, errNoUpload
	}
	give, err := u.acquire(ctx, p.Interrupt)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer give()
	if err := u.validatePiece(p, int64(r.cfg.Limits.ArchiveBytes)); err != nil {
		return wire.Receipt{}, none, err
	}
	release, err := r.uploadLimiter.Acquire(ctx, host)
	if err != nil {
		return wire.Receipt{}, none, contextCause(ctx, err)
	}
	defer release()
	if u.isOpen() {
		_, err := r.writePiece(ctx, u, p, body)
		return wire.Receipt{}, u.progress(), err
	}
	got, is, err := r.lookupStored(ctx, u.Upload)
	if is == here {
		// It came another way meanwhile, or another archive did.
		r.sessions.remove(u)
		return got, none, errors.Join(err, r.store.Drop(u.Key, u.id))
	}
	if err != nil {
		return wire.Receipt{}, none, contextCause(ctx, err)
	}
	work := workContext(ctx, r.baseCtx)
	up, err := r.writePiece(work, u, p, body)
	if err != nil {
		return wire.Receipt{}, none, contextCause(work, err)
	}
	if up == nil {
		return wire.Receipt{}, u.progress(), nil
	}
	got, err = r.commit(ctx, up, u.Upload, is == rotten)
	// Not before, or an announcement meanwhile would find neither the upload nor the
	// archive, and begin anew.
	r.sessions.remove(u)
	return got, none, err
}

// contextCause returns err, or why ctx ended if err comes of that: another request goes on
// with the upload, or the receiver stops.
func contextCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// validatePiece refuses a piece that does not go on where the upload has come to, or
// that does not end with it. Most is how large an archive may be of which that is
// not known yet.
func (u *uploadSession) validatePiece(p wire.Piece, most int64) error {
	if p.Offset != u.offset {
		refusal := wire.Refuse(wire.OffsetMismatch, "go on at the byte %d", u.offset)
		at := u.offset
		refusal.Offset = &at
		return refusal
	}
	if u.isOpen() {
		switch {
		case p.Last:
			return wire.Refuse(wire.DigestMissing, "announce the archive before its last piece")
		case p.Size > most-u.offset:
			return wire.Refuse(wire.TooLarge, "an archive has at most %d bytes", most)
		}
		return nil
	}
	if left := u.Size - u.offset; p.Size > left || p.Last && p.Size < left {
		return wire.Refuse(wire.LengthMismatch, "%d bytes are left of the archive", left)
	}
	return nil
}

// writePiece writes a piece behind what is there. It returns the upload when that is
// whole and is what was announced, and nil when others are to come. Whatever ends
// the piece, what came of it is kept, but for the bytes of a lie. The context is
// for what happens behind the last byte.
func (r *Receiver) writePiece(ctx context.Context, u *uploadSession, p wire.Piece, body io.Reader) (*store.Upload, error) {
	if err := r.store.CheckHost(u.Key.Host); err != nil {
		return nil, err
	}
	reserved, err := r.disk.Reserve(u.Key.Host, u.offset, u.offset+p.Size)
	if err != nil {
		return nil, err
	}
	defer reserved.Release()
	up, err := r.openStaged(u)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody has tidied up under us.
		r.log.Warn("an unfinished upload has lost its bytes", "host", u.Key.Host, "episode", u.Key.Name, "err", err)
		r.sessions.remove(u)
		return nil, errors.Join(errNoUpload, r.store.Drop(u.Key, u.id))
	}
	if err != nil {
		return nil, err
	}
	w, err := u.hashWriter(up)
	if err != nil {
		return nil, errors.Join(err, up.Abandon())
	}
	c := checkpointer{u: u, up: up, w: w, last: time.Now()}
	err = r.copyBody(w, p.Size, body, reserved, c.maybeFlush)
	if err == nil && w.Size() < p.Offset+p.Size {
		err = io.ErrUnexpectedEOF // or a cut would be taken for a lie
	}
	if err == nil && p.Last {
		if err = r.verifyComplete(ctx, &c); err == nil {
			err = r.access.recheck(ctx) // now, because a commit that is refused discards the bytes
		}
		if err == nil {
			return up, nil
		}
	}
	if errors.Is(err, wire.DigestMismatch) {
		r.sessions.remove(u)
		return nil, errors.Join(err, up.Discard())
	}
	return nil, errors.Join(err, c.close(err))
}

// verifyComplete returns [wire.DigestMismatch] if an upload of which all bytes came is not
// what was announced. The state that the sha256 of a former receiver's part had does
// not see what has become of that since: it is read back from the disk.
func (r *Receiver) verifyComplete(ctx context.Context, c *checkpointer) error {
	mismatch := wire.Refuse(wire.DigestMismatch, "nothing was stored")
	if d, n := c.w.Sum(); d != c.u.Digest || n != c.u.Size {
		return mismatch
	}
	if !c.u.restored {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	err := c.up.ReadBack(ctx, c.u.Digest)
	if isCorrupt(err) {
		r.log.Error("what a former receiver left of an upload is damaged; its host sends it again",
			"host", c.u.Key.Host, "episode", c.u.Key.Name, "err", err)
		return mismatch
	}
	return err
}

// openStaged opens the file of an upload, which is made for its first piece.
func (r *Receiver) openStaged(u *uploadSession) (*store.Upload, error) {
	if u.started {
		return r.store.Continue(u.Key, u.id, u.offset)
	}
	up, err := r.store.Begin(u.Key, u.id)
	u.started = u.started || err == nil
	return up, err
}

func (u *uploadSession) hashWriter(up *store.Upload) (*digest.Writer, error) {
	if u.offset == 0 {
		return digest.NewWriter(up), nil
	}
	return digest.ResumeWriter(up, u.offset, u.hashState)
}

// How often an upload that goes on is made durable, so that little of it is sent
// twice after a crash: when so much came, but not more often than that, and in any
// case after a while.
const (
	checkpointBytes       = 4 << 20
	minCheckpointInterval = time.Second
	maxCheckpointInterval = 10 * time.Second
)

// checkpointer make an upload durable while it comes.
type checkpointer struct {
	u    *uploadSession
	up   *store.Upload
	w    *digest.Writer
	last time.Time
}

// maybeFlush makes a checkpoint if it is time for one.
func (c *checkpointer) maybeFlush() error {
	since := time.Since(c.last)
	if since < minCheckpointInterval || c.w.Size()-c.u.offset < checkpointBytes && since < maxCheckpointInterval {
		return nil
	}
	c.last = time.Now()
	return c.flush()
}

// close ends a piece that does not end the upload, with what met it.
func (c *checkpointer) close(met error) error {
	if errors.Is(met, durable.ErrFault) {
		return c.up.Abandon()
	}
	if c.w.Size() == 0 {
		c.u.started = false // nothing came: there is nothing to go on with
		return c.up.Discard()
	}
	return errors.Join(c.flush(), c.up.Abandon())
}

// flush makes a checkpoint of all that has come.
func (c *checkpointer) flush() error {
	n := c.w.Size()
	if n == c.u.offset {
		return nil
	}
	state := c.w.State()
	err := c.up.Checkpoint(store.Progress{Digest: c.u.Digest, Length: c.u.Size, Skipped: c.u.Skipped, Resent: c.u.Resent, Offset: n, State: state})
	if err == nil {
		c.u.advance(n, state)
	}
	return err
}

// Unfinished returns how far an upload has come.
func (r *Receiver) Unfinished(ctx context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	u := r.sessions.byID(host, id)
	if u == nil {
		return wire.Unfinished{}, errNoUpload
	}
	give, err := u.acquire(ctx, nil)
	if err != nil {
		return wire.Unfinished{}, err
	}
	defer give()
	return u.progress(), nil
}

// Forget gives an upload up, because its sender says so.
func (r *Receiver) Forget(ctx context.Context, host episode.Name, id string) error {
	u := r.sessions.byID(host, id)
	if u == nil {
		return errNoUpload
	}
	if _, err := u.acquire(ctx, nil); err != nil {
		return err
	}
	return r.checkFault(r.dropSession(u, "the host gave it up"))
}

// expireInterval is how often uploads are looked for that nobody goes on with.
const expireInterval = time.Hour

// ExpireUploads drops the uploads that nobody goes on with, until ctx ends. It returns an
// error only if the storage can no longer be trusted.
func (r *Receiver) ExpireUploads(ctx context.Context) error {
	tick := time.NewTicker(expireInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, u := range r.sessions.acquireIdle(time.Now().Add(-r.cfg.Limits.UnfinishedAge.Std())) {
			err := r.dropSession(u, "its host did not go on with it")
			if errors.Is(err, durable.ErrFault) {
				return r.checkFault(err)
			}
			if err != nil {
				r.log.Warn("could not drop an unfinished upload", "host", u.Key.Host, "episode", u.Key.Name, "err", err)
			}
		}
	}
}

// restoreSession takes up what the last receiver left unfinished, and reports whether
// that can go on.
func (r *Receiver) restoreSession(staged store.Staged) (bool, error) {
	p, id, at, ok, err := staged.Progress()
	if err != nil || !ok || time.Since(at) > r.cfg.Limits.UnfinishedAge.Std() {
		return false, err
	}
	u := &uploadSession{
		Upload: wire.Upload{Key: staged.Key, Digest: p.Digest, Size: p.Length, Skipped: p.Skipped, Resent: p.Resent},
		id:     id, sem: make(chan struct{}, 1), started: true, offset: p.Offset, hashState: p.State, restored: true, lastUsedAt: at, lastByteAt: at,
	}
	r.sessions.mu.Lock()
	defer r.sessions.mu.Unlock()
	if r.sessions.byUpload[u.Upload] != nil || r.sessions.perHost[u.Key.Host] >= r.sessions.maxPerHost {
		return false, nil
	}
	r.sessions.insertLocked(u)
	return true, nil
}
