package durable

import (
	"cmp"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// directAlign is the alignment that direct reads ask of memory, offset and length:
// the largest logical block of the disks that we know.
const directAlign = 4096

// SeekAlign is what offsets are multiples of at which a reader of [Dir.OpenUncached] can
// begin.
const SeekAlign = directAlign

// directReadSize is how much one direct read takes: many may be read at once.
const directReadSize = 256 << 10

// OpenUncached opens a file whose bytes shall come from the disk and not from
// the page cache, which may show what the disk never got or has lost. Where
// direct reads do not work, the cached pages are given up first instead.
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
		return nil, opError("stat", d.Path(name), err)
	}
	buf := make([]byte, directReadSize+directAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) & (directAlign - 1))
	return &directReader{f: f, buf: buf[skip : skip+directReadSize], remaining: info.Size()}, nil
}

// openAfterDrop asks the kernel to forget the pages of a file. Only clean pages
// go, and ours are: nobody writes to a published file.
func (d *Dir) openAfterDrop(name string) (io.ReadCloser, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		f.Close()
		return nil, opError("fadvise", d.Path(name), err)
	}
	return f, nil
}

// directReader reads through a buffer that direct reads accept.
type directReader struct {
	f         *os.File
	buf       []byte
	buffered  []byte // read, and not yet given to the caller
	remaining int64  // not read yet
}

func (u *directReader) Read(p []byte) (int, error) {
	if len(u.buffered) == 0 {
		if u.remaining <= 0 {
			return 0, io.EOF
		}
		n, err := u.f.Read(u.buf)
		if n < len(u.buf) && int64(n) < u.remaining {
			// The disk gave no more, and a direct read cannot go on from here.
			return 0, cmp.Or(err, error(unix.EIO))
		}
		u.buffered = u.buf[:min(int64(n), u.remaining)]
		u.remaining -= int64(n)
	}
	n := copy(p, u.buffered)
	u.buffered = u.buffered[n:]
	return n, nil
}

// Seek begins at an offset from the start, which must be a multiple of [SeekAlign]. No
// byte may have been read.
func (u *directReader) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset%directAlign != 0 || len(u.buffered) > 0 {
		return 0, errors.ErrUnsupported
	}
	n, err := u.f.Seek(offset, whence)
	u.remaining -= n
	return n, err
}

func (u *directReader) Close() error { return u.f.Close() }
