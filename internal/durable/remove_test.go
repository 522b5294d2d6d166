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
	"cis490/internal/fixture"
)

// makeHostileTree makes a directory with everything that a tree may hold except mounts, and
// with links to outside.
func makeHostileTree(t *testing.T, dir, outside string) {
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
	fixture.Must(t, errors.Join(all...))
}

func TestRemovingFollowsNothing(t *testing.T) {
	outside, trash := t.TempDir(), t.TempDir()
	kept := filepath.Join(outside, "kept")
	fixture.Must(t, os.WriteFile(kept, []byte("precious"), 0o644))
	makeHostileTree(t, filepath.Join(trash, "one"), outside)
	makeHostileTree(t, filepath.Join(trash, "two"), outside)
	d, err := durable.Open(trash)
	fixture.Must(t, err)
	defer d.Close()
	for _, name := range []string{"one", "two"} {
		if err := d.RemoveTree(t.Context(), name, removeAll); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(trash); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "precious" {
		t.Errorf("what a link leads to says %q, %v", b, err)
	}
}

// A mount in a tree belongs to others: its content stays, and the rest is removed.
func TestRemovingDoesNotCrossAMount(t *testing.T) {
	trash, outside := t.TempDir(), t.TempDir()
	at := filepath.Join(trash, "one", "sub", "mount")
	fixture.Must(t, errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(outside, "kept"), nil, 0o644), os.WriteFile(filepath.Join(trash, "one", "x"), nil, 0o644)))
	runtime.LockOSThread()
	if err := unix.Mount(outside, at, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("needs root and mounts: %v", err)
	}
	top := filepath.Join(trash, "two") // one at the top
	fixture.Must(t, errors.Join(os.Mkdir(top, 0o755), unix.Mount(outside, top, "", unix.MS_BIND, "")))
	t.Cleanup(func() {
		unix.Unmount(top, unix.MNT_DETACH)
		unix.Unmount(at, unix.MNT_DETACH)
	})
	d, err := durable.Open(trash)
	fixture.Must(t, err)
	defer d.Close()
	for _, name := range []string{"one", "two"} {
		if err := d.RemoveTree(t.Context(), name, removeAll); err == nil || errors.Is(err, durable.ErrKept) {
			t.Errorf("%s: got %v, want the mount named", name, err)
		}
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
	for _, mount := range []string{top, at} {
		fixture.Must(t, unix.Unmount(mount, unix.MNT_DETACH))
	}
	for _, name := range []string{"one", "two"} {
		if err := d.RemoveTree(t.Context(), name, removeAll); err != nil {
			t.Errorf("%s, once it is unmounted: %v", name, err)
		}
	}
}

// removeAll lets all files be removed.
func removeAll(string, durable.Stat) bool { return true }

func TestRemovingKeepsWhatItMustKeep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a/keep", "a/b/go", "go", "c/d/keep"} {
		at := filepath.Join(dir, "one", name)
		fixture.Must(t, errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(name), 0o644)))
	}
	d, err := durable.Open(dir)
	fixture.Must(t, err)
	defer d.Close()
	err = d.RemoveTree(t.Context(), "one", func(path string, s durable.Stat) bool {
		if s.Size() != int64(len(path)) {
			t.Errorf("%s is shown with %d bytes", path, s.Size())
		}
		return filepath.Base(path) != "keep"
	})
	if !errors.Is(err, durable.ErrKept) {
		t.Errorf("got %v, want that files were kept", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "one", "*"))
	for _, kept := range []string{"a/keep", "c/d/keep"} {
		if _, err := os.Stat(filepath.Join(dir, "one", kept)); err != nil {
			t.Error(err)
		}
	}
	if len(left) != 2 {
		t.Errorf("left: %q", left)
	}
}

// Unlinking one name of a file changes the ctime that its other names show.
func TestRemovingTellsItsOwnUnlinkFromAWrite(t *testing.T) {
	for _, write := range []bool{false, true} {
		dir := t.TempDir()
		at := func(name string) string { return filepath.Join(dir, "one", name) }
		if err := errors.Join(os.Mkdir(at(""), 0o755), os.WriteFile(at("a"), []byte("x"), 0o644),
			os.Link(at("a"), at("b")), os.Link(at("a"), at("c"))); err != nil {
			t.Fatal(err)
		}
		d, err := durable.Open(dir)
		fixture.Must(t, err)
		st, err := d.Lstat("one")
		if err != nil || !st.IsDir() {
			t.Fatal(err)
		}
		var first *unix.Timespec
		asked := 0
		err = d.RemoveTree(t.Context(), "one", func(path string, s durable.Stat) bool {
			_, ctime := s.Times()
			if first == nil {
				first = &ctime
			}
			asked++
			if asked == 2 && write {
				for now := ctime; now == ctime; { // until the kernel's clock has ticked
					fixture.Must(t, os.Chmod(at(path), 0o600))
					var st unix.Stat_t
					fixture.Must(t, unix.Stat(at(path), &st))
					now = st.Ctim
				}
			}
			return ctime == *first
		})
		if write == (err == nil) {
			t.Errorf("write %v: got %v", write, err)
		}
		d.Close()
	}
}

func TestTreeBytesCountsWhatIsThere(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	for i, size := range []int{100_000, 50_000} {
		at := filepath.Join(dir, "one", fmt.Sprint(i))
		fixture.Must(t, errors.Join(os.MkdirAll(at, 0o755), os.WriteFile(filepath.Join(at, "f"), make([]byte, size), 0o644)))
	}
	fixture.Must(t, errors.Join(os.WriteFile(filepath.Join(outside, "big"), make([]byte, 1<<20), 0o644), os.Symlink(outside, filepath.Join(dir, "one", "link"))))
	d, err := durable.Open(dir)
	fixture.Must(t, err)
	defer d.Close()
	if n, err := d.TreeBytes(t.Context(), "one"); err != nil || n < 150_000 || n > 300_000 {
		t.Errorf("got %d, %v", n, err)
	}
}
