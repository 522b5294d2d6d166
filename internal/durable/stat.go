package durable

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Stat describes a file or directory.
type Stat struct {
	st unix.Stat_t
}

// IsRegular reports whether s is a regular file.
func (s Stat) IsRegular() bool { return s.st.Mode&unix.S_IFMT == unix.S_IFREG }

// IsDir reports whether s is a directory.
func (s Stat) IsDir() bool { return s.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsLink reports whether s is a symbolic link.
func (s Stat) IsLink() bool { return s.st.Mode&unix.S_IFMT == unix.S_IFLNK }

// IsSocket reports whether s is a Unix socket.
func (s Stat) IsSocket() bool { return s.st.Mode&unix.S_IFMT == unix.S_IFSOCK }

// Perm returns the permission bits of the mode.
func (s Stat) Perm() fs.FileMode { return fs.FileMode(s.st.Mode & 0o777) }

// Owner returns the ids of the owner and the group.
func (s Stat) Owner() (uid, gid int) { return int(s.st.Uid), int(s.st.Gid) }

// Size returns the size in bytes.
func (s Stat) Size() int64 { return s.st.Size }

// Links returns the number of hard links.
func (s Stat) Links() int { return int(s.st.Nlink) }

// Inode returns the inode number.
func (s Stat) Inode() uint64 { return s.st.Ino }

// IsSameFile reports whether both are the same file. They must have been taken at one time, because
// the file system reuses inode numbers.
func (s Stat) IsSameFile(other Stat) bool {
	return s.st.Ino == other.st.Ino && s.st.Dev == other.st.Dev
}

// Device returns the number of the file system.
func (s Stat) Device() uint64 { return s.st.Dev }

// ModTime returns the mtime, when the bytes last changed.
func (s Stat) ModTime() time.Time { return time.Unix(s.st.Mtim.Unix()) }

// ChangedAt returns the ctime, when anything last changed. Programs cannot set it.
func (s Stat) ChangedAt() time.Time { return time.Unix(s.st.Ctim.Unix()) }

// Times returns the mtime and the ctime.
func (s Stat) Times() (mtime, ctime unix.Timespec) { return s.st.Mtim, s.st.Ctim }

// Stat describes the open directory.
func (d *Dir) Stat() (Stat, error) { return StatFile(d.f) }

// StatFile describes an open file.
func StatFile(f *os.File) (Stat, error) {
	var s Stat
	if err := unix.Fstat(int(f.Fd()), &s.st); err != nil {
		return Stat{}, OpError("stat", f.Name(), err)
	}
	return s, nil
}

// maxDepth bounds the depth of [Dir.TreeBytes] and [Dir.RemoveTree].
const maxDepth = 256

// TreeBytes returns the disk usage of the directory name in bytes. It follows no links and crosses
// no mounts. It does not count what it cannot read, nor what is nested too deeply.
func (d *Dir) TreeBytes(ctx context.Context, name string) (int64, error) {
	return d.treeBytes(ctx, name, maxDepth)
}

func (d *Dir) treeBytes(ctx context.Context, name string, depth int) (int64, error) {
	if err := ctx.Err(); err != nil || depth == 0 {
		return 0, err
	}
	sub, err := d.openBeneath(name)
	if err != nil {
		return 0, ignoreUnlessFault(err)
	}
	defer sub.Close()
	total := int64(0)
	for e, err := range sub.Names() {
		if err != nil {
			return total, ignoreUnlessFault(err)
		}
		st, err := sub.Lstat(e.Name())
		if err != nil {
			if err = ignoreUnlessFault(err); err != nil {
				return total, err
			}
			continue
		}
		total += st.st.Blocks * 512
		if st.IsDir() {
			below, err := sub.treeBytes(ctx, e.Name(), depth-1)
			if err != nil {
				return total, err
			}
			total += below
		}
	}
	return total, nil
}

// ignoreUnlessFault returns err if it is an [ErrFault], and nil otherwise.
func ignoreUnlessFault(err error) error {
	if errors.Is(err, ErrFault) {
		return err
	}
	return nil
}

// Free is what an unprivileged process may still use of a file system.
type Free struct {
	Bytes       int64 // [UnknownSpace] if the file system does not say
	TotalBytes  int64 // used and free
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
		return Free{}, OpError("statfs", d.f.Name(), err)
	}
	f := Free{Bytes: int64(s.Bavail) * s.Bsize, TotalBytes: int64(s.Blocks) * s.Bsize, Inodes: int64(s.Ffree), TotalInodes: int64(s.Files)}
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
