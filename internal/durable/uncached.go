package durable

import (
	"cmp"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is the alignment that direct reads require of memory, offset and length. It is the
// largest logical block of known disks.
const directAlign = 4096

// SeekAlign is the alignment of the offsets at which a reader of [Dir.OpenUncached] can begin.
const SeekAlign = directAlign

// directReadSize is the size of one direct read. It is small because many files may be read at
// once.
const directReadSize = 256 << 10

// OpenUncached opens a file to read its bytes from the disk instead of the page cache, which may
// have bytes that the disk never got or has lost. If direct reads are not supported, it drops the
// cached pages instead.
func (d *Dir) OpenUncached(name string) (io.ReadCloser, error) {
	f, err := d.open(name, unix.O_NOFOLLOW|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return d.openAfterDrop(name)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, OpError("stat", d.Path(name), err)
	}
	buf := make([]byte, directReadSize+directAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) & (directAlign - 1))
	return &directReader{f: f, buf: buf[skip : skip+directReadSize], remaining: info.Size()}, nil
}

// openAfterDrop makes the kernel drop the cached pages of a file. It drops only clean pages, which
// suffices: no process writes to a published file.
func (d *Dir) openAfterDrop(name string) (io.ReadCloser, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		f.Close()
		return nil, OpError("fadvise", d.Path(name), err)
	}
	return f, nil
}

// directReader reads through an aligned buffer.
type directReader struct {
	f         *os.File
	buf       []byte
	buffered  []byte // read, and not returned yet
	remaining int64  // bytes not read yet
}

func (u *directReader) Read(p []byte) (int, error) {
	if len(u.buffered) == 0 {
		if u.remaining <= 0 {
			return 0, io.EOF
		}
		n, err := u.f.Read(u.buf)
		if n < len(u.buf) && int64(n) < u.remaining {
			// A direct read cannot continue after a short one.
			return 0, cmp.Or(err, error(unix.EIO))
		}
		u.buffered = u.buf[:min(int64(n), u.remaining)]
		u.remaining -= int64(n)
	}
	n := copy(p, u.buffered)
	u.buffered = u.buffered[n:]
	return n, nil
}

// Seek sets the offset from the start, which must be a multiple of [SeekAlign]. It must come before
// the first Read.
func (u *directReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset%directAlign != 0 || len(u.buffered) > 0 {
		return 0, errors.ErrUnsupported
	}
	n, err := u.f.Seek(offset, whence)
	u.remaining -= n
	return n, err
}

func (u *directReader) Close() error { return u.f.Close() }
