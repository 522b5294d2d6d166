package archive

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/digest"
)

// copyBufferSize is how much of a file is read at a time, and how much is read after a
// context was cancelled.
const copyBufferSize = 128 << 10

// Level and window of the frames, chosen by BenchmarkLevels: on telemetry the
// fastest level is smaller than zstd -3, and better levels cost three times its
// price for 4 %. A larger window saves nothing there, and falls out of the
// processor's cache.
const (
	level  = zstd.SpeedFastest
	window = 512 << 10
)

// largeFrom is the size from which an episode is packed by two goroutines, which
// compress sections of it side by side: it would keep one core busy for long. Smaller
// episodes are packed side by side by several packers instead. A section is four
// windows, and five or so are in memory at a time: hence the smaller window.
const (
	largeFrom   = 64 << 20
	splitBy     = 2
	splitWindow = window / 2
)

// A Packer writes archives. It keeps its encoder and its buffers, so that a small
// episode costs little; it must not be used from two goroutines at once.
type Packer struct {
	enc  *zstd.Encoder
	buf  []byte
	head bytes.Buffer // the header of the current entry
	out  *bufio.Writer
}

// NewPacker returns a Packer.
func NewPacker() *Packer { return newPacker(level, window) }

func newPacker(l zstd.EncoderLevel, window int) *Packer {
	return &Packer{enc: newEncoder(l, window, 1), buf: make([]byte, copyBufferSize), out: bufio.NewWriterSize(nil, copyBufferSize)}
}

// newEncoder returns an encoder of so many goroutines. All make one frame. That of
// several is another than that of one, but always the same: the sections depend on
// the window alone.
func newEncoder(l zstd.EncoderLevel, window, goroutines int) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(goroutines), zstd.WithConcurrentBlocks(goroutines > 1),
		zstd.WithEncoderCRC(true), zstd.WithEncoderLevel(l), zstd.WithWindowSize(window))
	if err != nil {
		panic(err) // options that the library does not know: a bug here
	}
	return enc
}

// encoder returns the one for an episode.
func (p *Packer) encoder(s Survey) *zstd.Encoder {
	if !s.Large() {
		return p.enc
	}
	// A new one each time: in zstd 1.20.4 one that has coded 2 GiB can take for an
	// episode's own what stood in the one before, if that ended with a section, and
	// nobody can read what it then writes.
	return newEncoder(level, splitWindow, splitBy)
}

// Pack writes t to w as one zstd frame over s.Size bytes of tar. It returns
// [ErrChanged] if the tree is not, or not any more, what s says; an [UnpackableError] if
// the episode is to be held; the context's error; or one of w or the disk.
// Whatever the error, what w got is no archive and must be thrown away.
func (p *Packer) Pack(ctx context.Context, w io.Writer, t *Tree, s Survey) error {
	enc := p.encoder(s)
	p.out.Reset(w)
	defer p.out.Reset(nil) // lets go of w; what is buffered was void
	enc.ResetContentSize(p.out, s.Size)
	defer enc.Reset(nil) // waits until nobody writes to p.out
	out := &exactWriter{w: enc, left: s.Size}
	walk := walker{tree: t, visit: func(n *node) error { return p.add(ctx, out, t, n) }}
	marks, err := walk.walkTree(ctx)
	if err != nil {
		return err
	}
	if marks.Fingerprint != s.Fingerprint {
		// still would miss what was put back within a tick of the clock.
		return changedError("", "differs from the survey")
	}
	if _, err := out.Write(zeros[:tarTrailer]); err != nil {
		return err
	}
	if err := cmp.Or(enc.Close(), p.out.Flush()); err != nil {
		return fmt.Errorf("end archive: %w", err)
	}
	return t.checkFingerprint(ctx, s.Fingerprint)
}

// checkFingerprint returns [ErrChanged] unless t has the fingerprint.
func (t *Tree) checkFingerprint(ctx context.Context, fingerprint digest.Digest) error {
	now, err := t.Marks(ctx)
	if err != nil {
		return err
	}
	if now.Fingerprint != fingerprint {
		return changedError("", "differs from the survey")
	}
	return nil
}

func (p *Packer) add(ctx context.Context, out io.Writer, t *Tree, n *node) error {
	p.head.Reset()
	if err := writeHeader(&p.head, n.header(t.memberName(n))); err != nil {
		return err
	}
	if _, err := out.Write(p.head.Bytes()); err != nil || !n.regular() {
		return err
	}
	err := n.readContent(ctx, p.buf, func(b []byte) error {
		_, err := out.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	_, err = out.Write(zeros[:tarPadding(n.st.Size)])
	return err
}

// readContent hands the file's bytes to use, piece by piece: as many as n's size
// says, or [ErrChanged].
func (n *node) readContent(ctx context.Context, buf []byte, use func([]byte) error) error {
	f, err := n.open()
	if err != nil {
		return err
	}
	defer f.Close() // read only: nothing to lose
	for left := n.st.Size; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k, err := f.Read(buf[:min(left, int64(len(buf)))])
		if errors.Is(err, io.EOF) {
			return changedError(n.path, "became shorter")
		}
		if err != nil {
			return fileError("read", n.path, err)
		}
		if err := use(buf[:k]); err != nil {
			return err
		}
		left -= int64(k)
	}
	return n.checkUnchanged()
}

// exactWriter passes on what was surveyed and not a byte more, so that a tree that
// grows under our hands cannot fill the disk.
type exactWriter struct {
	w    io.Writer
	left int64
}

func (e *exactWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, changedError("", "is larger than surveyed")
	}
	n, err := e.w.Write(p)
	e.left -= int64(n)
	if err != nil {
		return n, fmt.Errorf("write archive: %w", err)
	}
	return n, nil
}
