package unixsocket_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/unixsocket"
)

// TestSocketThatIsInUseIsLeft: two daemons must not take it from each other.
func TestSocketThatIsInUseIsLeft(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	first, err := unixsocket.Listen(path, 0o660)
	fixture.Must(t, err)
	if _, err := unixsocket.Listen(path, 0o660); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one: %v, want EADDRINUSE", err)
	}
	go func() { // it is served as before
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
	}()
	for { // the first connection may be that of the second Listen
		conn, err := first.Accept()
		fixture.Must(t, err)
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			conn.Close()
			break
		}
	}
	fixture.Must(t, os.Link(path, path+".kept"))
	fixture.Must(t, first.Close())
	fixture.Must(t, os.Rename(path+".kept", path)) // as a kill leaves it
	again, err := unixsocket.Listen(path, 0o660)
	fixture.Must(t, err)
	fixture.Must(t, again.Close())
}

// TestOtherFilesAreLeft: a mistake in a configuration must not cost a file.
func TestOtherFilesAreLeft(t *testing.T) {
	dir, err := os.MkdirTemp("", "sock") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "file")
	fixture.WriteFile(t, path, "mine")
	if _, err := unixsocket.Listen(path, 0o660); err == nil || !strings.Contains(err.Error(), "is not a socket: remove it") {
		t.Errorf("got %v", err)
	}
	if got := fixture.ReadFile(t, path); got != "mine" {
		t.Errorf("the file has %q", got)
	}
}
