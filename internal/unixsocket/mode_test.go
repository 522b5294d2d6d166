package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// TestOnlyTheSocketThatWasOpenedIsChanged: whoever can write to the directory may have replaced it.
func TestOnlyTheSocketThatWasOpenedIsChanged(t *testing.T) {
	path, err := os.MkdirTemp("", "sock") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(path) })
	secret := filepath.Join(path, "secret")
	fixture.WriteFile(t, secret, "mine")
	fixture.Must(t, os.Chmod(secret, 0o600))
	fixture.Must(t, os.Symlink(secret, filepath.Join(path, "link")))
	ln, err := net.Listen("unix", filepath.Join(path, "sock"))
	fixture.Must(t, err)
	defer ln.Close()
	fixture.Must(t, os.Link(filepath.Join(path, "sock"), filepath.Join(path, "other"))) // of another daemon, say
	dir, err := durable.Open(path)
	fixture.Must(t, err)
	defer dir.Close()
	before, err := os.Lstat(filepath.Join(path, "sock"))
	fixture.Must(t, err)
	for _, name := range []string{"secret", "link", "other", "missing"} {
		if err := setMode(dir, name, 0o666); err == nil {
			t.Errorf("the mode of %s was changed", name)
		}
	}
	after, err := os.Lstat(filepath.Join(path, "sock"))
	fixture.Must(t, err)
	if info, err := os.Stat(secret); err != nil || info.Mode() != 0o600 || after.Mode() != before.Mode() {
		t.Errorf("secret: %v, %v; socket: %v", info, err, after.Mode())
	}
}
