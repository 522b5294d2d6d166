package durable

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// OpenBeneath opens name in the open directory dirfd and returns a descriptor that is closed on
// exec. It follows no link and crosses no mount, so that no one with write access to the directory
// leads the caller elsewhere. It returns [unix.ELOOP] for a link, or [unix.ENOTDIR] with
// [unix.O_DIRECTORY], and [unix.EXDEV] for a mount point.
func OpenBeneath(dirfd int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd := -1
	err := RetryEINTR(func() (err error) {
		fd, err = unix.Openat2(dirfd, name, &how)
		return err
	})
	return fd, err
}

// RetryEINTR repeats a system call while signals interrupt it, and returns its error.
func RetryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openBeneath opens a directory in d that is on the same mount.
func (d *Dir) openBeneath(name string) (*Dir, error) {
	fd, err := OpenBeneath(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, OpError("open", d.Path(name), err)
	}
	return NewDir(os.NewFile(uintptr(fd), d.Path(name))), nil
}

// Contains reports whether other is d or below it, whatever paths they were opened by. It ignores
// mounts: see [Dir.CheckMove]. The search ends at a directory that this process may not enter.
func (d *Dir) Contains(other *Dir) (bool, error) {
	ours, err := d.Stat()
	if err != nil {
		return false, err
	}
	fd, err := unix.Openat(other.fd(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, OpError("open", other.f.Name(), err)
	}
	var last Stat
	for range 2 * maxDepth {
		var at Stat
		if err := unix.Fstat(fd, &at.st); err != nil {
			return false, errors.Join(OpError("stat", other.f.Name(), err), unix.Close(fd))
		}
		if at.IsSameFile(ours) || at.IsSameFile(last) { // the root directory is its own parent
			return at.IsSameFile(ours), unix.Close(fd)
		}
		last = at
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if errors.Is(err, fs.ErrPermission) {
			return false, nil
		}
		if err != nil {
			return false, OpError("open", other.f.Name(), err)
		}
		fd = up
	}
	return false, unix.Close(fd)
}
