package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/outbox"
	"cis490/internal/settling"
)

// Why packing waits. The experiments need the disk.
var (
	errNoSpace    = fmt.Errorf("the disk is down to min_free: %w", unix.ENOSPC)
	errOutboxFull = fmt.Errorf("the outbox has reached outbox_max: %w", unix.ENOSPC)
)

// ErrLarge says that an episode is large, and was not packed.
var ErrLarge = errors.New("is large")

// Job is a finished episode that is to be packed.
type Job struct {
	Name       episode.Name
	MarkedAt   time.Time             // the ctime of its marker
	Seen       *settling.Observation // by the last attempt, see [settling.UnsettledError]
	AllowLarge bool                  // pack it although it is large
}

// Pack packs a finished episode into the outbox, once, and returns the size of the archive. It
// commits the archive only if the tree was the same before and after. It calls packed before it
// waits for the disk.
//
// An episode that turns out to be large is not packed unless the job allows it: its size and
// [ErrLarge] are returned. For one that has changed too recently the error is a
// [*settling.UnsettledError].
func (p *Pipeline) Pack(ctx context.Context, packer *archive.Packer, job Job, packed func()) (int64, error) {
	start, name := time.Now(), job.Name
	w := p.startWork(name, false)
	defer p.endWork(w)
	if err := p.Dirs.CheckPaths(); err != nil {
		return 0, err
	}
	tree, err := p.src.OpenTree(name)
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	before, err := settling.Survey(ctx, tree, p.Settle, job.MarkedAt, job.Seen)
	if err != nil {
		return 0, err
	}
	if before.IsLarge() && !job.AllowLarge {
		return before.Bytes, ErrLarge
	}
	draft, err := p.out.CreateDraft(name)
	if err != nil {
		return 0, err
	}
	stream := p.startStreaming(ctx, name, draft, before)
	sealed, size, err := p.writeArchive(ctx, packer, tree, before, &spaceLimitedWriter{p: p, draft: draft, work: w, stream: stream})
	stream.stopSending()
	if err != nil {
		stream.discardUpload(ctx)
	}
	if err == nil {
		draft.AddToTotal(size)
		packed()
		err = p.Dirs.CheckPaths()
	}
	if err == nil {
		err = draft.Seal(sealed)
	}
	if err != nil {
		return 0, errors.Join(err, draft.Discard())
	}
	for _, skip := range before.Skipped.First {
		p.Log.Warn("skipped file", "episode", name, "file", skip.Path, "reason", skip.Reason)
	}
	p.Log.Info("packed", "episode", name, "sha256", sealed.Digest, "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	return size, nil
}

func (p *Pipeline) writeArchive(ctx context.Context, packer *archive.Packer, tree *archive.Tree, before archive.Survey, to io.Writer) (outbox.Seal, int64, error) {
	w := digest.NewWriter(to)
	// Pack surveys the tree again at its end, and fails if it has changed.
	if err := packer.Pack(ctx, w, tree, before); err != nil {
		return outbox.Seal{}, 0, err
	}
	d, size := w.Sum()
	return outbox.Seal{Digest: d, Fingerprint: before.Fingerprint.Short(), Skipped: before.Skipped.Count}, size, nil
}

// spaceLimitedWriter stops before the disk is full or the outbox over its limit. An episode larger
// than the limit may have the outbox to itself.
type spaceLimitedWriter struct {
	p          *Pipeline
	draft      *outbox.Draft
	written    int64 // bytes
	untilCheck int64 // bytes until the free space is checked again
	work       *work
	stream     *streamingUpload // or nil
}

// spaceCheckBytes is how many bytes are written between two checks of the free space.
const spaceCheckBytes = 16 << 20

func (w *spaceLimitedWriter) Write(b []byte) (int, error) {
	if waiting, limit := w.p.out.Bytes(), w.p.OutboxMax; limit > 0 && waiting > 0 && waiting+w.written+int64(len(b)) > limit {
		return 0, errOutboxFull
	}
	if w.untilCheck <= 0 {
		free, err := w.p.out.Dir().FreeBytes()
		if err != nil {
			return 0, err
		}
		if free < w.p.MinFree {
			return 0, errNoSpace
		}
		w.untilCheck = spaceCheckBytes
	}
	w.untilCheck -= int64(len(b))
	w.written += int64(len(b))
	n, err := w.draft.Write(b)
	w.work.beat()
	w.work.advance(n, w.written)
	w.stream.addPacked(n)
	return n, err
}

// FreeForPacking returns how many bytes can be packed now.
func (p *Pipeline) FreeForPacking() int64 {
	free, err := p.out.Dir().FreeBytes()
	if err != nil {
		return 0
	}
	free -= p.MinFree
	if waiting := p.out.Bytes(); p.OutboxMax > 0 && waiting > 0 { // see [spaceLimitedWriter]
		free = min(free, p.OutboxMax-waiting)
	}
	return max(0, free)
}
