package bucket

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// announcedBody reads exactly the announced number of bytes. It keeps the last ones back until its
// source has ended, so that an engine never gets all of a body that is too long.
type announcedBody struct {
	size  int64
	start int64 // of src, if that can seek

	mu       sync.Mutex // guards what follows: the transport may read after a request has ended
	src      io.Reader  // nil once the caller has it back
	left     int64
	started  bool
	finished bool
	spoiled  bool
	err      error // why the body is not what was announced
}

func newAnnouncedBody(src io.Reader, size int64) *announcedBody {
	b := &announcedBody{size: size, src: src, left: size, start: -1}
	if s, ok := src.(io.Seeker); ok {
		if at, err := s.Seek(0, io.SeekCurrent); err == nil {
			b.start = at
		}
	}
	return b
}

var errBodyReturned = errors.New("the request has ended")

func (b *announcedBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.src == nil:
		return 0, errBodyReturned
	case b.err != nil:
		return b.spoil(p)
	case b.finished:
		return 0, io.EOF
	}
	b.started = true
	n := 0
	if b.left > 0 {
		n, b.err = b.readSource(p[:min(int64(len(p)), b.left)])
	}
	if b.err == nil && b.left == 0 {
		if b.err = b.expectEnd(); b.err == nil {
			b.finished = true
		} else {
			n = 0
		}
	}
	if b.err != nil && n == 0 {
		return b.spoil(p)
	}
	return n, nil
}

func (b *announcedBody) readSource(p []byte) (int, error) {
	n, err := b.src.Read(p)
	b.left -= int64(n)
	switch {
	case err == io.EOF && b.left > 0:
		return n, fmt.Errorf("it ended %d bytes early: %w", b.left, ErrDigest)
	case err == io.EOF:
		return n, nil
	}
	return n, err
}

// spoil reads one more byte before the error. An engine may store a body that ends early if what came
// has the announced digest. There is space for the byte, since the body's last ones are not sent.
func (b *announcedBody) spoil(p []byte) (int, error) {
	if b.spoiled || len(p) == 0 {
		return 0, b.err
	}
	b.spoiled = true
	p[0] = 0
	return 1, nil
}

// expectEnd returns an error unless src ends here.
func (b *announcedBody) expectEnd() error {
	_, err := io.ReadFull(b.src, make([]byte, 1))
	switch {
	case err == io.EOF:
		return nil
	case err == nil:
		return fmt.Errorf("it has more than the announced %d bytes: %w", b.size, ErrDigest)
	}
	return err
}

// fault returns why the source was not what was announced, if that is known.
func (b *announcedBody) fault() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// returnSource waits until the source is not being read, and ends all reading. It reports whether all
// of it was read.
func (b *announcedBody) returnSource() (finished bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.src = nil
	return b.finished
}

// reuse prepares the body for another request, and reports whether it could.
func (b *announcedBody) reuse(src io.Reader) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.started {
		s, ok := src.(io.Seeker)
		if !ok || b.start < 0 {
			return false
		}
		if _, err := s.Seek(b.start, io.SeekStart); err != nil {
			return false
		}
	}
	b.src, b.left, b.started, b.finished, b.spoiled, b.err = src, b.size, false, false, false, nil
	return true
}
