package s3backend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"path"
	"regexp"
	"slices"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/episode"
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
	tails     []tail        // with the bytes from partsEnd to offset, in this order
	unused    []tail        // of no use any more, for example because another receiver has joined them
	loaded    bool          // earlier pieces had the parts
	finished  string        // the archive, if it was completed already, or ""
}

// tail is an object with bytes of the part that is not whole. Each piece that ends early adds one: a piece
// of one byte must not move the whole part.
type tail struct{ from, size int64 }

// maxTails is more than an upload has, unless several receivers receive it at the same time.
const maxTails = 64

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

func tailName(u wire.Upload, t tail) string {
	return fmt.Sprintf("%stail-%d-%d", uploadDir(u), t.from, t.size)
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
	p.findTails(u, names, b.partSize(u.Size))
	return p, nil
}

// findTails finds the tails that continue the parts, of all objects of an upload.
func (p *progress) findTails(u wire.Upload, names []string, partSize int64) {
	longest := make(map[int64]tail) // by from
	var all []tail
	for _, name := range names {
		var t tail
		if _, err := fmt.Sscanf(path.Base(name), "tail-%d-%d", &t.from, &t.size); err != nil || name != tailName(u, t) {
			continue
		}
		all = append(all, t)
		isValid := t.from >= p.partsEnd && t.size <= min(p.partsEnd+partSize, u.Size)-t.from
		if isValid && t.size > longest[t.from].size {
			longest[t.from] = t
		}
	}
	for p.offset = p.partsEnd; longest[p.offset].size > 0; p.offset += p.tails[len(p.tails)-1].size {
		p.tails = append(p.tails, longest[p.offset])
	}
	for _, t := range all {
		if !slices.Contains(p.tails, t) {
			p.unused = append(p.unused, t)
		}
	}
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
	if p == nil || p.multipart.ID == "" && len(p.tails) == 0 {
		return
	}
	if err := b.removeDir(ctx, uploadDir(u), p.multipart.ID); err != nil {
		b.log.Debug("could not remove an upload", "host", u.Key.Host, "episode", u.Key.Name, "err", err)
	}
}

// nextTail returns the tail for the bytes from the offset to end, and how many of the tails stay. It joins
// those before it that are not twice as long. So each tail is at least twice as long as the one after it: a
// part has few of them, and a byte is stored a few times only, however small the pieces are.
func (p *progress) nextTail(end int64) (t tail, kept int) {
	t = tail{p.offset, end - p.offset}
	for kept = len(p.tails); kept > 0 && p.tails[kept-1].size < 2*t.size; kept-- {
		from := p.tails[kept-1].from
		t = tail{from, end - from}
	}
	return t, kept
}

// removeTails removes tails. If that fails, they go with the upload.
func (b *Backend) removeTails(ctx context.Context, u wire.Upload, tails []tail) {
	for _, t := range tails {
		if err := b.bucket.Remove(ctx, tailName(u, t)); err != nil {
			b.log.Debug("could not remove a tail", "object", tailName(u, t), "err", err)
		}
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
