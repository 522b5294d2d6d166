package archive

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// maxContent bounds the time that a small archive can cost.
const maxContent = 1 << 40

// maxPadding is how many zeros may follow the end of the tar. Writers fill the last record, usually
// of 10 KiB.
const maxPadding = 1 << 20

// Member is an entry of an archive. Name and Link come from the archive as they are. They must not
// be printed or used as a path.
type Member struct {
	Name    string      // that of a directory ends in a slash
	Mode    fs.FileMode // type and permissions
	Size    int64       // number of bytes in Content
	ModTime time.Time
	Link    string    // target of a symbolic link; from other programs also of a hard link
	Content io.Reader // valid until the next Member
}

// Read yields the members of the archive in r, in its order. It yields an error unless the archive
// decodes to its end: the frame's checksum, the end of the tar, and nothing after it. Frames of
// other programs may lack the checksum.
func Read(r io.Reader) iter.Seq2[Member, error] { return readMembers(r, maxContent) }

// readMembers is [Read] of at most limit decoded bytes.
func readMembers(r io.Reader, limit int64) iter.Seq2[Member, error] {
	return func(yield func(Member, error) bool) {
		s, err := openStream(r, limit)
		if err != nil {
			yield(Member{}, err)
			return
		}
		defer s.close()
		for {
			m, err := s.nextMember()
			if err == io.EOF {
				return
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// tarStream decodes an archive. [maxWindow] bounds its memory, and the limit its time.
type tarStream struct {
	frame *frameReader
	zstd  *zstd.Decoder
	out   *limitedOutput
	tar   *tar.Reader
}

// openStream returns a stream, which must be closed. It reads nothing yet.
func openStream(r io.Reader, limit int64) (*tarStream, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, 64<<10)}
	d, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	out := &limitedOutput{r: d, limit: limit}
	return &tarStream{frame: f, zstd: d, out: out, tar: tar.NewReader(out)}, nil
}

// resetTo restarts the stream on another archive.
func (s *tarStream) resetTo(r io.Reader, limit int64) error {
	in := s.frame.r
	in.Reset(r)
	*s.frame = frameReader{r: in}
	if err := s.zstd.Reset(s.frame); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	s.out = &limitedOutput{r: s.zstd, limit: limit}
	s.tar = tar.NewReader(s.out)
	return nil
}

func (s *tarStream) close() { s.zstd.Close() }

// nextMember returns the next member, or [io.EOF] after a complete archive.
func (s *tarStream) nextMember() (Member, error) {
	for {
		h, err := s.tar.Next()
		if err == io.EOF {
			err = s.checkEnd()
		}
		if err == io.EOF {
			return Member{}, io.EOF
		}
		if err != nil {
			return Member{}, fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // a header of the archive, not of a member
		}
		if isSparse(h) {
			// The header could claim content of any length.
			return Member{}, fmt.Errorf("read archive: %s is sparse, which no writer of ours makes", quotePath(h.Name))
		}
		return Member{h.Name, h.FileInfo().Mode(), h.Size, h.ModTime, h.Linkname, s.tar}, nil
	}
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// checkEnd reads what follows the last member. It returns [io.EOF] if the archive is complete.
func (s *tarStream) checkEnd() error {
	if s.out.ended {
		return fmt.Errorf("the tar has no end: %w", io.ErrUnexpectedEOF)
	}
	if err := s.checkPadding(); err != nil {
		return err
	}
	if err := s.frame.checkEnd(); err != nil {
		return err
	}
	return io.EOF
}

func (s *tarStream) checkPadding() error {
	b := make([]byte, 4<<10)
	for left := maxPadding; ; {
		n, err := s.out.Read(b)
		left -= n
		if left < 0 || strings.Trim(string(b[:n]), "\x00") != "" {
			return errors.New("bytes follow the end of the tar")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var errLimit = errors.New("holds more than it may")

// limitedOutput is the decoded stream with a limit. It records how the stream ended, because the
// tar reader takes any end for that of the archive.
type limitedOutput struct {
	r      io.Reader
	n      int64
	limit  int64
	copyTo io.Writer // if not nil, also gets all bytes
	err    error     // returned with the last bytes
	ended  bool
}

func (o *limitedOutput) Read(p []byte) (int, error) {
	if o.err == nil && o.n >= o.limit {
		o.err = errLimit
	}
	if o.err != nil {
		o.ended = o.err == io.EOF
		return 0, o.err
	}
	n, err := o.r.Read(p)
	o.n += int64(n)
	o.err = err
	if n > 0 {
		if o.copyTo != nil {
			if _, werr := o.copyTo.Write(p[:n]); werr != nil {
				o.err = werr
			}
		}
		return n, nil
	}
	o.ended = err == io.EOF
	return 0, err
}

// MaxRatio is how many times its size an archive may decode to before it counts as expensive.
// Telemetry decodes to 10 to 50 times its size, zeros to 30,000 times.
const MaxRatio = 128

// minStored is the disk usage of the smallest archive in bytes. A ratio to less would not bound the
// cost per stored byte.
const minStored = 4 << 10

// ErrExpands says that decoding stopped before the end of an archive, because it decodes to more
// than the limit.
var ErrExpands = fmt.Errorf("it decodes to more than %d times its size", MaxRatio)

// ExpansionLimit returns how many bytes an archive of size bytes may decode to.
func ExpansionLimit(size int64) int64 { return MaxRatio * max(size, minStored) }

// VerifyUpTo is [Verify] for at most limit decoded bytes. If there are more it returns an error
// wrapping [ErrExpands], and the archive may be valid or not.
func VerifyUpTo(r io.Reader, limit int64) error {
	limit = min(limit, maxContent)
	for _, err := range readMembers(r, limit) {
		if errors.Is(err, errLimit) && limit < maxContent {
			return fmt.Errorf("%w: %w", ErrExpands, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
