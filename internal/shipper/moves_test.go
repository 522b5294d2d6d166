package shipper_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/hostdir"
	"cis490/internal/outbox"
	"cis490/internal/shipper"
)

// mountOrSkip mounts something, and skips the test where that is not possible.
func mountOrSkip(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		if os.Getenv("CI") != "" && os.Getuid() == 0 {
			t.Fatal(err)
		}
		t.Skipf("needs root and mounts: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(target, syscall.MNT_DETACH) })
}

// TestFoldersOfTwoMountsAreRefused: they are on one file system, so packing and sending work,
// and only the last step fails.
func TestFoldersOfTwoMountsAreRefused(t *testing.T) {
	for _, folder := range []string{"episodes", "shipped", "outbox", "outbox/.trash"} {
		t.Run(folder, func(t *testing.T) {
			l := newLab(t)
			l.cfg.Retention.MaxAge = config.Duration(time.Hour)
			fixture.Must(l, l.openShipper().Close()) // makes them
			fixture.Must(l, hostdir.CheckMoves(l.cfg.DirsConfig()))
			mountOrSkip(t, l.dir+"/"+folder, l.dir+"/"+folder, "", syscall.MS_BIND, "")
			_, err := shipper.New(l.cfg, l.receiver, "", discard)
			for what, err := range map[string]error{
				"start": err, "check": hostdir.CheckMoves(l.cfg.DirsConfig()),
			} {
				_, named := errors.AsType[*hostdir.ConfigError](err)
				separate, ok := errors.AsType[*durable.SeparateError](err)
				if !named || !ok || !strings.HasPrefix(separate.From+separate.To, l.dir) {
					t.Errorf("%s: got %v", what, err)
				}
			}
			l.wantEmpty("episodes")
			l.wantEmpty("shipped")
		})
	}
}

// TestAFolderThatIsASubvolumeIsRefused: a mount of btrfs has several device numbers, and the
// kernel moves no folder from one to another.
func TestAFolderThatIsASubvolumeIsRefused(t *testing.T) {
	dir := mountBtrfs(t)
	for _, folder := range []string{"episodes", "outbox", "shipped"} {
		l := newLabOn(t, dir)
		fixture.Must(l, exec.Command("btrfs", "subvolume", "create", l.path(folder)).Run())
		fixture.Must(l, os.MkdirAll(l.path("episodes"), 0o755))
		fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
		fixture.Must(l, os.MkdirAll(l.path("outbox"), 0o755))
		l.cfg.Retention.MaxAge = config.Duration(time.Hour)
		check := hostdir.CheckMoves(l.cfg.DirsConfig())
		_, err := shipper.New(l.cfg, l.receiver, "", discard)
		for what, err := range map[string]error{"start": err, "check": check} {
			if _, named := errors.AsType[*hostdir.ConfigError](err); !named {
				t.Errorf("%s, %s: got %v", folder, what, err)
			}
		}
		l.wantEmpty("episodes")
		l.wantEmpty("shipped")
		fixture.Must(l, exec.Command("btrfs", "subvolume", "delete", l.path(folder)).Run())
		fixture.Must(l, errors.Join(os.RemoveAll(l.path("episodes")), os.RemoveAll(l.path("shipped")), os.RemoveAll(l.path("outbox"))))
	}
}

// TestAFolderThatIsALinkToNothingIsNamed: it is neither created nor followed.
func TestAFolderThatIsALinkToNothingIsNamed(t *testing.T) {
	for _, folder := range []string{"episodes", "outbox", "shipped"} {
		l := newLabOn(t, fixture.MemoryDir(t)) // the others are missing
		fixture.Must(l, os.Symlink("nowhere", l.path(folder)))
		_, err := shipper.New(l.cfg, l.receiver, "", discard)
		for what, err := range map[string]error{"start": err, "check": hostdir.CheckMoves(l.cfg.DirsConfig())} {
			if _, named := errors.AsType[*hostdir.ConfigError](err); !named || !strings.Contains(err.Error(), l.path(folder)+" is a link to nothing") {
				t.Errorf("%s, %s: got %v", folder, what, err)
			}
		}
	}
}

// TestTrashOfAnotherMountIsAWarning as long as nothing is deleted: older versions allowed it.
func TestTrashOfAnotherMountIsAWarning(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, os.Mkdir(l.path("outbox"), 0o755))
	mountOrSkip(t, l.path("outbox"), l.path("outbox"), "", syscall.MS_BIND, "")
	l.finishEpisodes("run-1")
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	if len(l.logs.linesContaining("retired episodes cannot be deleted")) != 1 {
		t.Errorf("no warning\n%s", l.logs)
	}
	fixture.Must(l, hostdir.CheckMoves(l.cfg.DirsConfig()))
}

// wantEmpty checks that a folder has no entries, hidden or not.
func (l *lab) wantEmpty(folder string) {
	l.Helper()
	entries, err := os.ReadDir(l.path(folder))
	fixture.Must(l, err)
	if len(entries) > 0 {
		l.Errorf("%s holds %v", folder, entries)
	}
}

// TestFoldersThatAreNotThereAreNoAlarm: the start creates them.
func TestFoldersThatAreNotThereAreNoAlarm(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, hostdir.CheckMoves(l.cfg.DirsConfig()))
	fixture.Must(l, l.openShipper().Close())
	l.wantEmpty("episodes")
	l.wantEmpty("shipped")
}

// TestEpisodeOfALowerLayerIsHeld: no probe detects that a directory of a lower layer cannot be
// moved.
func TestEpisodeOfALowerLayerIsHeld(t *testing.T) {
	dir := fixture.MemoryDir(t)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		fixture.Must(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	below := newLabAt(t, dir+"/lower")
	below.finishEpisodes("run-1")
	mountOrSkip(t, "overlay", dir+"/merged", "overlay", 0, "redirect_dir=off,lowerdir="+dir+"/lower,upperdir="+dir+"/upper,workdir="+dir+"/work")
	l := newLabAt(t, dir+"/merged")
	l.contents = below.contents
	l.finishEpisodes("run-2")
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Held: 1})
	b, err := os.ReadFile(l.path("outbox", "run-1.held"))
	fixture.Must(l, err)
	if held := string(b); !strings.Contains(held, string(outbox.Stuck)) || !strings.Contains(held, "lower layer of an overlay") ||
		!strings.Contains(held, "no other try helps before that") {
		t.Errorf("held as %s", held)
	}
	// What the cause advises.
	fixture.Must(l, os.CopyFS(l.path("episodes", "run-1-copy"), os.DirFS(l.path("episodes", "run-1"))))
	fixture.Must(l, errors.Join(os.RemoveAll(l.path("episodes", "run-1")), os.Rename(l.path("episodes", "run-1-copy"), l.path("episodes", "run-1"))))
	fixture.Must(l, os.Remove(l.path("outbox", "run-1.held")))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	l.wantFiles("shipped", "run-1", "run-2")
}
