package durable

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Contains reports whether other is d, or is somewhere below it, whatever the paths say by
// which they were opened. Of two mounts it says nothing: see [Dir.CheckMove]. A directory
// that this process may not look into ends the search.
func (d *Dir) Contains(other *Dir) (bool, error) {
	ours, err := d.Stat()
	if err != nil {
		return false, err
	}
	fd, err := unix.Openat(other.fd(), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, opError("open", other.f.Name(), err)
	}
	var last Stat
	for range 2 * maxDepth {
		var at Stat
		if err := unix.Fstat(fd, &at.st); err != nil {
			return false, errors.Join(opError("stat", other.f.Name(), err), unix.Close(fd))
		}
		if at.Same(ours) || at.Same(last) { // the root directory is its own parent
			return at.Same(ours), unix.Close(fd)
		}
		last = at
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if errors.Is(err, fs.ErrPermission) {
			return false, nil
		}
		if err != nil {
			return false, opError("open", other.f.Name(), err)
		}
		fd = up
	}
	return false, unix.Close(fd)
}
