package durable

import (
	"cmp"
	"errors"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// align is the alignment that direct reads ask of memory, offset and length:
// the largest logical block of the disks that we know.
const align = 4096

// SeekAlign is what offsets are multiples of at which a reader of [Dir.OpenUncached] can
// begin.
const SeekAlign = align

// window is how much one direct read takes: many may be read at once.
const window = 256 << 10

// OpenUncached opens a file whose bytes shall come from the disk and not from
// the page cache, which may show what the disk never got or has lost. Where
// direct reads do not work, the cached pages are given up first instead.
func (d *Dir) OpenUncached(name string) (io.ReadCloser, error) {
	f, err := d.open(name, unix.O_NOFOLLOW|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return d.openDropped(name)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, failed("stat", d.Path(name), err)
	}
	buf := make([]byte, window+align)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(buf))) & (align - 1))
	return &uncached{f: f, buf: buf[skip : skip+window], left: info.Size()}, nil
}

// openDropped asks the kernel to forget the pages of a file. Only clean pages
// go, and ours are: nobody writes to a published file.
func (d *Dir) openDropped(name string) (io.ReadCloser, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		f.Close()
		return nil, failed("fadvise", d.Path(name), err)
	}
	return f, nil
}

// uncached reads through a buffer that direct reads accept.
type uncached struct {
	f    *os.File
	buf  []byte
	rest []byte // read, and not yet given to the caller
	left int64  // not read yet
}

func (u *uncached) Read(p []byte) (int, error) {
	if len(u.rest) == 0 {
		if u.left <= 0 {
			return 0, io.EOF
		}
		n, err := u.f.Read(u.buf)
		if n < len(u.buf) && int64(n) < u.left {
			// The disk gave no more, and a direct read cannot go on from here.
			return 0, cmp.Or(err, error(unix.EIO))
		}
		u.rest = u.buf[:min(int64(n), u.left)]
		u.left -= int64(n)
	}
	n := copy(p, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// Seek begins at an offset from the start, which must be a multiple of [SeekAlign]. No
// byte may have been read.
func (u *uncached) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset%align != 0 || len(u.rest) > 0 {
		return 0, errors.ErrUnsupported
	}
	n, err := u.f.Seek(offset, whence)
	u.left -= n
	return n, err
}

func (u *uncached) Close() error { return u.f.Close() }
