package receiver_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
)

// newSocketLab returns a receiver with a proxy's socket, in a directory of its own.
func newSocketLab(t *testing.T) (l *lab, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "sock")
	return newLab(t, func(c *receiver.Config) { c.Proxy.Socket = config.Path(path) }), path
}

func TestProxySocketIsForItsGroupAndReplacesOnlyASocket(t *testing.T) {
	l, path := newSocketLab(t)
	for range 2 { // the second one finds what a kill leaves
		ln, err := l.r.ListenProxy()
		fixture.Must(t, err)
		info, err := os.Lstat(path)
		fixture.Must(t, err)
		if info.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("it has mode %v", info.Mode())
		}
		fixture.Must(t, os.Link(path, path+".kept"))
		fixture.Must(t, ln.Close())
		fixture.Must(t, os.Rename(path+".kept", path))
	}
	fixture.Must(t, os.Remove(path))
	fixture.Must(t, os.WriteFile(path, []byte("mine"), 0o600))
	if _, err := l.r.ListenProxy(); err == nil {
		t.Error("a file was replaced by the socket")
	}
}

// TestProxySocketChangesNothingInItsPlace: the proxy's user, who can write in the directory,
// continuously exchanges the socket for a link.
func TestProxySocketChangesNothingInItsPlace(t *testing.T) {
	l, path := newSocketLab(t)
	precious, other := filepath.Join(t.TempDir(), "precious"), path+".other"
	fixture.Must(t, os.WriteFile(precious, nil, 0o600))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Either may be missing at the moment.
			os.Symlink(precious, other)
			unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		}
	}()
	for opened, n := 0, 0; n < 2000 || opened == 0 && n < 200_000; n++ {
		ln, err := l.r.ListenProxy()
		if err == nil {
			opened++
			fixture.Must(t, ln.Close())
		}
	}
	close(stop)
	<-ended
	info, err := os.Stat(precious)
	fixture.Must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("what the link led to has mode %v", info.Mode())
	}
}
