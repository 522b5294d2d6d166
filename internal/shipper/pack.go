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

// Why packing waits. The disk is shared with the experiments.
var (
	errNoSpace    = fmt.Errorf("the disk is down to min_free: %w", unix.ENOSPC)
	errOutboxFull = fmt.Errorf("the outbox has reached outbox_max: %w", unix.ENOSPC)
)

// errLarge says that an episode is to wait for the turn of the large ones.
var errLarge = errors.New("is large")

// packEpisode packs a finished episode into the outbox, once, and returns the size of the
// archive. It is sealed only if the tree was the same before and after. Packed is
// called when that is done but for the disk. One that turns out to be large is not
// packed but sized, and the error is errLarge. One that has changed too recently is not
// packed either, and the error is a [*settling.UnsettledError].
func (s *Shipper) packEpisode(ctx context.Context, p *archive.Packer, c candidate, beat, packed func()) (int64, error) {
	start, name := time.Now(), c.name
	if err := s.dirs.CheckPaths(); err != nil {
		return 0, err
	}
	tree, err := s.src.Tree(name)
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	before, err := s.survey(ctx, tree, c)
	if err != nil {
		return 0, err
	}
	if before.Large() && !c.isLarge() {
		return before.Bytes, errLarge
	}
	draft, err := s.out.Create(name)
	if err != nil {
		return 0, err
	}
	head := s.startStreaming(ctx, name, draft, before)
	sealed, size, err := s.writeArchive(ctx, p, tree, before, &spaceLimitedWriter{draft: draft, beat: beat, stream: head})
	if head.stop(); err != nil {
		head.discard(ctx)
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
		s.log.Warn("left a file out", "episode", name, "file", skip.Path, "reason", skip.Reason)
	}
	s.log.Info("packed", "episode", name, "sha256", sealed.Digest, "bytes", size, "took", time.Since(start).Round(time.Millisecond))
	return size, nil
}

// survey surveys a tree that is to be packed, or returns a [*settling.UnsettledError] if it has
// changed too recently for that.
func (s *Shipper) survey(ctx context.Context, tree *archive.Tree, c candidate) (archive.Survey, error) {
	settle := s.cfg.Settle.Std()
	survey, err := tree.Survey(ctx)
	if err != nil {
		return survey, settling.CheckError(err, settle, survey.Marks, c.markedAt, time.Now())
	}
	return survey, settling.Check(settle, survey.Marks, c.seen, time.Now())
}

func (s *Shipper) writeArchive(ctx context.Context, p *archive.Packer, tree *archive.Tree, before archive.Survey, to *spaceLimitedWriter) (outbox.Seal, int64, error) {
	to.out, to.minFree, to.maxOutbox = s.out, int64(s.cfg.MinFree), int64(s.cfg.OutboxMax)
	w := digest.NewWriter(to)
	// Pack surveys the tree once more at its end: nil says that it is still
	// the one that was surveyed.
	if err := p.Pack(ctx, w, tree, before); err != nil {
		return outbox.Seal{}, 0, err
	}
	d, size := w.Sum()
	return outbox.Seal{
		Digest:      d,
		Fingerprint: outbox.FingerprintOf(before.Fingerprint),
		Skipped:     before.Skipped.Count,
	}, size, nil
}

// spaceLimitedWriter is a writer that stops before the disk is full or the outbox over its
// budget. An episode that is larger than the budget has the outbox to itself.
type spaceLimitedWriter struct {
	draft      *outbox.Draft
	out        *outbox.Outbox
	minFree    int64
	maxOutbox  int64
	written    int64 // written
	untilCheck int64 // to write before the space is looked at again
	beat       func()
	stream     *streamingUpload // nil if there is none
}

// spaceCheckBytes is how much is written between two looks at the space that is left.
const spaceCheckBytes = 16 << 20

func (f *spaceLimitedWriter) Write(p []byte) (int, error) {
	f.beat()
	if waiting := f.out.Bytes(); f.maxOutbox > 0 && waiting > 0 && waiting+f.written+int64(len(p)) > f.maxOutbox {
		return 0, errOutboxFull
	}
	if f.untilCheck <= 0 {
		free, err := f.out.Dir().Space()
		if err != nil {
			return 0, err
		}
		if free < f.minFree {
			return 0, errNoSpace
		}
		f.untilCheck = spaceCheckBytes
	}
	f.untilCheck -= int64(len(p))
	f.written += int64(len(p))
	n, err := f.draft.Write(p)
	f.stream.notify(n)
	return n, err
}
