package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// node is a name in a tree. Its O_PATH descriptor can be examined and opened later, but has opened
// nothing itself: it does not wait for a FIFO, touch a device or follow a link.
type node struct {
	path   string // below the episode; empty for the episode's directory
	fd     int    // -1 for a mount point
	st     unix.Stat_t
	target string // target of a symbolic link
	skip   string // why it is skipped; empty if it is not

	attributes uint64 // of statx(2), for a node without a descriptor
}

// mountPoint is the skip reason of a mount point.
const mountPoint = "mount point"

// openNode opens the entry base of the directory dirfd. Its path is path.
func openNode(dirfd int, base, path string) (*node, error) {
	fd, err := durable.OpenBeneath(dirfd, base, unix.O_PATH)
	if errors.Is(err, unix.EXDEV) {
		return &node{path: path, fd: -1, skip: mountPoint}, nil
	}
	if err != nil {
		return nil, fileError("open", path, err)
	}
	n := &node{path: path, fd: fd}
	if err := n.readStat(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// statNode describes the entry base of the directory dirfd without a descriptor, for a walk that
// opens no files. It returns nil for a directory, which needs one, and on a kernel that does not
// report mount points.
func statNode(dirfd int, base, path string) (*node, error) {
	var x unix.Statx_t
	err := unix.Statx(dirfd, base, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &x)
	if err != nil {
		return nil, fileError("stat", path, err)
	}
	n := &node{path: path, fd: -1, attributes: x.Attributes, st: unix.Stat_t{
		Mode: uint32(x.Mode), Ino: x.Ino, Size: int64(x.Size), Uid: x.Uid,
		Mtim: toTimespec(x.Mtime), Ctim: toTimespec(x.Ctime),
	}}
	convertInt(&n.st.Nlink, x.Nlink)
	switch {
	case x.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0, n.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil, nil
	case x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0:
		return &node{path: path, fd: -1, skip: mountPoint}, nil
	}
	return n, n.setSkipReason(func() (string, error) {
		target, err := readLink(dirfd, base)
		if errors.Is(err, unix.EINVAL) {
			err = changedError(path, "is not a link any more")
		}
		return target, err
	})
}

// convertInt assigns n to a field whose width depends on the architecture.
func convertInt[T uint32 | uint64 | int32 | int64, N uint32 | int64](to *T, n N) { *to = T(n) }

// toTimespec keeps any time. Nanoseconds since 1970 would overflow outside the years 1677 to 2262,
// and malware sets such times.
func toTimespec(t unix.StatxTimestamp) (ts unix.Timespec) {
	convertInt(&ts.Sec, t.Sec)
	convertInt(&ts.Nsec, t.Nsec)
	return ts
}

func (n *node) readStat() error {
	if err := unix.Fstat(n.fd, &n.st); err != nil {
		return fileError("stat", n.path, err)
	}
	return n.setSkipReason(func() (string, error) { return readLink(n.fd, "") })
}

// setSkipReason sets the skip reason, and the target of a link.
func (n *node) setSkipReason(readlink func() (string, error)) error {
	switch n.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
	case unix.S_IFLNK:
		target, err := readlink()
		if err != nil {
			return fileError("read link", n.path, err)
		}
		n.target = target
	case unix.S_IFSOCK:
		n.skip = "socket"
	case unix.S_IFIFO:
		n.skip = "FIFO"
	default:
		n.skip = "device"
	}
	return nil
}

// readLink reads the link base of a directory, or, if base is empty, the link of the descriptor.
func readLink(fd int, base string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, base, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

func (n *node) close() {
	if n.fd >= 0 {
		unix.Close(n.fd) // opened nothing, so it cannot fail
	}
}

func (n *node) isRegular() bool {
	return n.skip == "" && n.st.Mode&unix.S_IFMT == unix.S_IFREG
}

func (n *node) isDirectory() bool {
	return n.skip == "" && n.st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// open opens the file that n holds, whatever its name leads to now. It does not wait for the holder
// of a lease, which would keep the packer from other episodes.
func (n *node) open() (*os.File, error) {
	fd := -1
	err := durable.RetryEINTR(func() (err error) {
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(n.fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		// n holds the file, even if it was unlinked: it is /proc that is missing.
		return nil, fmt.Errorf("open %s through /proc/self/fd (is /proc mounted?): %w", quotePath(n.path), err)
	}
	if errors.Is(err, unix.EAGAIN) {
		return nil, fmt.Errorf("open %s: %w: it is tried again later", quotePath(n.path), durable.ErrLeased)
	}
	if err != nil {
		return nil, fileError("open", n.path, err)
	}
	return os.NewFile(uintptr(fd), n.path), nil
}

// openDir opens the directory that n holds.
func (n *node) openDir() (*os.File, error) {
	fd, err := durable.OpenBeneath(n.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, fileError("open", n.path, err)
	}
	return os.NewFile(uintptr(fd), n.path), nil
}

// checkUnchanged returns [ErrChanged] if the file has changed since n was opened.
func (n *node) checkUnchanged() error {
	var now unix.Stat_t
	if err := unix.Fstat(n.fd, &now); err != nil {
		return fileError("stat", n.path, err)
	}
	if now.Size != n.st.Size || now.Mtim != n.st.Mtim || now.Ctim != n.st.Ctim {
		return changedError(n.path, "was written to")
	}
	return nil
}

// tarHeader returns the tar header of n. Of the host it has only mode and mtime: no owner, no
// names, no access times.
func (n *node) tarHeader(name string) *tar.Header {
	h := &tar.Header{
		Format:   tar.FormatPAX,
		Name:     name,
		Mode:     int64(n.st.Mode & 0o777),
		ModTime:  time.Unix(n.st.Mtim.Unix()),
		Typeflag: tar.TypeReg,
	}
	switch {
	case n.isDirectory():
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case n.isRegular():
		h.Size = n.st.Size
	default:
		h.Typeflag = tar.TypeSymlink
		h.Linkname = n.target
	}
	return h
}

// fileError turns an error of the file system into one about the episode.
func fileError(op, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return changedError(path, "vanished")
	case errors.Is(err, fs.ErrPermission):
		return &UnpackableError{fmt.Sprintf("%s cannot be read (%v): give the shipper's user read access to the whole episode", quotePath(path), err)}
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		err = at.Err // it has the same path, not quoted
	}
	if durable.IsReadFailure(err) {
		return &durable.ReadError{Op: op, Path: quotePath(path), Err: err}
	}
	return fmt.Errorf("%s %s: %w", op, quotePath(path), err)
}
