package s3backend

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"cis490/internal/access"
	"cis490/internal/episode"
	"cis490/internal/refusal"
	"cis490/internal/resumable"
	"cis490/internal/wire"
)

// session is an upload between its pieces, with what of it is in the bucket. It is nil until that is
// known: another receiver may have received a part of it.
type session = resumable.Held[*progress]

// Announce returns what the sender of an archive must do: nothing if it is stored, and otherwise send
// the bytes from an offset on.
func (b *Backend) Announce(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := b.openOrResume(ctx, u)
	return got, unfinished, b.checkReceipt(ctx, got, err)
}

func (b *Backend) openOrResume(ctx context.Context, u wire.Upload) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	if err := refusal.CheckSize(u.Size, b.opts.Limits.MaxSize); err != nil {
		return wire.Receipt{}, none, err
	}
	// A piece in flight, perhaps on a dead connection, is interrupted first: it has one of the
	// host's slots.
	if err := b.interruptPiece(ctx, u); err != nil {
		return wire.Receipt{}, none, err
	}
	release, err := b.uploads.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer release()
	found, err := b.find(ctx, u)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	if found.isFinal() {
		got, err := found.result()
		b.endSession(ctx, u)
		return got, none, err
	}
	if err := errors.Join(b.disk.CheckReserve(u.Key.Host, 0, u.Size), b.checkSpool()); err != nil {
		return wire.Receipt{}, none, err
	}
	h, err := b.acquire(ctx, u, nil)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer h.Close()
	p, err := b.loadProgress(ctx, u)
	if err == nil && p.offset == 0 && p.finished == "" {
		err = b.limitUploads(ctx, u)
	}
	if err != nil {
		return wire.Receipt{}, none, err
	}
	*h.Progress() = p
	if len(p.tails)+len(p.unused) > maxTails { // a host can let two receivers add to what they do not know of each other
		b.removeTails(ctx, u, p.unused)
	}
	if p.finished != "" { // a receiver stopped before its commit
		got, err := b.commitFinished(ctx, h, found.next())
		if !errors.Is(err, wire.DigestMismatch) {
			return got, none, err
		}
		p = new(progress)
		*h.Progress() = p
	}
	return wire.Receipt{}, wire.Unfinished{ID: h.ID(), Offset: p.offset, Length: u.Size}, nil
}

// interruptPiece interrupts the piece of an upload that is in flight here, if there is one.
func (b *Backend) interruptPiece(ctx context.Context, of wire.Upload) error {
	s := b.sessions.Find(of)
	if s == nil {
		return nil
	}
	h, err := s.Acquire(ctx, nil)
	if errors.Is(err, wire.NoUpload) {
		return nil
	}
	if err == nil {
		h.Close()
	}
	return err
}

// acquire acquires the session of an upload, a new one if there is none here. A host with the maximum
// number of sessions loses the one that was not used for the longest time: what it has received stays
// in the bucket.
func (b *Backend) acquire(ctx context.Context, u wire.Upload, interrupt func(error)) (*session, error) {
	for {
		s := b.sessions.GetOrCreate(u, uploadID(u))
		if s == nil {
			oldest := b.sessions.AcquireOldestIdle(u.Key.Host)
			if oldest == nil {
				p := wire.Refuse(wire.HostBusy, "%d uploads are unfinished", b.sessions.MaxPerHost())
				p.RetryAfter = time.Second
				return nil, p
			}
			b.sessions.Remove(oldest)
			oldest.Close()
			continue
		}
		h, err := s.Acquire(ctx, interrupt)
		if errors.Is(err, wire.NoUpload) {
			continue
		}
		return h, err
	}
}

// uploadID returns the id of an upload, which is the same at all receivers.
func uploadID(u wire.Upload) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d\n%d\n%t\n", u.Key.Host, u.Key.Name, u.Digest, u.Size, u.Skipped, u.Resent))
	return hex.EncodeToString(sum[:16])
}

// endSession ends the session of an archive that is stored, and removes what it has in the bucket.
func (b *Backend) endSession(ctx context.Context, u wire.Upload) {
	s := b.sessions.Find(u)
	if s == nil {
		return // what another receiver has left expires
	}
	h, err := s.Acquire(ctx, nil)
	if err != nil {
		return
	}
	defer h.Close()
	b.sessions.Remove(h)
	b.removeUpload(ctx, u, *h.Progress())
}

// OpenUpload refuses uploads whose digest is not known yet: an archive has its digest as its name from
// the first byte on. The sender sends the archive once it is packed.
func (b *Backend) OpenUpload(ctx context.Context, _ episode.Key) (wire.Unfinished, error) {
	return wire.Unfinished{}, b.checkAnswer(ctx, wire.Refuse(wire.DigestMissing, "this receiver takes an archive once its digest is known"))
}

// AppendPiece adds a piece to an upload, which another receiver may have begun.
func (b *Backend) AppendPiece(ctx context.Context, host episode.Name, id string, p wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	got, unfinished, err := b.appendPiece(ctx, host, id, p, body)
	return got, unfinished, b.checkReceipt(ctx, got, err)
}

func (b *Backend) appendPiece(ctx context.Context, host episode.Name, id string, piece wire.Piece, body io.Reader) (wire.Receipt, wire.Unfinished, error) {
	none := wire.Unfinished{}
	s := b.sessions.ByID(host, id)
	if s == nil {
		return wire.Receipt{}, none, resumable.ErrNoUpload // announced again, it is found in the bucket
	}
	h, err := s.Acquire(ctx, piece.Interrupt)
	if err != nil {
		return wire.Receipt{}, none, err
	}
	defer h.Close()
	if *h.Progress() == nil {
		return wire.Receipt{}, none, resumable.ErrNoUpload
	}
	if err := refusal.CheckPiece(piece, h.Upload, (*h.Progress()).offset, b.opts.Limits.MaxSize); err != nil {
		return wire.Receipt{}, none, err
	}
	release, err := b.uploads.Acquire(ctx, host)
	if err != nil {
		return wire.Receipt{}, none, access.CauseOf(ctx, err)
	}
	defer release()
	found, err := b.find(ctx, h.Upload)
	if err != nil {
		return wire.Receipt{}, none, access.CauseOf(ctx, err)
	}
	if found.isFinal() { // stored by another request meanwhile, or in conflict
		b.sessions.Remove(h)
		b.removeUpload(ctx, h.Upload, *h.Progress())
		got, err := found.result()
		return got, none, err
	}
	return b.receivePiece(ctx, h, piece, body, found.next())
}

// receivePiece receives a piece, and stores the archive if it is the last one. What has arrived of a
// piece that ends early is kept.
func (b *Backend) receivePiece(ctx context.Context, h *session, piece wire.Piece, body io.Reader, generation int) (wire.Receipt, wire.Unfinished, error) {
	at := (*h.Progress()).offset
	reserved, err := b.disk.Reserve(h.Key.Host, at, at+piece.Size)
	if err != nil {
		return wire.Receipt{}, wire.Unfinished{}, err
	}
	defer reserved.Release()
	work := b.workContext(ctx) // it continues if the sender disconnects
	r, err := b.newPartWriter(work, h.Upload, *h.Progress(), archiveName(h.Key, h.Digest, generation))
	if err != nil {
		return wire.Receipt{}, wire.Unfinished{}, err
	}
	defer r.close()
	n, err := io.CopyBuffer(struct{ io.Writer }{r}, struct{ io.Reader }{body}, make([]byte, copyBuffer))
	if err == nil && n < piece.Size {
		err = io.ErrUnexpectedEOF
	}
	reserved.RecordWritten(n)
	if n > 0 {
		h.NoteByte()
	}
	if err == nil && piece.Last {
		return b.completeUpload(ctx, work, h, r, generation)
	}
	if kept := r.keep(); kept != nil {
		b.sessions.Remove(h) // the next announcement finds what is in the bucket
		return wire.Receipt{}, wire.Unfinished{}, errors.Join(err, kept)
	}
	return wire.Receipt{}, wire.Unfinished{ID: h.ID(), Offset: r.p.offset, Length: h.Size}, err
}

// copyBuffer is how much of a body is read before it is written.
const copyBuffer = 32 << 10

// completeUpload makes the received bytes the archive, and commits it.
func (b *Backend) completeUpload(ctx, work context.Context, h *session, r *partWriter, generation int) (wire.Receipt, wire.Unfinished, error) {
	// Not earlier, or an announcement meanwhile would find neither the session nor the archive.
	defer b.sessions.Remove(h)
	none := wire.Unfinished{}
	name, err := r.finish()
	if errors.Is(err, wire.DigestMismatch) || errors.Is(err, wire.Damaged) {
		b.removeUpload(work, h.Upload, r.p)
	}
	if err != nil {
		return wire.Receipt{}, none, err
	}
	got, err := b.commitArchive(ctx, h.Upload, generation, name, r.meta)
	if err == nil {
		b.removeUpload(work, h.Upload, r.p)
	}
	return got, none, err
}

// commitFinished commits an archive that a receiver completed before it stopped. Its bytes are read
// back: other processes have received them.
func (b *Backend) commitFinished(ctx context.Context, h *session, generation int) (wire.Receipt, error) {
	p := *h.Progress()
	work := b.workContext(ctx)
	err := b.checkObject(work, p.finished, h.Key.Host, h.Digest, h.Size)
	if errors.Is(err, errCorrupt) {
		b.log.Error("completed upload is corrupt", "host", h.Key.Host, "episode", h.Key.Name, "err", err, "hint", "its host sends it again")
		b.removeUpload(ctx, h.Upload, p)
		return wire.Receipt{}, errMismatch
	}
	meta := ""
	if err == nil {
		meta, err = b.readStoredMeta(work, h.Key, p.finished)
	}
	if err != nil {
		return wire.Receipt{}, access.CauseOf(work, err)
	}
	b.sessions.Remove(h)
	got, err := b.commitArchive(ctx, h.Upload, generation, p.finished, meta)
	if err == nil {
		b.removeUpload(work, h.Upload, p)
	}
	return got, err
}

// UploadState returns the offset of an upload.
func (b *Backend) UploadState(ctx context.Context, host episode.Name, id string) (wire.Unfinished, error) {
	h, err := b.acquireByID(ctx, host, id)
	if err != nil {
		return wire.Unfinished{}, b.checkAnswer(ctx, err)
	}
	defer h.Close()
	return wire.Unfinished{ID: id, Offset: (*h.Progress()).offset, Length: h.Size}, b.checkAnswer(ctx, nil)
}

// CancelUpload drops an upload because its sender cancels it.
func (b *Backend) CancelUpload(ctx context.Context, host episode.Name, id string) error {
	h, err := b.acquireByID(ctx, host, id)
	if err == nil {
		defer h.Close()
		b.sessions.Remove(h)
		b.removeUpload(ctx, h.Upload, *h.Progress())
	}
	return b.checkAnswer(ctx, err)
}

func (b *Backend) acquireByID(ctx context.Context, host episode.Name, id string) (*session, error) {
	s := b.sessions.ByID(host, id)
	if s == nil {
		return nil, resumable.ErrNoUpload
	}
	h, err := s.Acquire(ctx, nil)
	if err == nil && *h.Progress() == nil {
		h.Close()
		return nil, resumable.ErrNoUpload
	}
	return h, err
}

// expireInterval is how often expired uploads are looked for. minUnfinishedAge is longer than a part
// takes at the minimum rate, because nothing is written in between.
const (
	expireInterval   = time.Hour
	minUnfinishedAge = 6 * time.Hour
)

// expireUploadsUntil removes the uploads that were not continued within the limit, whichever receiver
// has begun them, until ctx ends.
func (b *Backend) expireUploadsUntil(ctx context.Context) error {
	tick := time.NewTicker(expireInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		age := max(b.opts.Limits.UnfinishedAge, minUnfinishedAge)
		if err := b.expireUploads(ctx, time.Now().Add(-age)); err != nil && ctx.Err() == nil {
			b.log.Warn("could not remove expired uploads", "err", err)
		}
	}
}

func (b *Backend) expireUploads(ctx context.Context, before time.Time) error {
	for _, h := range b.sessions.AcquireIdle(before) {
		b.sessions.Remove(h)
		h.Close()
	}
	return b.removeExpired(ctx, before)
}
