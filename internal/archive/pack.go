package archive

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/digest"
)

// copyBufferSize is how much of a file is read at a time, and so how much may be read after a
// context is cancelled.
const copyBufferSize = 128 << 10

// Level and window of the frames, chosen with BenchmarkLevels. On telemetry the fastest level
// compresses better than zstd -3, and better levels cost three times as much for 4 %. A larger
// window saves nothing there, and does not fit into the processor's cache.
const (
	encoderLevel = zstd.SpeedFastest
	windowSize   = 512 << 10
)

// Episodes of minLargeSize bytes or more are packed by two goroutines, which compress sections in
// parallel, because one core would be busy for long. Several packers pack smaller episodes in
// parallel. A section is four windows, and about five are in memory at a time. Hence the smaller
// window.
const (
	minLargeSize    = 64 << 20
	splitGoroutines = 2
	splitWindowSize = windowSize / 2
)

// Packer writes archives. It reuses its encoder and buffers, so that small episodes are cheap. It
// must not be used concurrently.
type Packer struct {
	enc  *zstd.Encoder
	buf  []byte
	head bytes.Buffer // the header of the current entry
	out  *bufio.Writer
}

// NewPacker returns a Packer.
func NewPacker() *Packer { return newPacker(encoderLevel, windowSize) }

func newPacker(l zstd.EncoderLevel, window int) *Packer {
	return &Packer{enc: newEncoder(l, window, 1), buf: make([]byte, copyBufferSize), out: bufio.NewWriterSize(nil, copyBufferSize)}
}

// newEncoder returns an encoder with that many goroutines. Each writes one frame. Frames of one and
// of several goroutines differ, but are always the same, because sections depend only on the
// window.
func newEncoder(l zstd.EncoderLevel, window, goroutines int) *zstd.Encoder {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(goroutines), zstd.WithConcurrentBlocks(goroutines > 1),
		zstd.WithEncoderCRC(true), zstd.WithEncoderLevel(l), zstd.WithWindowSize(window))
	if err != nil {
		panic(err) // invalid options, which is a bug here
	}
	return enc
}

// encoderFor returns the encoder for an episode.
func (p *Packer) encoderFor(s Survey) *zstd.Encoder {
	if !s.IsLarge() {
		return p.enc
	}
	// Always a new one. In zstd 1.20.4 an encoder that has written 2 GiB can refer to bytes of an
	// earlier episode if that one ended with a section. No decoder accepts the result.
	return newEncoder(encoderLevel, splitWindowSize, splitGoroutines)
}

// Pack writes t to w as one zstd frame over s.Size bytes of tar. It returns [ErrChanged] if the
// tree differs from s, an [UnpackableError] if the episode must be held, the context's error, or an
// error of w or of the disk. After any error, what w got is not an archive and must be discarded.
func (p *Packer) Pack(ctx context.Context, w io.Writer, t *Tree, s Survey) error {
	enc := p.encoderFor(s)
	p.out.Reset(w)
	defer p.out.Reset(nil) // releases w; the buffered bytes are not needed
	enc.ResetContentSize(p.out, s.Size)
	defer enc.Reset(nil) // waits until no goroutine writes to p.out
	out := &exactWriter{w: enc, left: s.Size}
	walk := treeWalker{tree: t, visit: func(n *node) error { return p.addNode(ctx, out, t, n) }}
	marks, err := walk.walkTree(ctx)
	if err != nil {
		return err
	}
	if marks.Fingerprint != s.Fingerprint {
		// checkFingerprint would miss a change that was undone within a tick of the clock.
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
	now, err := t.ReadMarks(ctx)
	if err != nil {
		return err
	}
	if now.Fingerprint != fingerprint {
		return changedError("", "differs from the survey")
	}
	return nil
}

func (p *Packer) addNode(ctx context.Context, out io.Writer, t *Tree, n *node) error {
	p.head.Reset()
	if err := writeHeader(&p.head, n.tarHeader(t.memberName(n))); err != nil {
		return err
	}
	if _, err := out.Write(p.head.Bytes()); err != nil || !n.isRegular() {
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

// readContent calls use with the pieces of the file. It returns [ErrChanged] if they are not as
// many bytes as n's size.
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

// exactWriter accepts only as many bytes as were surveyed, so that a growing tree cannot fill the
// disk.
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

// tarBlock is the unit of a tar stream. tarTrailer, two blocks of zeros, ends it.
const (
	tarBlock   = 512
	tarTrailer = 2 * tarBlock
)

// zeros pad a content to a block, and are the trailer.
var zeros [tarTrailer]byte

// tarPadding returns how many zeros follow a content of size bytes.
func tarPadding(size int64) int64 { return -size & (tarBlock - 1) }

// writeHeader appends the header blocks of h to b. [tar.Writer] takes the zero [time.Time], the
// first instant of the year 1, for no time and writes 1970. Therefore that time is written as one
// second later, and corrected.
func writeHeader(b *bytes.Buffer, h *tar.Header) error {
	first := h.ModTime.IsZero()
	if first {
		h.ModTime = h.ModTime.Add(time.Second)
	}
	start := b.Len()
	if err := tar.NewWriter(b).WriteHeader(h); err != nil {
		return err
	}
	if first {
		return writeNegativeTime(b.Bytes()[start:], h.ModTime.Unix())
	}
	return nil
}

// writeNegativeTime subtracts a second from the mtime in a header that begins with PAX records: a
// block, the records in whole blocks, and the block of the entry.
func writeNegativeTime(header []byte, sec int64) error {
	const key = "mtime="
	was := key + strconv.FormatInt(sec, 10) + "\n"
	records := header[tarBlock : len(header)-tarBlock]
	for len(records) > 0 {
		digits, _, _ := bytes.Cut(records, []byte{' '})
		size, err := strconv.Atoi(string(digits))
		if err != nil || size <= len(digits) || size > len(records) {
			break // the padding, if nothing is wrong
		}
		if record := records[len(digits)+1 : size]; string(record) == was {
			copy(record, key+strconv.FormatInt(sec-1, 10)+"\n") // has as many digits
			return nil
		}
		records = records[size:]
	}
	return errors.New("no record of the time in the header of a tar entry")
}
