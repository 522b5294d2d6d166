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

// proxyMode allows the group of the socket's directory to connect. The proxy's user must be
// in it.
const proxyMode = 0o660

// ListenProxy opens the socket for a proxy, or returns nil if none is configured. It removes
// the socket of an earlier receiver, which no longer runs: the data directory is locked.
//
// The proxy's user may be able to write to the directory. So the socket is removed and changed
// relative to the open directory, and only if it is a socket.
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

// setSocketMode changes the mode of this process's socket in dir. A socket can be opened as a
// path descriptor only, and its mode changed by a path below /proc only.
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
