package durable

import (
	"golang.org/x/sys/unix"
)

// Free is what an unprivileged process may still use of a file system.
type Free struct {
	Bytes       int64 // [UnknownSpace] if the file system does not say
	Inodes      int64
	TotalInodes int64 // used and free; 0 where the file system makes them as needed
}

// Unknown reports whether the file system does not say how much is free.
func (f Free) Unknown() bool { return f.Bytes == UnknownSpace }

// UnknownSpace stands for the free bytes of a file system that does not say how large it
// is. It is more than any disk has, so that nothing waits for space: a write fails when the
// disk is full, and that is handled.
const UnknownSpace = 1 << 62

// Free returns what is free on the file system of d. One that reports a size of 0, as
// ramfs and some FUSE file systems do, is not full: it does not say.
func (d *Dir) Free() (Free, error) {
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

// Space returns how many bytes an unprivileged process may still write below d, or
// [UnknownSpace].
func (d *Dir) Space() (int64, error) {
	free, err := d.Free()
	return free.Bytes, err
}

// Device returns the number of the file system that d is on. Between two of
// one number [Dir.Link] and [Dir.Rename] work.
func (d *Dir) Device() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return 0, opError("stat", d.f.Name(), err)
	}
	return st.Dev, nil
}
