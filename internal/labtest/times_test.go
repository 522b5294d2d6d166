package labtest_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// setMtime sets the mtime of a path, which may be a link.
func setMtime(t *testing.T, path string, at unix.Timespec) {
	t.Helper()
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatalf("set the time of %s to %v: %v", path, at, err)
	}
}

func readMtime(t *testing.T, path string) unix.Timespec {
	t.Helper()
	var st unix.Stat_t
	fixture.Must(t, unix.Lstat(path, &st))
	return st.Mtim
}

// moveToMemory moves a host's folders to a file system that can store any time.
func moveToMemory(t *testing.T, h *labtest.Host) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "labtest-*")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, name := range []string{"episodes", "outbox", "shipped"} {
		fixture.Must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	fixture.Must(t, os.RemoveAll(h.Path("data")))
	fixture.Must(t, os.Symlink(dir, h.Path("data")))
}

// TestAnyTimeShips: malware sets the times of a file, a link, a directory or the marker far
// from the present. The episode is shipped, compared and deleted like any other.
func TestAnyTimeShips(t *testing.T) {
	t.Parallel()
	t.Run("temporary", func(t *testing.T) { t.Parallel(); wantAnyTimeShipped(t, func(*testing.T, *labtest.Host) {}) })
	t.Run("memory", func(t *testing.T) { t.Parallel(); wantAnyTimeShipped(t, moveToMemory) })
}

func wantAnyTimeShipped(t *testing.T, place func(*testing.T, *labtest.Host)) {
	l, h := newLab(t)
	place(t, h)
	instants := []unix.Timespec{
		{Sec: -62135596800},
		{Sec: -62130000000, Nsec: 1},
		{Sec: -11676096000, Nsec: 123456789},
		{Sec: -1, Nsec: 999999999},
		{Sec: 15000000000, Nsec: 999999999},
		{Sec: 253402300800},
		{Sec: math.MaxInt64 - 1, Nsec: 5},
		{Sec: math.MinInt64 + 1},
	}
	paths := []string{"meta.json", "net/flows.csv", "link", "done.marker", "net", ""}
	for i, at := range instants {
		name := fmt.Sprintf("run-%d", i)
		fixture.Must(t, os.Symlink("meta.json", filepath.Join(h.Draft(name), "link")))
		h.Finish(name)
		for _, path := range paths {
			setMtime(t, h.Episodes(name, path), at)
		}
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: len(instants), Shipped: len(instants)})
	l.Settled(t)
	out := h.Path("data", "unpacked") // on the same file system
	for i := range instants {
		name := fmt.Sprintf("run-%d", i)
		runShell(t, `mkdir -p "$2" && tar --use-compress-program=zstd -xf "$1" -C "$2"`, l.Archive(h.Name, name), out)
		for _, path := range paths[:len(paths)-1] { // retiring it changes the directory's own
			if got, want := readMtime(t, filepath.Join(out, name, path)), readMtime(t, h.Shipped(name, path)); got != want {
				t.Errorf("tar unpacked %s/%s with %v, want %v", name, path, got, want)
			}
		}
	}
	h.Run("verify").MustExit(t, 0)
	labtest.Eventually(t, "all are deleted", func() bool {
		h.Run("prune", "--max-age", "1ns").MustExit(t, 0)
		left, err := os.ReadDir(h.Shipped())
		return err == nil && len(left) == 0
	})
}
