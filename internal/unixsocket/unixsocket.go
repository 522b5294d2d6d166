// Package unixsocket opens the Unix sockets on which a daemon serves programs on the same machine.
package unixsocket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// Listen opens a socket with the given mode. It removes a socket on which no process listens any more. If
// one does, the error wraps EADDRINUSE. Anything else at the path is an error, and stays.
//
// The users who connect may be able to write to the directory. So the socket is removed and changed
// relative to the open directory, and only if it is a socket.
func Listen(path string, mode fs.FileMode) (net.Listener, error) {
	f, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	dir := durable.NewDir(f)
	defer dir.Close()
	name := filepath.Base(path)
	if st, err := dir.Lstat(name); err == nil {
		if !st.IsSocket() {
			return nil, fmt.Errorf("%s is not a socket: remove it", path)
		}
		if isInUse(path) {
			return nil, &fs.PathError{Op: "listen", Path: path, Err: unix.EADDRINUSE}
		}
		if err := dir.Unlink(name); err != nil {
			return nil, err
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := setMode(dir, name, mode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// isInUse reports whether a process listens on a socket. One that does not answer in time is in use.
func isInUse(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// setMode changes the mode of this process's socket in dir. A socket can be opened as a path
// descriptor only, and its mode changed by a path below /proc only.
func setMode(dir *durable.Dir, name string, mode fs.FileMode) error {
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
