package diskbackend

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"cis490/internal/admission"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/refusal"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Stat returns the receipt of the archive under key.
func (b *Backend) Stat(ctx context.Context, key episode.Key) (wire.Receipt, error) {
	o, err := b.statArchive(ctx, key)
	return newReceipt(wire.AlreadyPresent, rowOf(o)), b.checkAnswer(ctx, err)
}

func (b *Backend) statArchive(ctx context.Context, key episode.Key) (store.Object, error) {
	o, err := b.store.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return o, wire.Refuse(wire.NotFound, "no archive under this name")
	}
	if err != nil || !o.Digest.IsZero() {
		return o, err
	}
	// It was copied in by hand: its digest must be computed.
	release, err := b.uploadLimiter.Acquire(ctx, key.Host)
	if err != nil {
		return o, err
	}
	defer release()
	return b.store.ReadBack(ctx, key, digest.Digest{}, store.Reading{})
}

// Put stores an archive, and returns when it is durable.
func (b *Backend) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	got, err := b.putArchive(ctx, u, body)
	return got, b.checkReceipt(ctx, got, err)
}

func (b *Backend) putArchive(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	if err := refusal.CheckSize(u.Size, b.cfg.ArchiveBytes); err != nil {
		return wire.Receipt{}, err
	}
	release, err := b.uploadLimiter.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer release()
	found, err := b.findStored(ctx, u)
	if err != nil {
		return wire.Receipt{}, err
	}
	if found.isFinal() {
		return found.wireResult()
	}
	if err := b.store.CheckHost(u.Key.Host); err != nil {
		return wire.Receipt{}, err
	}
	reserved, err := b.disk.Reserve(u.Key.Host, 0, u.Size)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer reserved.Release()
	up, err := b.store.CreateUpload(u.Key)
	if err != nil {
		return wire.Receipt{}, err
	}
	if err := b.stageBody(up, u, body, reserved); err != nil {
		return wire.Receipt{}, errors.Join(err, up.Discard())
	}
	return b.storeStaged(ctx, up, u, found.state)
}

// stageBody writes the body to staging and compares it with what was announced.
func (b *Backend) stageBody(up *store.Upload, u wire.Upload, body io.Reader, reserved *admission.Reservation) error {
	w := digest.NewWriter(up)
	if err := b.copyBody(w, u.Size, body, reserved, func() error { return nil }); err != nil {
		return err
	}
	if d, n := w.Sum(); d != u.Digest || n != u.Size {
		return wire.Refuse(wire.DigestMismatch, "nothing was stored")
	}
	return nil
}

// chunkSize is how much of a body is read before it is written. Twice as much saves 5 % of
// the CPU time, and needs 4 MiB more for the maximum number of uploads.
const chunkSize = 32 << 10

// copyBody writes a body of size bytes, and calls afterChunk after each chunk.
func (b *Backend) copyBody(w io.Writer, size int64, body io.Reader, reserved *admission.Reservation, afterChunk func() error) error {
	buf, free := b.acquireBuffer(size)
	defer free()
	for {
		n, err := io.ReadFull(body, buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		reserved.RecordWritten(int64(n))
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err == nil {
			err = afterChunk()
		}
		if err != nil {
			return err
		}
	}
}

// acquireBuffer returns a chunk, or less for a smaller body. Chunks are reused: most of the garbage
// would be chunks.
func (b *Backend) acquireBuffer(size int64) (buf []byte, free func()) {
	if size < chunkSize {
		return make([]byte, max(size, 1)), func() {}
	}
	chunk, ok := b.chunks.Get().(*[chunkSize]byte)
	if !ok {
		chunk = new([chunkSize]byte)
	}
	return chunk[:], func() { b.chunks.Put(chunk) }
}
