package archive

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that an archive can ask for. All levels of the zstd command up to 19
// need no more, and the format recommends it for all decoders.
const maxWindow = 8 << 20

// headerPeek is longer than the longest frame header with a block header.
const headerPeek = 32

// frameReader reads one zstd frame and then returns [io.EOF]. What follows the frame stays in r.
// The decoder alone would continue with further frames, skip the skippable ones, and take a torn
// header for an end.
type frameReader struct {
	r          *bufio.Reader
	left       int64 // of the current part
	headerRead bool
	checksum   bool // a checksum follows
	lastBlock  bool // the last block has begun
}

func (f *frameReader) Read(p []byte) (int, error) {
	for f.left == 0 {
		if err := f.readNextPart(); err != nil {
			return 0, err
		}
	}
	n, err := f.r.Read(p[:min(int64(len(p)), f.left)])
	f.left -= int64(n)
	return n, tornError(err)
}

// readNextPart finds the length of the next part: the header, a block, or the checksum.
func (f *frameReader) readNextPart() error {
	switch {
	case !f.headerRead:
		return f.readHeader()
	case !f.lastBlock:
		return f.readBlockHeader()
	case f.checksum:
		f.checksum = false
		f.left = 4
		return nil
	}
	return io.EOF
}

func (f *frameReader) readHeader() error {
	b, err := f.r.Peek(headerPeek)
	if len(b) == 0 || err != nil && !errors.Is(err, io.EOF) {
		return tornError(err)
	}
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return fmt.Errorf("zstd header: %w", err)
	}
	switch {
	case h.Skippable:
		return errors.New("zstd header: a skippable frame, not an archive")
	case h.WindowSize > maxWindow, h.SingleSegment && h.FrameContentSize > maxWindow:
		return fmt.Errorf("zstd header: asks for more than %d bytes of memory: %w", maxWindow, zstd.ErrWindowSizeExceeded)
	}
	f.headerRead, f.checksum, f.left = true, h.HasCheckSum, int64(h.HeaderSize)
	return nil
}

// readBlockHeader reads the three bytes before a block: last, type (1 is a run of one byte), size.
func (f *frameReader) readBlockHeader() error {
	b, err := f.r.Peek(3)
	if err != nil {
		return tornError(err)
	}
	f.lastBlock = b[0]&1 != 0
	f.left = 3 + int64(b[0]>>3) + int64(b[1])<<5 + int64(b[2])<<13
	if b[0]>>1&3 == 1 {
		f.left = 3 + 1
	}
	return nil
}

// tornError returns [io.ErrUnexpectedEOF] for an early end.
func tornError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// checkEnd returns nil if nothing follows the frame. It must be called after Read has returned
// [io.EOF].
func (f *frameReader) checkEnd() error {
	switch _, err := f.r.Peek(1); {
	case err == nil:
		return errors.New("bytes follow the zstd frame")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}
