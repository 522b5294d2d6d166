package shipper_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
)

// newExpiredLab returns a lab with retired episodes that the policy deletes, and that the receiver
// has verified.
func newExpiredLab(t testing.TB, names ...episode.Name) *lab {
	l := newLab(t)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	for _, name := range names {
		l.shipEpisodeAt(name, 3*time.Hour)
	}
	return l
}

// notedChange returns the cause noted at a retired episode, or "".
func (l *lab) notedChange(dir string) string {
	l.Helper()
	b := make([]byte, 4096)
	n, err := unix.Getxattr(l.path("shipped", dir), "user.cis490.changed", b)
	if errors.Is(err, unix.ENODATA) {
		return ""
	}
	fixture.Must(l, err)
	return string(b[25:n])
}

func TestStatusCountsWhatChangedSinceItWasShipped(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	fixture.WriteFile(l, l.path("shipped", "run-1", "analysis.txt"), "a week of work")
	l.pruneShipped(shipped.PruneOptions{})
	l.wantFiles("shipped", "run-1")
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	fixture.Must(l, err)
	if st.Changed.Count != 1 || time.Since(st.Changed.Oldest) > time.Hour {
		t.Errorf("status has %+v, want 1 changed episode", st.Changed)
	}
}

func TestTwoPruningsDoNotMeet(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	dir, err := durable.Open(l.path("outbox"))
	fixture.Must(l, err)
	defer dir.Close()
	trash, err := outbox.New(dir).OpenTrash("pid 1")
	fixture.Must(l, err)
	_, err = shipped.Prune(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.PruneOptions{Retention: l.cfg.Retention, Limit: 1, OnResult: func(shipped.PruneResult) error { return nil }})
	if _, locked := errors.AsType[*durable.LockedError](err); !locked {
		t.Errorf("got %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		d := &lab{TB: t, dir: l.dir, episodes: l.episodes, cfg: l.cfg, receiver: newReceiver(t), logs: &logRecorder{}, contents: l.contents}
		_, stop := d.startDaemon()
		time.Sleep(time.Hour)
		fixture.Must(d, stop())
		if loud := d.logs.warnings(); len(loud) > 1 { // it has no inotify
			t.Errorf("the daemon does not skip its turn in silence: %q", loud)
		}
	})
	fixture.Must(l, trash.Close())
	l.wantFiles("shipped", "run-1")
}

// trashJudged moves an episode to the trash, as a kill after its judgement leaves it.
func (l *lab) trashJudged(name string) (path string, at time.Time) {
	l.Helper()
	dir, err := durable.Open(l.path("outbox"))
	fixture.Must(l, err)
	defer dir.Close()
	trash, err := outbox.New(dir).OpenTrash("the test")
	fixture.Must(l, err)
	defer trash.Close()
	shipped, err := durable.Open(l.path("shipped"))
	fixture.Must(l, err)
	defer shipped.Close()
	d, err := trash.Discard(shipped, name)
	fixture.Must(l, err)
	defer d.Close()
	at = time.Now()
	fixture.Must(l, d.RecordJudgement(at))
	return l.path("outbox", ".trash", d.Name()), at
}

func TestAJudgedEpisodeIsDeletedFurther(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	l.trashJudged("run-1")
	at, judged := l.trashJudged("run-2")
	fixture.Must(l, os.Remove(filepath.Join(at, episode.Marker)))
	path := filepath.Join(at, "late.txt")
	for st := (unix.Stat_t{}); !time.Unix(st.Ctim.Unix()).After(judged); { // until the kernel's clock has ticked
		fixture.Must(l, os.WriteFile(path, []byte("late"), 0o644))
		fixture.Must(l, unix.Stat(path, &st))
	}
	if _, found := l.pruneShipped(shipped.PruneOptions{}); !strings.Contains(found, "interrupted deleted") || !strings.Contains(found, "run-2 interrupted kept") {
		t.Errorf("got %s, want %q in it and %q in it", found, "interrupted deleted", "run-2 interrupted kept")
	}
	l.wantFiles("shipped", "run-2")
	if b, err := os.ReadFile(l.path("shipped", "run-2", "late.txt")); err != nil || string(b) != "late" {
		t.Errorf("what came late: %q, %v", b, err)
	}
	if note := l.notedChange("run-2"); !strings.Contains(note, "late.txt") {
		t.Errorf("noted: %q", note)
	}
}

// One entry of one episode must not keep all others from being deleted.
func TestOneObstacleKeepsOneEpisode(t *testing.T) {
	fixture.RequireRoot(t)
	for what, obstruct := range map[string]func(l *lab, at string){
		"a mount": func(l *lab, at string) {
			fixture.Must(l, unix.Mount(l.TempDir(), at, "", unix.MS_BIND, ""))
			l.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
		},
		"immutable":   func(l *lab, at string) { l.setAttr(filepath.Join(at, "file"), true) },
		"append only": func(l *lab, at string) { l.setAttr(at, false) },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
			l.finishEpisodes("run-1")
			fixture.WriteFile(l, l.path("episodes", "run-1", "sub", "file"), "x")
			l.receiver.archives.storedAgo = 4 * time.Hour
			l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
			l.receiver.markVerified("run-1", time.Now())
			l.shipEpisodeAt("run-2", 3*time.Hour)
			obstruct(l, l.path("shipped", "run-1", "sub"))
			var cause string
			o := shipped.PruneOptions{Retention: l.cfg.Retention, Limit: 10, MinUnchanged: 1, OnResult: func(p shipped.PruneResult) error {
				if p.Kept != "" {
					cause = p.Kept
				}
				return nil
			}}
			report, err := shipped.Prune(context.Background(), l.cfg.DirsConfig(), l.receiver, o)
			if err != nil || report.Deleted != 1 || report.Kept != 1 {
				t.Errorf("got %+v, %v, want Deleted 1 and Kept 1", report, err)
			}
			if !strings.Contains(cause, "sub") {
				t.Errorf("the cause does not name it: %q", cause)
			}
			l.wantFiles("shipped", "run-1")
			if b, err := os.ReadFile(l.path("shipped", "run-1", "telemetry.jsonl")); err != nil || len(b) == 0 {
				t.Errorf("what it was kept with: %q, %v", b, err)
			}
		})
	}
}

// setAttr makes a file immutable, or append only.
func (l *lab) setAttr(path string, immutable bool) {
	l.Helper()
	const immutableFlag, appendFlag = 0x10, 0x20
	f, err := os.Open(path)
	fixture.Must(l, err)
	l.Cleanup(func() { f.Close() })
	flag := appendFlag
	if immutable {
		flag = immutableFlag
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flag); err != nil {
		l.Skipf("%s: the file system of the tests has no such attribute: %v", path, err)
	}
	l.Cleanup(func() { fixture.Must(l, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0)) })
}

// A file of another owner with all its names in the episode is in no archive.
func TestALeftOutFileWithoutAnotherNameIsKept(t *testing.T) {
	fixture.RequireRoot(t)
	for outside, want := range map[bool]string{false: "run-1 max_age kept", true: "run-1 max_age deleted"} {
		l := newLab(t)
		l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
		l.finishEpisodes("run-1")
		at := l.path("episodes", "run-1")
		fixture.Must(l, os.Chown(at, 4242, 4242))
		fixture.WriteFile(l, filepath.Join(at, "capture.pcap"), "only here")
		fixture.Must(l, os.Link(filepath.Join(at, "capture.pcap"), filepath.Join(at, "latest.pcap")))
		if outside {
			fixture.Must(l, os.Link(filepath.Join(at, "capture.pcap"), filepath.Join(l.dir, "capture.pcap")))
		}
		l.receiver.archives.storedAgo = 3 * time.Hour
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
		l.receiver.markVerified("run-1", time.Now())
		if _, found := l.pruneShipped(shipped.PruneOptions{}); found != want {
			t.Errorf("with a name outside: %v: %s", outside, found)
		}
	}
}

// On a full disk deletion must still work, because it frees space. The disk is small and has no
// space for another attribute.
func TestPruneWorksOnAFullDisk(t *testing.T) {
	disk := mountSmallDisk(t)
	l := newLabAt(t, disk)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	l.shipEpisodeAt("run-1", 3*time.Hour)
	l.shipEpisodeAt("run-2", 3*time.Hour)
	fillDisk(t, disk)
	if _, found := l.pruneShipped(shipped.PruneOptions{}); !strings.Contains(found, "run-1 max_age deleted") || !strings.Contains(found, "run-2 max_age deleted") {
		t.Errorf("got %s, want %q in it and %q in it", found, "run-1 max_age deleted", "run-2 max_age deleted")
	}
}

// mountSmallDisk returns a mounted ext4.
func mountSmallDisk(t *testing.T) string {
	t.Helper()
	fixture.RequireRoot(t)
	mkfs := fixture.RequireTool(t, "mkfs.ext4")
	image, at := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "at")
	for _, argv := range [][]string{
		{"truncate", "-s", "16M", image},
		{mkfs, "-q", "-m", "0", "-b", "4096", image},
		{"mkdir", at},
		{"mount", "-o", "loop", image, at},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return at
}

// fillDisk writes until there is no block left.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	fixture.Must(t, err)
	defer f.Close()
	for b := make([]byte, 4096); err == nil; {
		_, err = f.Write(b)
	}
	if err := errors.Join(f.Sync()); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// Whatever the policy is, the daemon restores at its start what a killed prune left.
func TestADaemonEndsWhatWasInterrupted(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	l.trashJudged("run-1")
	fixture.Must(l, os.Rename(l.path("shipped", "run-2"), l.path("outbox", ".trash", "run-2~X")))
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	fixture.Must(l, err)
	if st.Discarded != 2 {
		t.Errorf("status counts %d, want 2", st.Discarded)
	}
	l.cfg.Retention = shipped.RetentionConfig{}
	synctest.Test(t, func(t *testing.T) {
		d := &lab{TB: t, dir: l.dir, episodes: l.episodes, cfg: l.cfg, receiver: newReceiver(t), logs: &logRecorder{}, contents: l.contents}
		_, stop := d.startDaemon()
		time.Sleep(time.Minute)
		fixture.Must(d, stop())
	})
	l.wantFiles("shipped", "run-2")
}
