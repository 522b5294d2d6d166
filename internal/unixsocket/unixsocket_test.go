package unixsocket_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/unixsocket"
)

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock")
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "sock")
}

// TestSocketThatIsInUseIsLeft: two daemons must not take it from each other.
func TestSocketThatIsInUseIsLeft(t *testing.T) {
	path := socketPath(t)
	first, err := unixsocket.Listen(path, 0o660)
	fixture.Must(t, err)
	if _, err := unixsocket.Listen(path, 0o660); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second one: %v, want EADDRINUSE", err)
	}
	conn, err := net.Dial("unix", path) // it is served as before
	fixture.Must(t, err)
	conn.Close()
	fixture.Must(t, os.Link(path, path+".kept"))
	fixture.Must(t, first.Close())
	fixture.Must(t, os.Rename(path+".kept", path)) // as a kill leaves it
	again, err := unixsocket.Listen(path, 0o660)
	fixture.Must(t, err)
	fixture.Must(t, again.Close())
}

// TestSocketWhoseQueueIsFullIsLeft: a daemon that is busy does not answer at once.
func TestSocketWhoseQueueIsFullIsLeft(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	fixture.Must(t, err)
	defer unix.Close(fd)
	fixture.Must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	fixture.Must(t, unix.Listen(fd, 0))
	for err == nil {
		var conn net.Conn
		if conn, err = net.Dial("unix", path); err == nil {
			defer conn.Close()
		}
	}
	if _, err := unixsocket.Listen(path, 0o660); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
}

// TestSocketHasItsMode, whatever the umask is, so that only its group can connect.
func TestSocketHasItsMode(t *testing.T) {
	path := socketPath(t)
	for _, mode := range []fs.FileMode{0o660, 0o600, 0o666} {
		ln, err := unixsocket.Listen(path, mode)
		fixture.Must(t, err)
		info, err := os.Lstat(path)
		fixture.Must(t, err)
		if info.Mode().Perm() != mode {
			t.Errorf("it has the mode %v, want %v", info.Mode(), mode)
		}
		fixture.Must(t, ln.Close())
	}
}

// TestOtherFileIsNotRemoved: only a socket may be in the way.
func TestOtherFileIsNotRemoved(t *testing.T) {
	path := socketPath(t)
	fixture.WriteFile(t, path, "mine")
	if _, err := unixsocket.Listen(path, 0o660); err == nil || !strings.Contains(err.Error(), "is not a socket: remove it") {
		t.Errorf("got %v", err)
	}
	if got := fixture.ReadFile(t, path); got != "mine" {
		t.Errorf("the file has %q", got)
	}
}
