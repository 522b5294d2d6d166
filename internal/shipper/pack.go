package shipper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/outbox"
	"cis490/internal/settling"
)

// Why packing waits. The experiments need the disk.
var (
	errNoSpace    = fmt.Errorf("the disk is down to min_free: %w", unix.ENOSPC)
	errOutboxFull = fmt.Errorf("the outbox has reached outbox_max: %w", unix.ENOSPC)
)

// errLarge says that the episode must wait in the queue of large ones.
var errLarge = errors.New("is large")

// packEpisode packs a finished episode into the outbox, once, and returns the size of the archive.
// It commits the archive only if the tree was the same before and after. It calls onWrite after
// each write with its size and that of all writes, and packed before it waits for the disk.
//
// An episode that turns out to be large is not packed: its size and errLarge are returned. For one
// that has changed too recently the error is a [*settling.UnsettledError].
func (s *Shipper) packEpisode(ctx context.Context, p *archive.Packer, c candidate, onWrite func(n int, total int64), packed func()) (int64, error) {
	start, name := time.Now(), c.name
	if err := s.dirs.CheckPaths(); err != nil {
		return 0, err
	}
	tree, err := s.src.OpenTree(name)
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	before, err := s.surveyTree(ctx, tree, c)
	if err != nil {
		return 0, err
	}
	if before.IsLarge() && !c.isLarge() {
		return before.Bytes, errLarge
	}
	draft, err := s.out.CreateDraft(name)
	if err != nil {
		return 0, err
	}
	stream := s.startStreaming(ctx, name, draft, before)
	sealed, size, err := s.writeArchive(ctx, p, tree, before, &spaceLimitedWriter{draft: draft, onWrite: onWrite, stream: stream})
	if stream.stopSending(); err != nil {
		stream.discardUpload(ctx)
	}
	if err == nil {
		draft.AddToTotal(size)
		packed()
		err = s.dirs.CheckPaths()
	}
	if err == nil {
		err = draft.Seal(sealed)
	}
	if err != nil {
		return 0, errors.Join(err, draft.Discard())
	}
	for _, skip := range before.Skipped.First {
		s.log.Warn("skipped file", "episode", name, "file", skip.Path, "reason", skip.Reason)
	}
	s.log.Info("packed", "episode", name, "sha256", sealed.Digest, "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	return size, nil
}

// surveyTree surveys a tree before packing. It returns a [*settling.UnsettledError] if the tree has
// changed too recently.
func (s *Shipper) surveyTree(ctx context.Context, tree *archive.Tree, c candidate) (archive.Survey, error) {
	settle := s.cfg.Settle.Std()
	survey, err := tree.Survey(ctx)
	if err != nil {
		return survey, settling.CheckError(err, settle, survey.Marks, c.markedAt, time.Now())
	}
	return survey, settling.CheckSettled(settle, survey.Marks, c.lastObservation, time.Now())
}

func (s *Shipper) writeArchive(ctx context.Context, p *archive.Packer, tree *archive.Tree, before archive.Survey, to *spaceLimitedWriter) (outbox.Seal, int64, error) {
	to.out, to.minFree, to.maxOutbox = s.out, int64(s.cfg.MinFree), int64(s.cfg.OutboxMax)
	w := digest.NewWriter(to)
	// Pack surveys the tree again at its end, and fails if it has changed.
	if err := p.Pack(ctx, w, tree, before); err != nil {
		return outbox.Seal{}, 0, err
	}
	d, size := w.Sum()
	return outbox.Seal{
		Digest:      d,
		Fingerprint: before.Fingerprint.Short(),
		Skipped:     before.Skipped.Count,
	}, size, nil
}

// spaceLimitedWriter stops before the disk is full or the outbox over its limit. An episode larger
// than the limit may have the outbox to itself.
type spaceLimitedWriter struct {
	draft      *outbox.Draft
	out        *outbox.Outbox
	minFree    int64
	maxOutbox  int64
	written    int64                    // bytes
	untilCheck int64                    // bytes until the free space is checked again
	onWrite    func(n int, total int64) // is called after each write
	stream     *streamingUpload         // or nil
}

// spaceCheckBytes is how many bytes are written between two checks of the free space.
const spaceCheckBytes = 16 << 20

func (w *spaceLimitedWriter) Write(p []byte) (int, error) {
	if waiting := w.out.Bytes(); w.maxOutbox > 0 && waiting > 0 && waiting+w.written+int64(len(p)) > w.maxOutbox {
		return 0, errOutboxFull
	}
	if w.untilCheck <= 0 {
		free, err := w.out.Dir().FreeBytes()
		if err != nil {
			return 0, err
		}
		if free < w.minFree {
			return 0, errNoSpace
		}
		w.untilCheck = spaceCheckBytes
	}
	w.untilCheck -= int64(len(p))
	w.written += int64(len(p))
	n, err := w.draft.Write(p)
	w.onWrite(n, w.written)
	w.stream.addPacked(n)
	return n, err
}
