package receiver

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// proxyMode lets the group of the socket's directory connect: the proxy's user must
// be in it.
const proxyMode = 0o660

// ListenProxy opens the socket for a proxy, or returns nil if there is none. What an
// earlier receiver left of it is removed: the data directory is locked.
//
// The proxy's user may be able to write in the directory, so the socket is removed
// and changed beneath the open directory, and nothing else in its place is.
func (r *Receiver) ListenProxy() (net.Listener, error) {
	path := string(r.cfg.Proxy.Socket)
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	dir := durable.NewDir(f)
	defer dir.Close()
	name := filepath.Base(path)
	if st, err := dir.Lstat(name); err == nil && st.IsSocket() {
		if err := dir.Unlink(name); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := setSocketMode(dir, name, proxyMode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// setSocketMode changes the mode of a socket of ours in dir. A socket cannot be opened
// but as a path descriptor, whose mode only a path below /proc can change.
func setSocketMode(dir *durable.Dir, name string, mode fs.FileMode) error {
	fd, err := durable.OpenBeneath(int(dir.File().Fd()), name, unix.O_PATH)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir.Path(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), dir.Path(name))
	defer f.Close()
	st, err := durable.StatFile(f)
	if err != nil {
		return err
	}
	if uid, _ := st.Owner(); !st.IsSocket() || uid != os.Geteuid() || st.Links() != 1 {
		return fmt.Errorf("%s is not the socket that was opened there: another process replaced it", f.Name())
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}
