package labtest_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// Folders that are mounts of one file system: everything works except moves from one to
// another.

// bindMount makes a directory a mount of its own.
func bindMount(t *testing.T, path string) {
	t.Helper()
	fixture.RequireRoot(t)
	fixture.Must(t, os.MkdirAll(path, 0o755))
	if err := syscall.Mount(path, path, "", syscall.MS_BIND, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
}

const twoMounts = "are on two file systems, or two mounts of one, and nothing can be moved between them"

func TestShippersFoldersMustBeOnOneMount(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"episodes", "outbox", "shipped"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			l, h := newLab(t)
			h.Set("retention.max_age", `"1h"`)   // without, the outbox may be a mount
			h.Once().Must(t, 0, labtest.Tally{}) // makes the folders
			h.Run("check").MustExit(t, 0)
			bindMount(t, h.Path("data", folder))
			h.Episode("run-1")
			d := h.Launch()
			if code := d.Wait(t); code != 2 {
				t.Errorf("exit code %d of the daemon, want 2", code)
			}
			for what, said := range map[string]string{
				"daemon":       d.Output(),
				"--once":       h.Once().Stderr,
				"check":        h.Run("check").MustExit(t, 2).Stderr,
				"check --disk": h.Run("check", "--disk").MustExit(t, 2).Stderr,
			} {
				mustContain(t, what, said, twoMounts)
				mustContain(t, what, said, h.Path("data", folder))
			}
			if h.IsShipped("run-1") {
				t.Error("run-1 was shipped")
			}
			l.Check(t)
		})
	}
}

// TestCheckLooksAtTheMountsOfWhatIsMissing: a start would create shipped_dir, and fail.
func TestCheckLooksAtTheMountsOfWhatIsMissing(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, labtest.Unstarted())
	h := l.Host("lab-01")
	h.Run("check").MustExit(t, 0)
	bindMount(t, h.Path("other"))
	h.Set("shipped_dir", `"other/shipped"`)
	said := h.Run("check").MustExit(t, 2).Stderr
	mustContain(t, "check", said, twoMounts, h.Path("other"), "lab-host.toml")
	if fixture.Exists(h.Path("other", "shipped")) {
		t.Error("it was made")
	}
}

func TestStoresFoldersMustBeOnOneMount(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"episodes", "staging", "quarantine"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			l, _ := newLab(t)
			l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, 0)
			l.Stop()
			bindMount(t, l.Path("data", folder))
			p := l.StartUnready()
			if code := p.Wait(t); code != 2 {
				t.Errorf("exit code %d of the daemon, want 2", code)
			}
			for what, said := range map[string]string{
				"daemon":       p.Output(),
				"check":        l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, 2).Stderr,
				"check --disk": l.Receiver("check", "--disk", "--config", l.Path("receiver.toml")).MustExit(t, 2).Stderr,
			} {
				mustContain(t, what, said, twoMounts)
				mustContain(t, what, said, l.Path("data", folder))
			}
		})
	}
}

// TestHostWhoseFolderIsAMountStopsNoOther: its own ping reports it, and check does.
func TestHostWhoseFolderIsAMountStopsNoOther(t *testing.T) {
	t.Parallel()
	for _, of := range []string{"episodes", "staging"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			l, bad := newLab(t)
			good := l.Host("lab-02")
			bad.Episode("run-1")
			bad.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			bindMount(t, l.Path("data", of, "lab-01"))
			mustContain(t, "check", l.Receiver("check", "--config", l.Path("receiver.toml")).MustExit(t, 2).Stderr, "nothing of host lab-01 can be stored")
			l.Restart()
			mustContain(t, "the receiver", l.Process().WaitLine(t, "host cannot be stored"), twoMounts)
			bad.Episode("run-2")
			pass := bad.Once()
			if pass.Code == 0 || bad.IsShipped("run-2") {
				t.Errorf("exit code %d, shipped: %v", pass.Code, bad.IsShipped("run-2"))
			}
			for what, says := range map[string]labtest.Result{"its ping": bad.Run("--ping"), "its pass": pass.Result, "its status": bad.Run("status", "--json")} {
				mustContain(t, what, says.Stdout+says.Stderr, "another mount than the store")
				for _, misleading := range []string{"make room", "internal-server-error"} {
					if strings.Contains(says.Stdout+says.Stderr, misleading) {
						t.Errorf("%s says %q: %s%s", what, misleading, says.Stdout, says.Stderr)
					}
				}
			}
			good.Episode("run-3")
			good.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			syscall.Unmount(l.Path("data", of, "lab-01"), syscall.MNT_DETACH)
			bad.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			l.Settled(t)
		})
	}
}
