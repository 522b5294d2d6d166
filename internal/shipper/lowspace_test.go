package shipper_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
)

// newFullLab returns a lab that has an episode and no space, with a low-space file
// at path.
func newFullLab(t *testing.T, path ...string) *lab {
	t.Helper()
	l := newLab(t)
	fixture.WriteFile(l, l.path("precious"), "precious")
	l.cfg.LowSpaceFile, l.cfg.MinFree = config.Path(l.path(path...)), 1<<60
	l.finishEpisodes("run-1")
	return l
}

// runOnceWithoutWait makes a pass, which must not wait.
func (l *lab) runOnceWithoutWait() {
	l.Helper()
	done := make(chan shipper.Tally, 1)
	go func() { tally, _ := l.runOnce(); done <- tally }()
	select {
	case tally := <-done:
		if tally.Transient+tally.Shipped != 1 {
			l.Errorf("got %v\n%s", tally, l.logs)
		}
	case <-time.After(30 * time.Second):
		l.Fatal("the shipper waits")
	}
}

func (l *lab) wantPrecious() {
	l.Helper()
	if b, err := os.ReadFile(l.path("precious")); err != nil || string(b) != "precious" {
		l.Errorf("the file that nothing may write to holds %q, %v", b, err)
	}
}

func TestLowSpaceFileIsForEverybodyWhileSpaceIsLow(t *testing.T) {
	l := newFullLab(t, "low-space")
	l.runOnceWithoutWait()
	info, err := os.Lstat(l.path("low-space"))
	fixture.Must(l, err)
	if b, err := os.ReadFile(l.path("low-space")); info.Mode() != 0o644 || len(b) == 0 || err != nil {
		t.Errorf("it has mode %v and says %q, %v", info.Mode(), b, err)
	}
	l.runOnceWithoutWait() // it exists already
	if said := l.logs.linesContaining("low_space_file not updated"); len(said) != 0 {
		t.Errorf("said %q", said)
	}
	l.cfg.MinFree = 0
	l.runOnceWithoutWait()
	if fixture.Exists(l.path("low-space")) {
		t.Error("it exists though there is space")
	}
}

// TestLowSpaceFileIsNeverWaitedForOrFollowed: the experiments' user may own its directory.
func TestLowSpaceFileIsNeverWaitedForOrFollowed(t *testing.T) {
	for what, c := range map[string]struct {
		put     func(l *lab, path string)
		refused bool
	}{
		"FIFO":          {func(l *lab, path string) { fixture.Must(l, unix.Mkfifo(path, 0o666)) }, true},
		"link":          {func(l *lab, path string) { fixture.Must(l, os.Symlink(l.path("precious"), path)) }, true},
		"dangling link": {func(l *lab, path string) { fixture.Must(l, os.Symlink(l.path("new"), path)) }, true},
		"directory":     {func(l *lab, path string) { fixture.Must(l, os.Mkdir(path, 0o755)) }, true},
		"lease": {func(l *lab, path string) {
			fixture.WriteFile(l, path, "")
			fixture.TakeLease(l, path)
		}, false},
		"hard link": {func(l *lab, path string) {
			fixture.Must(l, os.Truncate(l.path("precious"), 0))
			fixture.Must(l, os.Chmod(l.path("precious"), 0o600))
			fixture.Must(l, os.Link(l.path("precious"), path))
		}, false},
	} {
		t.Run(what, func(t *testing.T) {
			l := newFullLab(t, "low-space")
			c.put(l, l.path("low-space"))
			l.runOnceWithoutWait()
			said := l.logs.linesContaining("low_space_file not updated")
			if refused := len(said) > 0; refused != c.refused || refused && !strings.Contains(said[0], "is not a regular file: remove it") {
				t.Errorf("it is refused: %v, want %v\n%s", refused, c.refused, l.logs)
			}
			if what == "hard link" {
				info, err := os.Stat(l.path("precious"))
				fixture.Must(l, err)
				if info.Size() != 0 || info.Mode() != 0o600 {
					t.Errorf("the other name's file has %d bytes and mode %v", info.Size(), info.Mode())
				}
				return
			}
			l.wantPrecious()
			if fixture.Exists(l.path("new")) {
				t.Error("what the link named was created")
			}
		})
	}
}

// TestLowSpaceFileStaysInItsDirectory although another user continuously exchanges the
// directory for a link.
func TestLowSpaceFileStaysInItsDirectory(t *testing.T) {
	fixture.RequireRoot(t)
	const other = 4242
	l := newFullLab(t, "queue", "flags", "precious-too")
	queue, flags, away := l.path("queue"), l.path("queue", "flags"), l.path("queue", "away")
	fixture.Must(l, os.Mkdir(queue, 0o755))
	fixture.Must(l, os.Mkdir(flags, 0o755))
	fixture.Must(l, os.Symlink(l.dir, away)) // a directory of the shipper's user
	for _, path := range []string{queue, flags, away} {
		fixture.Must(l, os.Lchown(path, other, other))
	}
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, flags, unix.AT_FDCWD, away, unix.RENAME_EXCHANGE); err != nil {
				ended <- err
				return
			}
		}
	}()
	for range 100 {
		l.cfg.MinFree = 1 << 60
		l.runOnce()
		if fixture.Exists(l.path("precious-too")) {
			t.Fatal("the file was created where the link led")
		}
		fixture.WriteFile(l, l.path("precious-too"), "precious")
		l.cfg.MinFree = 0
		l.runOnce()
		if !fixture.Exists(l.path("precious-too")) {
			t.Fatal("a file was removed where the link led")
		}
		fixture.Must(l, os.Remove(l.path("precious-too")))
	}
	close(stop)
	fixture.Must(l, <-ended)
}
