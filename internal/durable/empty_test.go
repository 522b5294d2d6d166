package durable_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// hostileTree makes a directory with all that a tree may hold but mounts, and
// links to outside.
func hostileTree(t *testing.T, dir, outside string) {
	t.Helper()
	all := []error{
		os.MkdirAll(filepath.Join(dir, "a", "b", "c"), 0o755),
		os.WriteFile(filepath.Join(dir, "a", "b", "c", "file"), []byte("x"), 0o644),
		os.Symlink(outside, filepath.Join(dir, "a", "dir-link")),
		os.Symlink(filepath.Join(outside, "kept"), filepath.Join(dir, "file-link")),
		os.Link(filepath.Join(outside, "kept"), filepath.Join(dir, "hard-link")),
		unix.Mkfifo(filepath.Join(dir, "a", "fifo"), 0o644),
		os.WriteFile(filepath.Join(dir, "new\nline\xff"), nil, 0o644),
		os.Mkdir(filepath.Join(dir, "empty"), 0o755),
		os.Mkdir(filepath.Join(dir, "a", "read-only"), 0o755),
		os.WriteFile(filepath.Join(dir, "a", "read-only", "file"), nil, 0o400),
		os.Chmod(filepath.Join(dir, "a", "read-only"), 0o555),
	}
	if err := errors.Join(all...); err != nil {
		t.Fatal(err)
	}
}

func TestEmptyFollowsNothing(t *testing.T) {
	outside, trash := t.TempDir(), t.TempDir()
	kept := filepath.Join(outside, "kept")
	if err := os.WriteFile(kept, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	hostileTree(t, filepath.Join(trash, "one"), outside)
	hostileTree(t, filepath.Join(trash, "two"), outside)
	if err := os.Symlink(outside, filepath.Join(trash, "link")); err != nil {
		t.Fatal(err)
	}
	d, err := durable.Open(trash)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(trash); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "precious" {
		t.Errorf("what a link leads to says %q, %v", b, err)
	}
}

// Deeper than there are descriptors, and than a path can be.
func TestEmptyOfADeepTree(t *testing.T) {
	trash := t.TempDir()
	d, err := durable.Open(trash)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	deep(t, trash, 3000)
	if err := d.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(trash); err != nil || len(left) != 0 {
		t.Errorf("left: %d, %v", len(left), err)
	}
}

// deep makes a directory in a directory, n times, by descriptors: the path is
// longer than a path may be.
func deep(t *testing.T, dir string, n int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_DIRECTORY, 0)
	for i := 0; i < n && err == nil; i++ {
		if err = unix.Mkdirat(fd, "deep", 0o755); err != nil {
			break
		}
		next, oerr := unix.Openat(fd, "deep", unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd, err = next, oerr
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

// A mount in a tree is somebody else's: what is in it stays, and the rest goes.
func TestEmptyDoesNotCrossAMount(t *testing.T) {
	trash, outside := t.TempDir(), t.TempDir()
	at := filepath.Join(trash, "one", "sub", "mount")
	if err := errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(outside, "kept"), nil, 0o644), os.WriteFile(filepath.Join(trash, "one", "x"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	if err := unix.Mount(outside, at, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs root and mounts: %v", err)
	}
	top := filepath.Join(trash, "two") // one that stands at the top
	if err := errors.Join(os.Mkdir(top, 0o755), unix.Mount(outside, top, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	unmounted := false
	t.Cleanup(func() {
		unix.Unmount(top, unix.MNT_DETACH)
		if !unmounted {
			unix.Unmount(at, unix.MNT_DETACH)
		}
	})
	d, err := durable.Open(trash)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Empty(t.Context()); err == nil {
		t.Error("nothing is said of what is left")
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("removed what is mounted there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(trash, "one", "x")); err == nil {
		t.Error("its neighbour was left as well")
	}
	if n, err := d.TreeBytes(t.Context(), "two"); err != nil || n != 0 {
		t.Errorf("what is mounted counts for %d bytes, %v", n, err)
	}
	if err := unix.Unmount(top, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	mounts, _ := filepath.Glob(filepath.Join(trash, "*", "mount"))
	more, _ := filepath.Glob(filepath.Join(trash, "*", "*", "mount"))
	for _, m := range append(mounts, more...) {
		unmounted = unix.Unmount(m, unix.MNT_DETACH) == nil || unmounted
	}
	if err := d.Empty(t.Context()); err != nil {
		t.Errorf("once it is unmounted: %v", err)
	}
}

func TestTreeBytesCountsWhatIsThere(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for i, size := range []int{100_000, 50_000} {
		at := filepath.Join(dir, "one", fmt.Sprint(i))
		if err := errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(at, "f"), make([]byte, size), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(outside, "big"), make([]byte, 1<<20), 0o644), os.Symlink(outside, filepath.Join(dir, "one", "link"))); err != nil {
		t.Fatal(err)
	}
	d, err := durable.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if n, err := d.TreeBytes(t.Context(), "one"); err != nil || n < 150_000 || n > 300_000 {
		t.Errorf("got %d, %v", n, err)
	}
}
