package receiver

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/admission"
	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/index"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Stat returns the receipt of what is stored under key.
func (r *Receiver) Stat(ctx context.Context, key episode.Key) (wire.Receipt, error) {
	o, err := r.store.Stat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.Receipt{}, wire.Refuse(wire.NotFound, "no archive under this name")
	}
	if err == nil && o.Digest.IsZero() { // copied in by hand: to be read, which is work
		var release func()
		if release, err = r.uploadLimiter.Acquire(ctx, key.Host); err != nil {
			return wire.Receipt{}, problemOf(err)
		}
		defer release()
		o, err = r.store.ReadBack(ctx, key, digest.Digest{}, store.Reading{})
	}
	if err != nil {
		return wire.Receipt{}, r.noteFault(err)
	}
	return receipt(wire.AlreadyPresent, o), nil
}

// Put takes an archive in, and returns when all of it is durable.
func (r *Receiver) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	got, err := r.put(ctx, u, body)
	if err = r.checkFault(err); err != nil {
		return wire.Receipt{}, err
	}
	return got, nil
}

// checkFault returns what a sender is told at the end of a request that may have ended
// with err.
func (r *Receiver) checkFault(err error) error {
	if err == nil {
		err = r.checkPaths()
	}
	if err == nil && r.faulted.Load() {
		err = errFaulted // another upload met it: what the kernel says of ours is worth nothing
	}
	if err != nil {
		err = r.noteFault(err)
	}
	return err
}

// checkSize refuses an archive that is too large.
func (r *Receiver) checkSize(u wire.Upload) error {
	if u.Size > int64(r.cfg.Limits.ArchiveBytes) {
		return wire.Refuse(wire.TooLarge, "an archive has at most %d bytes", r.cfg.Limits.ArchiveBytes)
	}
	return nil
}

var errFaulted = errors.New("the storage has failed or was moved, and nothing is acknowledged any more")

func (r *Receiver) put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	if err := r.checkSize(u); err != nil {
		return wire.Receipt{}, err
	}
	release, err := r.uploadLimiter.Acquire(ctx, u.Key.Host)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer release()
	got, is, err := r.lookupStored(ctx, u)
	if is == here || err != nil {
		return got, err
	}
	if err := r.store.CheckHost(u.Key.Host); err != nil {
		return wire.Receipt{}, err
	}
	reserved, err := r.disk.Reserve(u.Key.Host, 0, u.Size)
	if err != nil {
		return wire.Receipt{}, err
	}
	defer reserved.Release()
	up, err := r.store.Create(u.Key)
	if err != nil {
		return wire.Receipt{}, err
	}
	if err := r.stage(up, u, body, reserved); err != nil {
		return wire.Receipt{}, errors.Join(err, up.Discard())
	}
	return r.commit(ctx, up, u, is == rotten)
}

// presence is what the store has of an upload.
type presence int

const (
	absent presence = iota
	here            // these bytes, with their row
	rotten          // a copy that has not kept its bytes
)

// lookupStored answers an upload of what is stored already: with the first receipt
// if it is the same, after reading all of it from the disk, because the sender
// will give up its copy for that answer; with a refusal if it is another. A copy
// that has rotted is for the new bytes to take the place of.
func (r *Receiver) lookupStored(ctx context.Context, u wire.Upload) (wire.Receipt, presence, error) {
	unlock, err := r.keyLocks.LockContext(ctx, u.Key)
	if err != nil {
		return wire.Receipt{}, absent, err
	}
	defer unlock()
	o, err := r.store.Stat(u.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return wire.Receipt{}, absent, nil
	}
	if err != nil {
		return wire.Receipt{}, absent, err
	}
	if !o.Digest.IsZero() && o.Digest != u.Digest {
		return wire.Receipt{}, here, conflict(o.Digest)
	}
	of, life := archiveID{u.Key, u.Digest}, workContext(ctx, r.baseCtx)
	if kept := r.readbackCache.take(of); o.Digest.IsZero() || u.Resent || !kept {
		// One a host, or few bytes of request would keep the disk from the others.
		read, rerr := r.readbackLocks.LockContext(ctx, u.Key.Host)
		if rerr != nil {
			return wire.Receipt{}, absent, rerr
		}
		// Also if its sender does not wait so long: it will ask again.
		o, err = r.store.ReadBack(life, u.Key, digest.Digest{}, store.Reading{})
		read()
	}
	if isCorrupt(err) {
		r.log.Error("a stored archive is damaged; its host sends it again", "host", u.Key.Host, "episode", u.Key.Name, "err", err)
		return wire.Receipt{}, rotten, nil
	}
	if err != nil {
		return wire.Receipt{}, absent, contextCause(life, err)
	}
	if o.Digest != u.Digest {
		return wire.Receipt{}, here, conflict(o.Digest)
	}
	r.readbackCache.add(ctx, of)
	if !o.Settled {
		found, err := r.rowSearches.lookUp(ctx, u.Key.Host, u.Key)
		if err != nil {
			r.readbackCache.add(ctx, of)
			return wire.Receipt{}, absent, err
		}
		if o, err = r.ensureIndexed(context.WithoutCancel(ctx), o, found); err != nil {
			return wire.Receipt{}, here, err
		}
	}
	return receipt(wire.AlreadyPresent, o), here, nil
}

// isCorrupt reports whether a stored copy is not what it was: its bytes are others,
// or the disk does not give them.
func isCorrupt(err error) bool { return errors.Is(err, store.ErrDamaged) || errors.Is(err, unix.EIO) }

func conflict(stored digest.Digest) error {
	p := wire.Refuse(wire.Conflict, "another archive is stored under this name")
	p.Stored = stored
	return p
}

// ensureIndexed makes sure that a stored object has its row: one that was copied in by
// hand, or one whose row could not be written. The caller holds the lock of its
// key, so no upload of it is under way. Found is of a search for the key under that lock.
func (r *Receiver) ensureIndexed(ctx context.Context, o store.Object, found index.Found) (store.Object, error) {
	if err := r.store.SyncHostDir(o.Key); err != nil {
		return o, err
	}
	row := rowOf(o)
	row.Commit = r.commitOf(o.Key, r.openStored(o.Key))
	row, err := r.index.EnsureAfter(ctx, row, found)
	if err != nil {
		return o, err
	}
	o.ReceivedAt = row.ReceivedAt
	return o, r.store.MarkIndexed(o)
}

// chunkSize is what is read of a body before it is written. Twice as much saves 5 % of
// the CPU, and takes 4 MiB more where as many uploads are under way as may be.
const chunkSize = 32 << 10

// stage takes the body in and sees that it is what was announced.
func (r *Receiver) stage(up *store.Upload, u wire.Upload, body io.Reader, reserved *admission.Reservation) error {
	w := digest.NewWriter(up)
	if err := r.copyBody(w, u.Size, body, reserved, func() error { return nil }); err != nil {
		return err
	}
	if d, n := w.Sum(); d != u.Digest || n != u.Size {
		return wire.Refuse(wire.DigestMismatch, "nothing was stored")
	}
	return nil
}

// copyBody writes a body of a size, and calls between after each step.
func (r *Receiver) copyBody(w io.Writer, size int64, body io.Reader, reserved *admission.Reservation, between func() error) error {
	buf, free := r.buffer(size)
	defer free()
	for {
		n, err := io.ReadFull(body, buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		reserved.Wrote(int64(n))
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err == nil {
			err = between()
		}
		if err != nil {
			return err
		}
	}
}

// buffer returns a chunk, or less if a body is smaller. Chunks are used again: as
// garbage they would be the most of it.
func (r *Receiver) buffer(size int64) (buf []byte, free func()) {
	if size < chunkSize {
		return make([]byte, max(size, 1)), func() {}
	}
	whole, ok := r.chunks.Get().(*[chunkSize]byte)
	if !ok {
		whole = new([chunkSize]byte)
	}
	return whole[:], func() { r.chunks.Put(whole) }
}

// commit makes a staged upload a stored archive with a row, in the place of a
// rotten one if there is one. From here on one upload of a key at a time. The bytes
// are here: whether their sender still is, does not matter.
func (r *Receiver) commit(sender context.Context, up *store.Upload, u wire.Upload, rotten bool) (wire.Receipt, error) {
	ctx := context.WithoutCancel(sender)
	commit := r.commitOf(u.Key, func() (io.Reader, func() error, error) {
		return io.NewSectionReader(up, 0, u.Size), func() error { return nil }, nil
	})
	unlock := r.keyLocks.Lock(u.Key)
	o := store.Object{Key: u.Key, Size: u.Size, Digest: u.Digest, ReceivedAt: r.index.Now(time.Now())}
	work := workContext(sender, ctx)
	repaired, err := r.quarantineCorrupt(work, u, rotten)
	if err = contextCause(work, err); err == nil {
		// The host may have lost access since it began. From here on its receipt stands.
		err = r.access.recheck(sender)
	}
	if err == nil {
		err = cmp.Or(r.checkPaths(), r.store.CheckHost(u.Key.Host))
	}
	if err == nil {
		err = up.Commit(o.Digest, o.ReceivedAt)
	}
	if err != nil {
		unlock()
		return r.resolveCommitError(ctx, up, u, err)
	}
	defer unlock()
	row := rowOf(o)
	row.Commit, row.Skipped, row.Repaired = commit, u.Skipped, repaired
	if row, err = r.index.Append(ctx, row); err != nil {
		// The file stands, and its staging name says that a row is owed: the
		// sender's next attempt or the next start pays.
		return wire.Receipt{}, errors.Join(err, up.Abandon())
	}
	o.ReceivedAt = row.ReceivedAt
	if err := up.MarkIndexed(o.Digest, o.ReceivedAt); err != nil {
		return wire.Receipt{}, err
	}
	r.readbackCache.add(sender, archiveID{u.Key, u.Digest})
	r.log.Info("stored", "host", o.Key.Host, "episode", o.Key.Name, "sha256", o.Digest, "bytes", o.Size, "repaired", repaired)
	return receipt(wire.Stored, o), nil
}

// quarantineCorrupt sets a rotten copy aside, now that other bytes are here, and
// reports whether the key has a row already, which the next one will supersede.
// A copy may have been set aside before a crash, so the quarantine is asked; and
// one that was deleted by hand is known to its host alone.
func (r *Receiver) quarantineCorrupt(ctx context.Context, u wire.Upload, rotten bool) (bool, error) {
	key := u.Key
	if rotten {
		// Another upload may have mended it since: look again, under the lock.
		_, err := r.store.ReadBack(ctx, key, digest.Digest{}, store.Reading{})
		if isCorrupt(err) {
			err = r.store.SetAside(key)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	aside, err := r.store.WasSetAside(key)
	if err != nil || !aside && !u.Resent {
		return false, err
	}
	rows, err := r.rowSearches.lookUp(ctx, key.Host, key)
	_, found := rows.Last(key)
	return found, err
}

// resolveCommitError ends an upload that could not be committed. If another one of the same
// key was first, its archive decides what the answer is.
func (r *Receiver) resolveCommitError(ctx context.Context, up *store.Upload, u wire.Upload, err error) (wire.Receipt, error) {
	if errors.Is(err, durable.ErrFault) {
		// The name may stand already: the staging name must tell of it.
		return wire.Receipt{}, errors.Join(err, up.Abandon())
	}
	if !errors.Is(err, fs.ErrExist) {
		return wire.Receipt{}, errors.Join(err, up.Discard())
	}
	if err := up.Discard(); err != nil {
		return wire.Receipt{}, err
	}
	got, is, err := r.lookupStored(ctx, u)
	if err == nil && is != here {
		err = wire.Refuse(wire.Damaged, "send it again")
	}
	return got, err
}

func rowOf(o store.Object) index.Row {
	return index.Row{ReceivedAt: o.ReceivedAt, Host: o.Key.Host, Episode: o.Key.Name, SHA256: o.Digest, Size: o.Size}
}

func receipt(s wire.Status, o store.Object) wire.Receipt {
	return wire.Receipt{
		Status: s, Host: o.Key.Host, Episode: o.Key.Name,
		Digest: o.Digest, Size: o.Size, ReceivedAt: wire.Timestamp{Time: o.ReceivedAt},
	}
}

// maxMetaReaders is how many decoders there are: each has a window of its own.
const maxMetaReaders = 2

func newMetaReaders() chan *archive.MetaReader {
	c := make(chan *archive.MetaReader, maxMetaReaders)
	for range maxMetaReaders {
		c <- new(archive.MetaReader)
	}
	return c
}

// commitOf looks for the commit in an archive's meta.json. The archive is
// opaque to everything else here: one that has none, or does not decode, is
// stored all the same.
func (r *Receiver) commitOf(key episode.Key, open func() (io.Reader, func() error, error)) string {
	look := <-r.metaReaders
	defer func() { r.metaReaders <- look }()
	from, done, err := open()
	if err == nil {
		defer done()
		var meta episode.Meta
		if meta, err = look.Read(from, key.Name); err == nil {
			return meta.Commit
		}
	}
	level, msg := slog.LevelDebug, "no meta.json"
	if _, bad := errors.AsType[*episode.MetaError](err); bad {
		level, msg = slog.LevelWarn, "meta.json cannot be read"
	}
	r.log.Log(context.Background(), level, msg, "host", key.Host, "episode", key.Name, "err", err)
	return ""
}

func (r *Receiver) openStored(key episode.Key) func() (io.Reader, func() error, error) {
	return func() (io.Reader, func() error, error) {
		f, err := r.store.Open(key)
		if err != nil {
			return nil, nil, err
		}
		return f, f.Close, nil
	}
}
