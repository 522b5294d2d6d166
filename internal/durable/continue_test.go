package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// TestUploadContinuesAfterTheDurableBytes: what a crash left after that is cut off, even if
// fewer bytes follow.
func TestUploadContinuesAfterTheDurableBytes(t *testing.T) {
	d, path := openTemp(t)
	f := createFile(t, d, "part", "durable")
	fixture.Must(t, f.Checkpoint("progress", []byte{7}))
	_, err := f.Write([]byte(", and this was not"))
	fixture.Must(t, errors.Join(err, f.Close()))
	f, err = d.ContinueFile("part", 7)
	fixture.Must(t, err)
	_, err = f.Write([]byte("!"))
	fixture.Must(t, errors.Join(err, f.Commit("whole")))
	if got := fixture.ReadFile(t, filepath.Join(path, "whole")); got != "durable!" {
		t.Errorf("the file holds %q", got)
	}
}

// TestContinueNeedsTheBytes before the offset at which it continues, in a file.
func TestContinueNeedsTheBytes(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "short"), "123456")
	fixture.Must(t, os.Mkdir(filepath.Join(path, "dir"), 0o700))
	fixture.Must(t, os.Symlink("short", filepath.Join(path, "link")))
	fixture.Must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	for name, missing := range map[string]bool{"short": true, "none": true, "fifo": true, "dir": false, "link": false} {
		f, err := d.ContinueFile(name, 7)
		if err == nil {
			f.Close()
		}
		if err == nil || errors.Is(err, durable.ErrFault) || errors.Is(err, fs.ErrNotExist) != missing {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := fixture.ReadFile(t, filepath.Join(path, "short")); got != "123456" {
		t.Errorf("a refused file holds %q", got)
	}
}
