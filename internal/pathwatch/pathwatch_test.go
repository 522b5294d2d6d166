package pathwatch_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/pathwatch"
)

// wantMoved checks that err is a [*pathwatch.MovedError] about a path.
func wantMoved(tb testing.TB, err error, path string) {
	tb.Helper()
	moved, ok := errors.AsType[*pathwatch.MovedError](err)
	if !ok || moved.Path != path {
		tb.Errorf("got %v, want that %s was moved", err, path)
	}
}

// openNested makes a directory with two more in it, and opens the innermost by its path.
func openNested(tb testing.TB) (d *durable.Dir, parent, path string) {
	tb.Helper()
	parent = filepath.Join(tb.TempDir(), "parent")
	path = filepath.Join(parent, "dir")
	fixture.Must(tb, os.MkdirAll(path, 0o755))
	return openAt(tb, path), parent, path
}

func openAt(tb testing.TB, path string) *durable.Dir {
	tb.Helper()
	d, err := durable.Open(path)
	fixture.Must(tb, err)
	tb.Cleanup(func() { d.Close() })
	return d
}

func watchPaths(tb testing.TB, dirs ...*durable.Dir) *pathwatch.Watch {
	tb.Helper()
	w, err := pathwatch.New(dirs...)
	fixture.Must(tb, err)
	tb.Cleanup(func() { w.Close() })
	return w
}

func TestDirThatStaysKeepsItsPath(t *testing.T) {
	d, _, path := openNested(t)
	w := watchPaths(t, d)
	fixture.WriteFile(t, filepath.Join(path, "file"), "x")
	fixture.Must(t, os.Chmod(path, 0o700))
	for range 3 {
		fixture.Must(t, w.Check())
	}
}

func TestMovedDirIsFound(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, parent, path string){
		"renamed, another made": func(t *testing.T, _, path string) {
			fixture.Must(t, os.Rename(path, path+".x"))
			fixture.Must(t, os.Mkdir(path, 0o755))
		},
		"renamed":        func(t *testing.T, _, path string) { fixture.Must(t, os.Rename(path, path+".x")) },
		"removed":        func(t *testing.T, _, path string) { fixture.Must(t, os.Remove(path)) },
		"parent renamed": func(t *testing.T, parent, _ string) { fixture.Must(t, os.Rename(parent, parent+".x")) },
		"parent replaced": func(t *testing.T, parent, path string) {
			fixture.Must(t, os.Rename(parent, parent+".x"))
			fixture.Must(t, os.MkdirAll(path, 0o755))
		},
		"a file in the parent's place": func(t *testing.T, parent, _ string) {
			fixture.Must(t, os.Rename(parent, parent+".x"))
			fixture.WriteFile(t, parent, "")
		},
		"exchanged": func(t *testing.T, _, path string) {
			fixture.Must(t, os.Mkdir(path+".x", 0o755))
			fixture.Must(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".x", unix.RENAME_EXCHANGE))
		},
		"a mount over it":         func(t *testing.T, _, path string) { fixture.MountTmpfsAt(t, path, "") },
		"a mount over the parent": func(t *testing.T, parent, _ string) { fixture.MountTmpfsAt(t, parent, "") },
		"the same, bound over it": func(t *testing.T, parent, path string) {
			fixture.RequireMount(t, syscall.Mount(path, path, "", syscall.MS_BIND, ""))
			t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, parent, path := openNested(t)
			w := watchPaths(t, d)
			move(t, parent, path)
			err := w.Check()
			wantMoved(t, err, path)
			t.Log(err)
		})
	}
}

func TestPathThatComesBackIsNotTakenForMoved(t *testing.T) {
	d, _, path := openNested(t)
	w := watchPaths(t, d)
	fixture.Must(t, os.Rename(path, path+".x"))
	wantMoved(t, w.Check(), path)
	fixture.Must(t, os.Rename(path+".x", path))
	fixture.Must(t, w.Check())
}

// TestMountElsewhereIsNoMove: the list of mounts changes all the time on some machines.
func TestMountElsewhereIsNoMove(t *testing.T) {
	d, parent, path := openNested(t)
	fixture.Must(t, os.MkdirAll(filepath.Join(path, "below"), 0o755))
	fixture.Must(t, os.MkdirAll(path+"-other", 0o755))
	w := watchPaths(t, d)
	fixture.MountTmpfsAt(t, filepath.Join(path, "below"), "")
	fixture.Must(t, w.Check())
	fixture.MountTmpfsAt(t, path+"-other", "")
	fixture.Must(t, w.Check())
	if strings.HasPrefix(path, parent) {
		fixture.Must(t, w.Check())
	}
}

// TestWatchBeginsWithWhatIsThere: a path that moved before the watch began.
func TestWatchBeginsWithWhatIsThere(t *testing.T) {
	d, _, path := openNested(t)
	fixture.Must(t, os.Rename(path, path+".x"))
	_, err := pathwatch.New(d)
	wantMoved(t, err, path)
}

func TestPathThroughALinkIsFollowedAtEachCheck(t *testing.T) {
	_, parent, path := openNested(t)
	link := filepath.Join(parent, "link")
	fixture.Must(t, os.Symlink(path, link))
	w := watchPaths(t, openAt(t, link))
	fixture.Must(t, w.Check())
	other := t.TempDir()
	fixture.Must(t, os.Remove(link))
	fixture.Must(t, os.Symlink(other, link))
	wantMoved(t, w.Check(), link)
}

func BenchmarkCheckPaths(b *testing.B) {
	var dirs []*durable.Dir
	for range 4 {
		d, _, _ := openNested(b)
		dirs = append(dirs, d)
	}
	w := watchPaths(b, dirs...)
	for b.Loop() {
		fixture.Must(b, w.Check())
	}
}
