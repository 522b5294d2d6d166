package durable

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// OpenBeneath opens name in the open directory dirfd and returns a descriptor
// that is closed on exec. It follows no link and crosses no mount, so whoever can
// write in the directory leads the caller nowhere else: a link gives [unix.ELOOP],
// or [unix.ENOTDIR] with [unix.O_DIRECTORY], and a mount point [unix.EXDEV].
func OpenBeneath(dirfd int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dirfd, name, &how)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openBeneath opens a directory in d that is on the same mount.
func (d *Dir) openBeneath(name string) (*Dir, error) {
	fd, err := OpenBeneath(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, opError("open", d.Path(name), err)
	}
	return newDir(os.NewFile(uintptr(fd), d.Path(name))), nil
}
