package s3backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/bucket"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/resumable"
	"cis490/internal/wire"
)

const (
	uploadsPrefix = "uploads/"
	multipartName = "multipart.json"

	// minPartSize is how much of an archive is spooled before it is sent to the bucket. A larger
	// archive has larger parts, so that it has at most maxPartsOf.
	minPartSize = 8 << 20
	maxPartsOf  = 1000
	// recordInterval is how often the parts that have arrived are recorded. If a receiver stops, what
	// it has received since is sent again.
	recordInterval = time.Second
	// maxRecord is the maximum size of a record.
	maxRecord = 1 << 20
)

// progress says what of an upload is in the bucket.
//
//	uploads/<host>/<upload>/multipart.json        the multipart upload, before its first part
//	uploads/<host>/<upload>/parts-<first>.json    parts that have arrived; create-only
//	uploads/<host>/<upload>/tail-<from>-<bytes>   bytes after the last part, when a piece ended early
type progress struct {
	offset    int64 // bytes that the sender need not send again
	multipart multipart
	parts     []bucket.Part // recorded
	partsEnd  int64         // bytes in them
	hashState []byte        // of the sha256 of these bytes
	tail      string        // the object with the bytes from partsEnd to offset, or ""
	loaded    bool          // earlier pieces had the parts
	finished  string        // the archive, if it was completed already, or ""
}

// multipart is the content of multipart.json.
type multipart struct {
	ID     string `json:"id"`
	Object string `json:"object"` // the archive that the parts become
}

// partsRecord is the content of a record of parts.
type partsRecord struct {
	Parts []bucket.Part `json:"parts"`
	End   int64         `json:"end"` // bytes in these parts and all before
	State []byte        `json:"sha256_state"`
}

func uploadDir(u wire.Upload) string {
	return uploadsPrefix + string(u.Key.Host) + "/" + uploadID(u) + "/"
}

func recordName(u wire.Upload, first int) string {
	return fmt.Sprintf("%sparts-%05d.json", uploadDir(u), first)
}

func tailName(u wire.Upload, from, n int64) string {
	return fmt.Sprintf("%stail-%d-%d", uploadDir(u), from, n)
}

// partSize returns the size of each part of an archive but the last.
func (b *Backend) partSize(size int64) int64 {
	each := (size + maxPartsOf - 1) / maxPartsOf
	return max(b.minPart, (each+b.minPart-1)/b.minPart*b.minPart)
}

// loadProgress returns what of an upload is in the bucket, whichever receiver has received it.
func (b *Backend) loadProgress(ctx context.Context, u wire.Upload) (*progress, error) {
	p := new(progress)
	var names []string
	for info, err := range b.bucket.List(ctx, uploadDir(u), "") {
		if err != nil {
			return nil, fmt.Errorf("look for the upload of %s/%s: %w", u.Key.Host, u.Key.Name, err)
		}
		names = append(names, info.Name)
	}
	if slices.Contains(names, uploadDir(u)+multipartName) {
		if err := b.loadParts(ctx, u, p, names); err != nil {
			return nil, err
		}
	}
	p.offset = p.partsEnd
	for _, name := range names {
		var from, n int64
		if _, err := fmt.Sscanf(path.Base(name), "tail-%d-%d", &from, &n); err != nil || name != tailName(u, from, n) {
			continue
		}
		if from == p.partsEnd && n <= b.partSize(u.Size) && from+n > p.offset && from+n <= u.Size {
			p.tail, p.offset = name, from+n
		}
	}
	return p, nil
}

// loadParts loads the multipart upload and the records of its parts.
func (b *Backend) loadParts(ctx context.Context, u wire.Upload, p *progress, names []string) error {
	if err := b.readJSON(ctx, uploadDir(u)+multipartName, &p.multipart); err != nil {
		return err
	}
	info, err := b.bucket.Stat(ctx, p.multipart.Object)
	if err == nil && info.Size == u.Size {
		p.finished = p.multipart.Object
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for {
		name := recordName(u, len(p.parts)+1)
		if !slices.Contains(names, name) {
			return nil
		}
		var r partsRecord
		if err := b.readJSON(ctx, name, &r); err != nil {
			return err
		}
		if len(r.Parts) == 0 || r.End <= p.partsEnd || r.End > u.Size {
			b.log.Warn("ignored a record of parts", "object", name)
			return nil // what follows is sent again
		}
		p.parts, p.partsEnd, p.hashState, p.loaded = append(p.parts, r.Parts...), r.End, r.State, true
	}
}

func (b *Backend) readJSON(ctx context.Context, name string, into any) error {
	r, _, err := b.bucket.Open(ctx, name)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, maxRecord))
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

func (b *Backend) createJSON(ctx context.Context, name string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := b.bucket.Create(ctx, name, bytes.NewReader(body), int64(len(body)), sha256.Sum256(body)); err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	return nil
}

// removeUpload removes what of an upload is in the bucket. What it does not reach expires. The
// multipart upload goes first, and its record last.
func (b *Backend) removeUpload(ctx context.Context, u wire.Upload, p *progress) {
	if p == nil || p.multipart.ID == "" && p.tail == "" {
		return
	}
	if err := b.removeDir(ctx, uploadDir(u), p.multipart.ID); err != nil {
		b.log.Debug("could not remove an upload", "host", u.Key.Host, "episode", u.Key.Name, "err", err)
	}
}

// removeDir removes the objects of an upload, and its multipart upload. With an id it removes nothing if
// the multipart upload is another one: another receiver has begun again.
func (b *Backend) removeDir(ctx context.Context, dir, id string) error {
	var m multipart
	err := b.readJSON(ctx, dir+multipartName, &m)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case id != "" && m.ID != id:
		return nil
	default:
		if err := b.bucket.Abort(ctx, m.Object, m.ID); err != nil {
			return err
		}
	}
	var names []string
	for info, err := range b.bucket.List(ctx, dir, "") {
		if err != nil {
			return err
		}
		names = append(names, info.Name)
	}
	for _, name := range slices.Backward(names) {
		if err := b.bucket.Remove(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// uploadInBucket is an upload of which something is in the bucket.
type uploadInBucket struct {
	dir, id string
	host    episode.Name
	newest  time.Time // when something of it was last written
}

// uploadsUnder yields the uploads whose objects begin with prefix. It ignores what is not an upload.
func (b *Backend) uploadsUnder(ctx context.Context, prefix string) iter.Seq2[uploadInBucket, error] {
	return func(yield func(uploadInBucket, error) bool) {
		var u uploadInBucket
		for info, err := range b.bucket.List(ctx, prefix, "") {
			if err != nil {
				yield(u, err)
				return
			}
			next, valid := parseUploadDir(path.Dir(info.Name) + "/")
			if !valid {
				continue
			}
			if u.dir != "" && next.dir != u.dir {
				if !yield(u, nil) {
					return
				}
				u = uploadInBucket{}
			}
			next.newest = u.newest
			if info.ModifiedAt.After(next.newest) {
				next.newest = info.ModifiedAt
			}
			u = next
		}
		if u.dir != "" {
			yield(u, nil)
		}
	}
}

// uploadDirPattern matches the directory of an upload, whose host is parsed by itself.
var uploadDirPattern = regexp.MustCompile(`^uploads/([^/]+)/([0-9a-f]{32})/$`)

func parseUploadDir(dir string) (uploadInBucket, bool) {
	match := uploadDirPattern.FindStringSubmatch(dir)
	if match == nil {
		return uploadInBucket{}, false
	}
	host, err := episode.ParseName(match[1])
	return uploadInBucket{dir: dir, host: host, id: match[2]}, err == nil
}

// limitUploads removes the oldest upload of a host if it has as many as it may have, before another one
// begins. Those that this receiver holds count as the newest.
func (b *Backend) limitUploads(ctx context.Context, u wire.Upload) error {
	var oldest uploadInBucket
	count := 0
	for other, err := range b.uploadsUnder(ctx, uploadsPrefix+string(u.Key.Host)+"/") {
		if err != nil {
			return fmt.Errorf("look for uploads of %s: %w", u.Key.Host, err)
		}
		count++
		if held := b.sessions.ByID(other.host, other.id) != nil; !held && (oldest.dir == "" || other.newest.Before(oldest.newest)) {
			oldest = other
		}
	}
	if count < b.sessions.MaxPerHost() || oldest.dir == "" {
		return nil
	}
	b.log.Info("dropped an unfinished upload", "host", u.Key.Host, "upload", oldest.id, "reason", "the host has started others")
	return b.removeDir(ctx, oldest.dir, "")
}

// removeExpired removes the uploads in which nothing was written since a time, except those that this
// receiver holds.
func (b *Backend) removeExpired(ctx context.Context, before time.Time) error {
	for u, err := range b.uploadsUnder(ctx, uploadsPrefix) {
		if err != nil {
			return err
		}
		if u.newest.After(before) || b.sessions.ByID(u.host, u.id) != nil {
			continue
		}
		b.log.Info("dropped an unfinished upload", "host", u.host, "upload", u.id, "reason", "its host did not continue it")
		if err := b.removeDir(ctx, u.dir, ""); err != nil {
			b.log.Warn("could not remove expired upload", "host", u.host, "upload", u.id, "err", err)
		}
	}
	return nil
}

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
	if errors.Is(err, errCorrupt) {
		w.b.log.Error("upload in parts is corrupt", "host", w.u.Key.Host, "episode", w.u.Key.Name, "err", err, "hint", "its host sends it again")
		return errMismatch
	}
	if err == nil && w.p.loaded { // the first part had meta.json
		w.meta, err = w.b.readStoredMeta(w.ctx, w.u.Key, object)
	}
	return err
}
