package s3backend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/resumable"
	"cis490/internal/wire"
)

// partWriter sends the bytes of an upload to the bucket in parts. A part is spooled until it is
// whole, because a request must state its digest first.
type partWriter struct {
	b    *Backend
	ctx  context.Context // of the piece, and of what follows its last byte
	u    wire.Upload
	p    *progress
	name string // of an archive that is put whole

	partSize int64
	spool    *os.File       // has the part that is not whole, each byte at its position in the part
	spooled  int64          // bytes of this part
	absent   int64          // the first of these bytes, which are only in the tails; 0 once they were needed
	whole    *digest.Writer // of all bytes in parts
	// sent are the parts that are not recorded yet.
	sent     []bucket.Part
	recorded time.Time
	meta     string // the Git commit in meta.json
}

// newPartWriter returns a writer that continues after what is in the bucket.
func (b *Backend) newPartWriter(ctx context.Context, u wire.Upload, p *progress, name string) (*partWriter, error) {
	w := &partWriter{b: b, ctx: ctx, u: u, p: p, name: name, whole: digest.NewWriter(io.Discard), partSize: b.partSize(u.Size), recorded: time.Now()}
	w.spooled = p.offset - p.partsEnd
	w.absent = w.spooled
	var err error
	if p.partsEnd > 0 {
		p.loaded = true
		if w.whole, err = digest.ResumeWriter(io.Discard, p.partsEnd, p.hashState); err != nil {
			return nil, errors.Join(resumable.ErrNoUpload, err, b.removeDir(ctx, uploadDir(u), p.multipart.ID))
		}
	}
	// It has no name, and is gone with the process.
	fd, err := unix.Open(b.opts.SpoolDir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool a part in %s: %w", b.opts.SpoolDir, err)
	}
	w.spool = os.NewFile(uintptr(fd), "part")
	return w, nil
}

func (w *partWriter) close() { w.spool.Close() }

// loadTails spools tails, of which the first one begins in the part at byte from.
func (w *partWriter) loadTails(tails []tail, from int64) error {
	at := from
	for _, t := range tails {
		r, _, err := w.b.bucket.Open(w.ctx, tailName(w.u, t))
		if errors.Is(err, fs.ErrNotExist) { // another receiver has joined it with others
			return errors.Join(resumable.ErrNoUpload, err)
		}
		if err == nil {
			_, err = io.CopyN(io.NewOffsetWriter(w.spool, at), r, t.size)
			err = errors.Join(err, r.Close())
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", tailName(w.u, t), err)
		}
		at += t.size
	}
	w.absent = from
	return nil
}

// loadPart spools what is absent of the part.
func (w *partWriter) loadPart() error {
	if w.absent == 0 {
		return nil
	}
	return w.loadTails(w.p.tails, 0)
}

// Write spools bytes, and sends each part that is whole but the last.
func (w *partWriter) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if w.spooled == w.partSize {
			if err := w.sendPart(); err != nil {
				return n, err
			}
		}
		piece := b[n:min(len(b), n+int(w.partSize-w.spooled))]
		if _, err := w.spool.WriteAt(piece, w.spooled); err != nil {
			return n, fmt.Errorf("spool a part: %w", err)
		}
		w.spooled += int64(len(piece))
		n += len(piece)
	}
	return n, nil
}

// hashPart returns the digest of the spooled part, and the hash of all bytes up to its end.
func (w *partWriter) hashPart() (digest.Digest, *digest.Writer, error) {
	if err := w.loadPart(); err != nil {
		return digest.Digest{}, nil, err
	}
	whole, err := digest.ResumeWriter(io.Discard, w.whole.Size(), w.whole.HashState())
	if err != nil {
		return digest.Digest{}, nil, err
	}
	part, _, err := digest.Of(io.TeeReader(w.spooledBytes(0), whole))
	if err != nil {
		return digest.Digest{}, nil, fmt.Errorf("read a spooled part: %w", err)
	}
	return part, whole, nil
}

// sendPart sends the spooled bytes as a part.
func (w *partWriter) sendPart() error {
	if err := w.begin(); err != nil {
		return err
	}
	d, whole, err := w.hashPart()
	if err != nil {
		return err
	}
	return w.putPart(d, whole)
}

// putPart is [partWriter.sendPart] with the results of [partWriter.hashPart].
func (w *partWriter) putPart(d digest.Digest, whole *digest.Writer) error {
	number := len(w.p.parts) + len(w.sent) + 1
	if number == 1 {
		var err error
		if w.meta, err = w.b.readMeta(w.ctx, w.u.Key, w.spooledBytes(0)); err != nil {
			return err
		}
	}
	part, err := w.b.bucket.PutPart(w.ctx, w.p.multipart.Object, w.p.multipart.ID, number, w.spooledBytes(0), w.spooled, d)
	if errors.Is(err, bucket.ErrNoUpload) {
		return w.startAgain(err)
	}
	if err != nil {
		return fmt.Errorf("put part %d of %s: %w", number, w.p.multipart.Object, err)
	}
	w.sent, w.whole, w.spooled = append(w.sent, part), whole, 0
	if time.Since(w.recorded) < recordInterval {
		return nil
	}
	return w.record()
}

// spooledBytes returns the spooled bytes from a position in the part on.
func (w *partWriter) spooledBytes(from int64) io.Reader {
	return io.NewSectionReader(w.spool, from, w.spooled-from)
}

// begin begins the multipart upload, unless a receiver has.
func (w *partWriter) begin() error {
	if w.p.multipart.ID != "" {
		return nil
	}
	// A name of its own: whatever the parts become, they replace no archive.
	object := fmt.Sprintf("%s%s.%s.tar.zst", archiveDir(w.u.Key), w.u.Digest, rand.Text()[:8])
	id, err := w.b.bucket.Begin(w.ctx, object)
	if err != nil {
		return fmt.Errorf("begin %s: %w", object, err)
	}
	m := multipart{ID: id, Object: object}
	err = w.b.createJSON(w.ctx, uploadDir(w.u)+multipartName, m)
	if errors.Is(err, fs.ErrExist) { // another receiver receives the archive too
		return errors.Join(resumable.ErrNoUpload, err, w.b.bucket.Abort(w.ctx, object, id))
	}
	if err != nil { // it may exist
		return err
	}
	w.p.multipart = m
	return nil
}

// startAgain returns the error for a multipart upload that does not exist any more. Unless it was
// completed, what is recorded of it is worth nothing.
func (w *partWriter) startAgain(err error) error {
	err = errors.Join(resumable.ErrNoUpload, err)
	if _, missing := w.b.bucket.Stat(w.ctx, w.p.multipart.Object); errors.Is(missing, fs.ErrNotExist) {
		return errors.Join(err, w.b.removeDir(w.ctx, uploadDir(w.u), w.p.multipart.ID))
	}
	return err
}

// record records the parts that were sent, so that any receiver can continue after them.
func (w *partWriter) record() error {
	if len(w.sent) == 0 {
		return nil
	}
	r := partsRecord{Parts: w.sent, End: w.whole.Size(), State: w.whole.HashState()}
	if err := w.b.createJSON(w.ctx, recordName(w.u, len(w.p.parts)+1), r); err != nil {
		if errors.Is(err, fs.ErrExist) { // another receiver has received these parts
			err = errors.Join(resumable.ErrNoUpload, err)
		}
		return err
	}
	w.p.parts, w.sent, w.recorded = append(w.p.parts, w.sent...), nil, time.Now()
	w.p.partsEnd, w.p.hashState = r.End, r.State
	w.b.removeTails(w.ctx, w.u, w.p.tails)
	w.p.tails, w.p.offset = nil, r.End
	return nil
}

// keep makes what has arrived the progress of the upload. A link that breaks within each part would
// never advance without the bytes after the last part.
//
// The bytes of each piece are another tail. The former ones are not read until the part is whole, or the new
// one joins them.
func (w *partWriter) keep() error {
	if err := w.record(); err != nil {
		return err
	}
	end := w.p.partsEnd + w.spooled
	if end == w.p.offset {
		return nil
	}
	t, kept := w.p.nextTail(end)
	joined, at := w.p.tails[kept:], t.from-w.p.partsEnd
	if w.absent > 0 {
		if err := w.loadTails(joined, at); err != nil {
			return err
		}
	}
	d, _, err := digest.Of(w.spooledBytes(at))
	if err != nil {
		return fmt.Errorf("read a spooled part: %w", err)
	}
	if err := w.b.bucket.Put(w.ctx, tailName(w.u, t), w.spooledBytes(at), t.size, d); err != nil {
		return fmt.Errorf("put %s: %w", tailName(w.u, t), err)
	}
	w.p.tails, w.p.offset = append(w.p.tails[:kept:kept], t), end
	w.b.removeTails(w.ctx, w.u, joined)
	return nil
}

// finish makes the received bytes an archive, and returns its name in the bucket.
func (w *partWriter) finish() (string, error) {
	part, whole, err := w.hashPart()
	if err != nil {
		return "", err
	}
	if d, n := whole.Sum(); d != w.u.Digest || n != w.u.Size {
		return "", errMismatch
	}
	if w.p.multipart.ID == "" {
		if w.meta, err = w.b.readMeta(w.ctx, w.u.Key, w.spooledBytes(0)); err != nil {
			return "", err
		}
		return w.name, w.b.put(w.ctx, w.name, w.spooledBytes(0), w.u)
	}
	if w.spooled > 0 {
		if err := w.putPart(part, whole); err != nil {
			return "", err
		}
	}
	m := w.p.multipart
	err = w.b.bucket.Finish(w.ctx, m.Object, m.ID, slices.Concat(w.p.parts, w.sent))
	if errors.Is(err, bucket.ErrPart) || errors.Is(err, bucket.ErrNoUpload) {
		// Another receiver has stored other bytes as a part, or has completed the upload.
		return "", w.startAgain(err)
	}
	if err != nil {
		return "", fmt.Errorf("finish %s: %w", m.Object, err)
	}
	return m.Object, w.checkFinished(m.Object)
}

// checkFinished reads back an archive that was completed from parts. Our hash does not show what
// happened to them since: the host may have sent other bytes with the same ETag to another receiver.
func (w *partWriter) checkFinished(object string) error {
	err := w.b.checkObject(w.ctx, object, w.u.Key.Host, w.u.Digest, w.u.Size)
	if errors.Is(err, fs.ErrNotExist) { // another receiver has aborted the upload, and the engine did not say so
		return w.startAgain(err)
	}
	if errors.Is(err, errCorrupt) { // what this sender sent was right
		w.b.log.Error("upload in parts is corrupt", "host", w.u.Key.Host, "episode", w.u.Key.Name, "err", err, "hint", "its host sends it again")
		return errors.Join(wire.Refuse(wire.Damaged, "send it again"), err)
	}
	if err == nil && w.p.loaded { // the first part had meta.json
		w.meta, err = w.b.readStoredMeta(w.ctx, w.u.Key, object)
	}
	return err
}
