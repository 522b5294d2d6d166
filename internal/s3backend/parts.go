package s3backend

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
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
	spool    *os.File
	spooled  int64
	part     hash.Hash      // of the spooled bytes
	whole    *digest.Writer // of all bytes
	// sent are the parts that are not recorded yet, with the number and the hash of all bytes up to
	// their end.
	sent      []bucket.Part
	sentEnd   int64
	sentState []byte
	recorded  time.Time
	meta      string // the Git commit in meta.json
}

// newPartWriter returns a writer that continues after what is in the bucket.
func (b *Backend) newPartWriter(ctx context.Context, u wire.Upload, p *progress, name string) (*partWriter, error) {
	w := &partWriter{b: b, ctx: ctx, u: u, p: p, name: name, part: sha256.New(), whole: digest.NewWriter(io.Discard), partSize: b.partSize(u.Size), recorded: time.Now()}
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
	if p.tail == "" {
		return w, nil
	}
	if err := w.loadTail(); err != nil {
		return nil, errors.Join(err, w.spool.Close())
	}
	return w, nil
}

func (w *partWriter) close() { w.spool.Close() }

// loadTail spools the bytes after the last part.
func (w *partWriter) loadTail() error {
	r, _, err := w.b.bucket.Open(w.ctx, w.p.tail)
	if err == nil {
		defer r.Close()
		_, err = io.CopyN(w, r, w.p.offset-w.p.partsEnd)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", w.p.tail, err)
	}
	return nil
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
		if _, err := w.spool.Write(piece); err != nil {
			return n, fmt.Errorf("spool a part: %w", err)
		}
		w.spooled += int64(len(piece))
		w.part.Write(piece)
		w.whole.Write(piece)
		n += len(piece)
	}
	return n, nil
}

// sendPart sends the spooled bytes as a part.
func (w *partWriter) sendPart() error {
	if err := w.begin(); err != nil {
		return err
	}
	number := len(w.p.parts) + len(w.sent) + 1
	if number == 1 {
		var err error
		if w.meta, err = w.b.readMeta(w.ctx, w.u.Key, w.spooledBytes()); err != nil {
			return err
		}
	}
	part, err := w.b.bucket.PutPart(w.ctx, w.p.multipart.Object, w.p.multipart.ID, number, w.spooledBytes(), w.spooled, digest.Digest(w.part.Sum(nil)))
	if errors.Is(err, bucket.ErrNoUpload) {
		return w.startAgain(err)
	}
	if err != nil {
		return fmt.Errorf("put part %d of %s: %w", number, w.p.multipart.Object, err)
	}
	if _, err := w.spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.sent, w.sentEnd, w.sentState = append(w.sent, part), w.whole.Size(), w.whole.HashState()
	w.spooled = 0
	w.part.Reset()
	if time.Since(w.recorded) < recordInterval {
		return nil
	}
	return w.record()
}

func (w *partWriter) spooledBytes() io.Reader { return io.NewSectionReader(w.spool, 0, w.spooled) }

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
	r := partsRecord{Parts: w.sent, End: w.sentEnd, State: w.sentState}
	if err := w.b.createJSON(w.ctx, recordName(w.u, len(w.p.parts)+1), r); err != nil {
		if errors.Is(err, fs.ErrExist) { // another receiver has received these parts
			err = errors.Join(resumable.ErrNoUpload, err)
		}
		return err
	}
	w.p.parts, w.sent, w.recorded = append(w.p.parts, w.sent...), nil, time.Now()
	w.p.partsEnd, w.p.hashState = r.End, r.State
	w.replaceTail("", r.End)
	return nil
}

// keep makes what has arrived the progress of the upload. A link that breaks within each part would
// never advance without the bytes after the last part.
func (w *partWriter) keep() error {
	if err := w.record(); err != nil {
		return err
	}
	if w.whole.Size() == w.p.offset {
		return nil
	}
	name := tailName(w.u, w.p.partsEnd, w.spooled)
	if err := w.b.bucket.Put(w.ctx, name, w.spooledBytes(), w.spooled, digest.Digest(w.part.Sum(nil))); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	w.replaceTail(name, w.whole.Size())
	return nil
}

// replaceTail records the bytes after the last part, and removes those from before. If that fails, they
// go with the upload.
func (w *partWriter) replaceTail(name string, offset int64) {
	former := w.p.tail
	w.p.tail, w.p.offset = name, offset
	if former == "" || former == name {
		return
	}
	if err := w.b.bucket.Remove(w.ctx, former); err != nil {
		w.b.log.Debug("could not remove a tail", "object", former, "err", err)
	}
}

// finish makes the received bytes an archive, and returns its name in the bucket.
func (w *partWriter) finish() (string, error) {
	if d, n := w.whole.Sum(); d != w.u.Digest || n != w.u.Size {
		return "", errMismatch
	}
	if w.p.multipart.ID == "" {
		var err error
		if w.meta, err = w.b.readMeta(w.ctx, w.u.Key, w.spooledBytes()); err != nil {
			return "", err
		}
		return w.name, w.b.put(w.ctx, w.name, w.spooledBytes(), w.u)
	}
	if w.spooled > 0 {
		if err := w.sendPart(); err != nil {
			return "", err
		}
	}
	m := w.p.multipart
	err := w.b.bucket.Finish(w.ctx, m.Object, m.ID, slices.Concat(w.p.parts, w.sent))
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
