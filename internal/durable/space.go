package durable

import (
	"golang.org/x/sys/unix"
)

// Free is what an unprivileged process may still use of a file system.
type Free struct {
	Bytes       int64 // [UnknownSpace] if the file system does not say
	Inodes      int64
	TotalInodes int64 // used and free; 0 if the file system creates inodes as needed
}

// IsUnknown reports whether the file system does not say how much is free.
func (f Free) IsUnknown() bool { return f.Bytes == UnknownSpace }

// UnknownSpace is the number of free bytes of a file system that does not state its size. It is
// larger than any disk, so that nothing waits for space. A write to a full disk fails, and callers
// handle that.
const UnknownSpace = 1 << 62

// FreeSpace returns the free space of d's file system. A file system of size 0, such as ramfs and
// some FUSE file systems, is not full: it does not state its size.
func (d *Dir) FreeSpace() (Free, error) {
	var s unix.Statfs_t
	if err := unix.Fstatfs(d.fd(), &s); err != nil {
		return Free{}, opError("statfs", d.f.Name(), err)
	}
	f := Free{Bytes: int64(s.Bavail) * s.Bsize, Inodes: int64(s.Ffree), TotalInodes: int64(s.Files)}
	if s.Blocks == 0 {
		f.Bytes = UnknownSpace
	}
	return f, nil
}

// FreeBytes returns how many bytes an unprivileged process may still write in d, or [UnknownSpace].
func (d *Dir) FreeBytes() (int64, error) {
	free, err := d.FreeSpace()
	return free.Bytes, err
}

// Device returns the number of d's file system. [Dir.Link] and [Dir.Rename] need the same one.
func (d *Dir) Device() (uint64, error) {
	st, err := d.Stat()
	return st.Device(), err
}
