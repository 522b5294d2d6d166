package shipper_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
)

// mountAt mounts a file system on an episode's folder until the test ends.
func (l *lab) mountAt(name episode.Name, fs, source string, flags uintptr, options string) {
	l.Helper()
	dir := l.path("episodes", string(name))
	fixture.Must(l, os.MkdirAll(dir, 0o755))
	if err := unix.Mount(source, dir, fs, flags, options); err != nil {
		fixture.RequireMount(l, err)
	}
	l.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// wantUnmovable checks that the finished run-1 is held with a remedy that works, and is not
// lost.
func wantUnmovable(l *lab, remedy func()) {
	l.Helper()
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Held: 1})
	h := l.held()["run-1"]
	if h.Reason != outbox.Unpackable || !strings.Contains(h.Cause, "cp -a") {
		l.Errorf("held as %+v", h)
	}
	if told := l.logs.linesContaining("ERROR held an episode"); len(told) != 1 {
		l.Errorf("the log says %q", told)
	}
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	remedy()
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false))
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
}

// TestAnEpisodeThatIsAMountIsHeld, whether another file system is mounted or another part of
// this one.
func TestAnEpisodeThatIsAMountIsHeld(t *testing.T) {
	for what, mount := range map[string]func(l *lab){
		"tmpfs": func(l *lab) { l.mountAt("run-1", "tmpfs", "none", 0, "size=1m") },
		"bind": func(l *lab) {
			elsewhere := l.path("elsewhere")
			fixture.Must(l, os.Mkdir(elsewhere, 0o755))
			l.mountAt("run-1", "", elsewhere, unix.MS_BIND, "")
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			mount(l)
			if st, err := os.Stat(l.path("episodes")); err != nil || !st.IsDir() {
				t.Fatal(err)
			}
			fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o755))
			fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
			if st := l.inspectStatus(); st.Unfinished != 1 || st.Waiting != 0 { // without a marker it is like any other
				t.Errorf("status shows %+v", st)
			}
			l.finishEpisodes("run-1", "run-2")
			dir := l.path("episodes", "run-1")
			wantUnmovable(l, func() {
				fixture.Must(l, exec.Command("cp", "-a", dir, l.path("copy")).Run())
				fixture.Must(l, unix.Unmount(dir, 0))
				fixture.Must(l, os.Remove(dir))
				fixture.Must(l, os.Rename(l.path("copy"), dir))
			})
		})
	}
}

// TestASubvolumeIsHeld: it looks like a directory, is on another device, and is not a mount.
func TestASubvolumeIsHeld(t *testing.T) {
	dir := mountBtrfs(t)
	l := newLabAt(t, dir)
	run := l.path("episodes", "run-1")
	if out, err := exec.Command("btrfs", "subvolume", "create", run).CombinedOutput(); err != nil {
		t.Log(string(out))
		fixture.RequireMount(t, err)
	}
	l.finishEpisodes("run-1", "run-2")
	wantUnmovable(l, func() {
		fixture.Must(l, exec.Command("cp", "-a", run, l.path("copy")).Run())
		fixture.Must(l, exec.Command("btrfs", "subvolume", "delete", run).Run())
		fixture.Must(l, os.Rename(l.path("copy"), run))
	})
}

// An episode is mounted over after it was packed: the copy stays until an operator decides.
func TestAMountOverAPackedEpisodeIsHeld(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	l.mountAt("run-1", "tmpfs", "none", 0, "size=1m")
	fixture.WriteFile(l, l.path("episodes", "run-1", episode.Marker), "")
	if tally, _ := l.runOnce(); tally != (shipper.Tally{Scanned: 1, Held: 1}) {
		t.Errorf("the pass came to %v\n%s", tally, l.logs)
	}
	fixture.Must(l, unix.Unmount(l.path("episodes", "run-1"), 0))
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
}

// TestWhatNeverShipsIsShown, and logged once: a marker of the wrong type, a link, a file.
func TestWhatNeverShipsIsShown(t *testing.T) {
	inBubble(t, func(l *lab) {
		mark := func(name string) string {
			fixture.WriteFile(l, l.path("episodes", name, "meta.json"), "{}")
			return l.path("episodes", name, episode.Marker)
		}
		fixture.Must(l, os.Mkdir(mark("folder"), 0o755))
		fixture.Must(l, os.Symlink("meta.json", mark("link")))
		fixture.Must(l, unix.Mkfifo(mark("fifo"), 0o644))
		fixture.Must(l, os.Mkdir(mark("esc\x1b[31m"), 0o755))
		mark("young")
		fixture.Must(l, os.Symlink("young", l.path("episodes", "latest\n")))
		fixture.WriteFile(l, l.path("episodes", "README"), "")
		l.finishEpisodes("good")
		_, stop := l.startDaemon()
		time.Sleep(time.Hour)
		st := l.inspectStatus()
		got := map[string]string{}
		for _, s := range st.Strays {
			got[s.Entry] = s.Reason
		}
		for entry, part := range map[string]string{
			"folder": "its done.marker is a folder", "link": "its done.marker is a link", "fifo": "its done.marker is not a regular file",
			`"latest\n"`: "is a link", "README": "is a file",
		} {
			if !strings.Contains(got[entry], part) {
				l.Errorf("%s is shown as %q, want %q", entry, got[entry], part)
			}
		}
		if st.StraysTotal != 5 || st.Unfinished != 2 { // young, and the one without a name
			l.Errorf("%d strays, %d unfinished: %+v", st.StraysTotal, st.Unfinished, st.Strays)
		}
		if _, err := json.Marshal(st); err != nil {
			l.Error(err)
		}
		if n := len(l.logs.linesContaining("WARN entry never ships")); n != 3 {
			l.Errorf("%d lines in the log in an hour, want 3: %q", n, l.logs.linesContaining("never ships"))
		}
		// It needs nothing but a correct marker.
		fixture.Must(l, os.Remove(l.path("episodes", "folder", episode.Marker)))
		fixture.WriteFile(l, l.path("episodes", "folder", episode.Marker), "")
		time.Sleep(time.Minute)
		if !fixture.Exists(l.path("shipped", "folder")) {
			l.Errorf("mended, it is not shipped\n%s", l.logs)
		}
		fixture.Must(l, stop())
	})
}

// TestStatusSaysForHowLongNothingFinished by the kernel's clock: a marker may have any time.
func TestStatusSaysForHowLongNothingFinished(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o755))
	fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
	if st := l.inspectStatus(); !st.LastFinished.IsZero() || st.Oldest != nil || st.Unfinished != 0 {
		t.Errorf("of nothing: %+v", st.Progress)
	}
	before := time.Now().Truncate(time.Second)
	fixture.WriteFile(l, l.path("episodes", "old", "meta.json"), "{}")
	for tick := ""; tick == "" || changeTime(l, "new").Equal(changeTime(l, "old")); tick = "x" { // until the kernel's clock has ticked
		fixture.Must(l, os.RemoveAll(l.path("episodes", "new")))
		time.Sleep(time.Second / 10)
		fixture.WriteFile(l, l.path("episodes", "new", "meta.json"), "{}")
	}
	l.finishEpisodes("run-1")
	for _, at := range []time.Time{time.Unix(1<<40, 0), time.Unix(-1<<40, 0)} {
		ts := unix.NsecToTimespec(0)
		ts.Sec = at.Unix()
		fixture.Must(l, unix.UtimesNanoAt(unix.AT_FDCWD, l.path("episodes", "run-1", episode.Marker), []unix.Timespec{ts, ts}, 0))
		if st := l.inspectStatus(); st.LastFinished.Before(before) || st.LastFinished.After(time.Now()) {
			t.Errorf("a marker of %d was finished at %v, want about %v", at.Unix(), st.LastFinished, before)
		}
	}
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	st := l.inspectStatus()
	if st.LastFinished.Before(before) || st.LastFinished.After(time.Now()) {
		t.Errorf("shipped, it was finished at %v, want about %v", st.LastFinished, before)
	}
	if st.Unfinished != 2 || st.Oldest == nil || st.Oldest.Entry != "old" || st.Oldest.ChangedAt.Before(before) {
		t.Errorf("unfinished: %d, the oldest %+v", st.Unfinished, st.Oldest)
	}
}

// changeTime returns the time of the last change of a folder, in seconds.
func changeTime(l *lab, name string) time.Time {
	var st unix.Stat_t
	fixture.Must(l, unix.Lstat(l.path("episodes", name), &st))
	return time.Unix(st.Ctim.Unix()).Truncate(time.Second)
}

// mountBtrfs mounts an empty btrfs until the test ends.
func mountBtrfs(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("makes a file system")
	}
	fixture.RequireTool(t, "mkfs.btrfs")
	base := t.TempDir()
	dir, image := filepath.Join(base, "disk"), filepath.Join(base, "image")
	for _, argv := range [][]string{
		{"mkdir", dir},
		{"truncate", "-s", "160M", image},
		{"mkfs.btrfs", "-q", "-d", "single", "-m", "single", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Log(string(out))
			fixture.RequireMount(t, err)
		}
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}
