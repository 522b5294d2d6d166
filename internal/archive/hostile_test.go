package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// TestSpecialFilesAreSkippedAndNamed: a monitor's socket must not cause a hold, and a FIFO must
// not block the shipper.
func TestSpecialFilesAreSkippedAndNamed(t *testing.T) {
	l := newUsualLab(t)
	mkfifo(t, l.path("fifo\x1b[2J\n"))
	addr := &net.UnixAddr{Name: l.path("qmp.sock"), Net: "unix"}
	sock, err := net.ListenUnix("unix", addr)
	fixture.Must(l, err)
	defer sock.Close()
	want := 2
	if os.Getuid() == 0 {
		fixture.Must(l, unix.Mknod(l.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		want++
	}
	packed, s := l.pack()
	names, _ := readMembers(t, packed)
	for _, n := range names {
		if strings.Contains(n, "fifo") || strings.Contains(n, "sock") || strings.Contains(n, "null") {
			t.Errorf("%q was packed", n)
		}
	}
	if s.Skipped.Count != want || len(s.Skipped.First) != want {
		t.Fatalf("skipped %+v, want %d", s.Skipped, want)
	}
	for _, skip := range s.Skipped.First {
		wantPrintable(t, skip.Path+skip.Reason)
	}
	if got := s.Skipped.First[want-1]; got != (archive.Skip{Path: `"qmp.sock"`, Reason: "socket"}) {
		t.Errorf("got %+v", got)
	}
}

// TestSkipsAreBounded however many there are.
func TestSkipsAreBounded(t *testing.T) {
	l := newUsualLab(t)
	for i := range 40 {
		mkfifo(t, l.path("f"+strings.Repeat("x", i)))
	}
	s, err := l.survey()
	fixture.Must(l, err)
	if s.Skipped.Count != 40 || len(s.Skipped.First) != 16 {
		t.Errorf("got %d, %d of them named", s.Skipped.Count, len(s.Skipped.First))
	}
}

// TestForeignHardLinkIsNotRead: a link to another owner's file could ship it.
func TestForeignHardLinkIsNotRead(t *testing.T) {
	fixture.RequireRoot(t)
	l := newUsualLab(t)
	secret := filepath.Join(l.parent, "secret")
	fixture.Must(l, os.WriteFile(secret, []byte("secret"), 0o600))
	fixture.Must(l, os.Chown(secret, 4900, 4900))
	fixture.Must(l, os.Link(secret, l.path("loot")))
	own := filepath.Join(l.parent, "own")
	fixture.Must(l, os.WriteFile(own, []byte("own"), 0o600))
	fixture.Must(l, os.Link(own, l.path("own")))
	packed, s := l.pack()
	_, contents := readMembers(t, packed)
	if _, there := contents["ep-1/loot"]; there || s.Skipped.Count != 1 {
		t.Errorf("loot packed: %v; skipped %+v", there, s.Skipped)
	}
	if contents["ep-1/own"] != "own" {
		t.Error("the owner's own linked file is missing")
	}
	// As meta.json, which is visited first, it is skipped like any other.
	fixture.Must(l, os.Remove(l.path("meta.json")))
	fixture.Must(l, os.Link(secret, l.path("meta.json")))
	packed, s = l.pack()
	if names, _ := readMembers(t, packed); slices.Contains(names, "ep-1/meta.json") || s.Skipped.Count != 2 {
		t.Errorf("packed %q, skipped %+v", names, s.Skipped)
	}
}

// TestMountPointIsSkipped: what is mounted there does not belong to the episode.
func TestMountPointIsSkipped(t *testing.T) {
	fixture.RequireRoot(t)
	l := newUsualLab(t)
	fixture.Must(l, os.Mkdir(l.path("mnt"), 0o755))
	if err := unix.Mount("tmpfs", l.path("mnt"), "tmpfs", 0, ""); err != nil {
		t.Skip("cannot mount: ", err)
	}
	defer unix.Unmount(l.path("mnt"), unix.MNT_DETACH)
	l.write("mnt/inside", "x")
	packed, s := l.pack()
	names, _ := readMembers(t, packed)
	if slices.Contains(names, "ep-1/mnt/") || s.Skipped.Count != 1 || s.Skipped.First[0].Reason != "mount point" {
		t.Errorf("packed %q, skipped %+v", names, s.Skipped)
	}
}

// TestOnlyADirectoryIsAnEpisode.
func TestOnlyADirectoryIsAnEpisode(t *testing.T) {
	l := newUsualLab(t)
	fixture.Must(l, os.Rename(l.episode, filepath.Join(l.parent, "real")))
	if _, err := l.open(archive.Limits{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	fixture.Must(l, os.Symlink("real", l.episode))
	_, err := l.open(archive.Limits{})
	wantUnpackable(t, err, "ep-1 is not a directory")
	fixture.Must(l, os.Remove(l.episode))
	mkfifo(t, l.episode)
	_, err = l.open(archive.Limits{})
	wantUnpackable(t, err, "ep-1 is not a directory")
}

// TestCapsHoldTheEpisode with a cause that includes advice, already in a Survey: no content is
// read for it.
func TestCapsHoldTheEpisode(t *testing.T) {
	limits := archive.Limits{Bytes: 1 << 20, Entries: 50, Depth: 5, Path: 100}
	for _, c := range []struct {
		name  string
		fill  func(*lab)
		names string
	}{
		{"bytes", func(l *lab) { l.writeNoise("big\n", 1<<20) }, `"big\n"`},
		{"sparse", func(l *lab) { l.write("hole", ""); fixture.Must(l, os.Truncate(l.path("hole"), 100<<30)) }, "107374182400 bytes"},
		{"entries", func(l *lab) {
			for i := range 60 {
				l.write("many/"+strings.Repeat("x", 1+i), "")
			}
		}, "more than 50 entries"},
		{"depth", func(l *lab) { fixture.Must(l, os.MkdirAll(l.path("1/2/3/4/5/6"), 0o755)) }, `"1/2/3/4/5/6" lies deeper`},
		{"path", func(l *lab) { l.write("d/"+strings.Repeat("p", 99), "") }, "100 bytes"},
		{"empty meta.json", func(l *lab) { l.write("meta.json", "") }, "meta.json is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newUsualLab(t)
			if _, err := l.tree(limits).Survey(t.Context()); err != nil {
				t.Fatal("unfit from the start:", err)
			}
			c.fill(l)
			_, err := l.tree(limits).Survey(t.Context())
			wantUnpackable(t, err, c.names)
		})
	}
}

// TestAtTheCapsIsFit: the limits are the largest accepted values.
func TestAtTheCapsIsFit(t *testing.T) {
	l := newLab(t)
	l.write("d/e/"+strings.Repeat("p", 16), strings.Repeat("x", 1000))
	exact := archive.Limits{Bytes: 1000, Entries: 4, Depth: 3, Path: 20}
	if _, err := l.tree(exact).Survey(t.Context()); err != nil {
		t.Error(err)
	}
	for _, less := range []archive.Limits{
		{Bytes: 999, Entries: 4, Depth: 3, Path: 20},
		{Bytes: 1000, Entries: 3, Depth: 3, Path: 20},
		{Bytes: 1000, Entries: 4, Depth: 2, Path: 20},
		{Bytes: 1000, Entries: 4, Depth: 3, Path: 19},
	} {
		_, err := l.tree(less).Survey(t.Context())
		wantUnpackable(t, err, "raise the limit")
	}
}

// TestManyNamesAreNotCollected: the limits apply while a directory is read.
func TestManyNamesAreNotCollected(t *testing.T) {
	l := newUsualLab(t)
	dir := l.path("many")
	fixture.Must(l, os.Mkdir(dir, 0o755))
	for i := range 8_000 {
		fixture.Must(l, os.Symlink("x", filepath.Join(dir, fmt.Sprintf("%0100d", i))))
	}
	tree := l.tree(archive.Limits{Entries: 100})
	got := bytesAllocated(func() {
		_, err := tree.Survey(t.Context())
		wantUnpackable(t, err, "more than 100 entries")
	})
	if got > 512<<10 {
		t.Errorf("allocated %d bytes to refuse a directory", got)
	}
}

// TestLongNamesAreBounded: the permitted number of names, each of 255 bytes, would be too much.
func TestLongNamesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 70000 files")
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm") // where a file costs a tenth
	}
	l := newUsualLab(t)
	for i := range 70_000 {
		fixture.Must(l, os.Symlink("x", l.path(fmt.Sprintf("%0255d", i))))
	}
	_, err := l.survey()
	wantUnpackable(t, err, "too many long names")
}

// TestDeepTreeIsHeld: a tree made with relative calls can be deeper than any path the kernel
// accepts.
func TestDeepTreeIsHeld(t *testing.T) {
	l := newUsualLab(t)
	at := l.episode
	root, err := os.OpenRoot(at)
	fixture.Must(l, err)
	for range 300 {
		fixture.Must(l, root.Mkdir(strings.Repeat("d", 20), 0o755))
		next, err := root.OpenRoot(strings.Repeat("d", 20))
		fixture.Must(l, err)
		fixture.Must(l, root.Close())
		root = next
	}
	fixture.Must(l, root.Close())
	_, err = l.survey()
	wantUnpackable(t, err, "lies deeper than 64 directories")
}

// TestUnreadableIsHeld. The thread gives up root's rights on files, because modes do not stop
// root.
func TestUnreadableIsHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		path string
		mode os.FileMode
	}{{"file", "telemetry.csv", 0}, {"directory", "telemetry", 0}, {"directory without x", "telemetry", 0o444}} {
		t.Run(c.name, func(t *testing.T) {
			l := newUsualLab(t)
			fixture.Must(l, os.Chmod(l.path(c.path), c.mode))
			defer os.Chmod(l.path(c.path), 0o755)
			fixture.Must(l, os.Chmod(filepath.Dir(l.parent), 0o755))
			fixture.Must(l, os.Chmod(l.parent, 0o755))
			tree := l.tree(archive.Limits{})
			if os.Getuid() == 0 {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				unix.Setfsuid(65534)
				defer unix.Setfsuid(0)
			}
			s, err := tree.Survey(t.Context())
			if err == nil {
				err = archive.NewPacker().Pack(t.Context(), &bytes.Buffer{}, tree, s)
			}
			wantUnpackable(t, err, c.path)
			wantUnpackable(t, err, "give the shipper's user read access")
		})
	}
}

// TestSwapsNeverLeadOutside: while a file is continuously replaced by a link out of the tree, a
// FIFO, a directory and itself, Pack does not block, and what it writes contains no secret,
// whether it succeeds or not.
func TestSwapsNeverLeadOutside(t *testing.T) {
	l := newUsualLab(t)
	secret := strings.Repeat("SECRET", 100)
	outside := filepath.Join(l.parent, "outside")
	fixture.Must(l, os.Mkdir(outside, 0o755))
	fixture.Must(l, os.WriteFile(filepath.Join(outside, "victim"), []byte(secret), 0o644))
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() { l.swapPaths(stop, outside) })
	defer swapper.Wait()
	defer close(stop)

	tree := l.tree(archive.Limits{})
	packer := archive.NewPacker()
	outcomes := map[string]int{}
	for range 1500 {
		s, err := tree.Survey(t.Context())
		if err == nil {
			var b bytes.Buffer
			err = packer.Pack(t.Context(), &b, tree, s)
			if bytes.Contains(decodePrefix(b.Bytes()), []byte("SECRET")) {
				t.Fatal("the archive holds what lies outside")
			}
		}
		switch {
		case err == nil:
			outcomes["packed"]++
		case errors.Is(err, archive.ErrChanged):
			outcomes["changed"]++
		default:
			t.Fatal(err)
		}
	}
	if outcomes["changed"] == 0 {
		t.Errorf("the swapper never came between: %v", outcomes)
	}
	t.Log(outcomes)
}

// swapPaths replaces swap/victim, and swap itself, with things that must not be opened.
func (l *lab) swapPaths(stop chan struct{}, outside string) {
	file, dir := l.path("swap/victim"), l.path("swap")
	os.Mkdir(dir, 0o755)
	steps := []func(){
		func() { os.WriteFile(file, []byte(strings.Repeat("harmle", 100)), 0o644) },
		func() { os.Remove(file); os.Symlink(filepath.Join(outside, "victim"), file) },
		func() { os.Remove(file); syscall.Mkfifo(file, 0o644) },
		func() { os.Remove(file); os.Mkdir(file, 0o755) },
		func() { os.Remove(file); os.RemoveAll(dir); os.Symlink(outside, dir) },
		func() { os.Remove(dir); os.Mkdir(dir, 0o755) },
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
			steps[i%len(steps)]()
		}
	}
}

// decodePrefix returns what can be decoded of an archive, which may be truncated.
func decodePrefix(b []byte) []byte {
	var all bytes.Buffer
	for m, err := range archive.Read(bytes.NewReader(b)) {
		if err != nil {
			break
		}
		all.ReadFrom(m.Content)
	}
	return all.Bytes()
}
