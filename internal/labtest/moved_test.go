package labtest_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// A folder that a daemon has open is moved away, or a disk is mounted over it late.

const movedSays = "; the next start takes what is there"

// wantEndedByMove checks that a daemon ended because its directory is no longer at path.
func wantEndedByMove(t *testing.T, p *labtest.Process, path string) {
	t.Helper()
	if code := p.Wait(t); code != 1 {
		t.Errorf("exit code %d, want 1, which systemd restarts", code)
	}
	said := p.Output()
	mustContain(t, "the daemon", said, movedSays)
	// A path that leads nowhere for a moment counts as gone.
	if !strings.Contains(said, ": "+path+" is another directory than") && !strings.Contains(said, ": "+path+" is gone") {
		t.Errorf("it does not say what happened to %s:\n%s", path, said)
	}
}

// moveAway moves a directory away and makes another.
func moveAway(t *testing.T, path string) {
	t.Helper()
	fixture.Must(t, os.Rename(path, path+".x"))
	fixture.Must(t, os.Mkdir(path, 0o755))
}

// mountOver mounts a disk on a directory.
func mountOver(t *testing.T, path string) {
	t.Helper()
	fixture.RequireRoot(t)
	if err := syscall.Mount("late", path, "tmpfs", 0, ""); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() { syscall.Unmount(path, syscall.MNT_DETACH) })
}

func TestShipperFollowsTheNameOfItsFolder(t *testing.T) {
	t.Parallel()
	for what, move := range map[string]func(t *testing.T, h *labtest.Host){
		"moved":    func(t *testing.T, h *labtest.Host) { moveAway(t, h.Episodes()) },
		"late":     func(t *testing.T, h *labtest.Host) { mountOver(t, h.Path("data")) },
		"unlinked": func(t *testing.T, h *labtest.Host) { moveAway(t, h.Path("data")) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, h := newLab(t)
			h.Set("scan_interval", `"1s"`) // no event comes of a mount
			h.Episode("run-1")
			d := h.Daemon()
			h.WaitShipped("run-1")
			move(t, h)
			if what != "moved" {
				h.Forget("run-1") // it is where the folder is
				fixture.Must(t, os.MkdirAll(h.Episodes(), 0o755))
			}
			h.Episode("run-2") // where the path leads
			wantEndedByMove(t, d, h.Episodes())
			h.Daemon()
			h.WaitShipped("run-2")
		})
	}
}

// TestReceiverFollowsTheNameOfItsStore: nothing is acknowledged that goes into a store which
// was moved.
func TestReceiverFollowsTheNameOfItsStore(t *testing.T) {
	t.Parallel()
	for what, move := range map[string]func(t *testing.T, l *labtest.Lab){
		"moved": func(t *testing.T, l *labtest.Lab) { moveAway(t, l.Path("data")) },
		"late":  func(t *testing.T, l *labtest.Lab) { mountOver(t, l.Path("data")) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l, h := newLab(t)
			p := l.Process()
			move(t, l)
			h.Episode("run-1")
			if pass := h.Once(); pass.Code != 4 || h.IsShipped("run-1") {
				t.Errorf("exit code %d of a pass, want 4; shipped: %v\n%s", pass.Code, h.IsShipped("run-1"), pass.Stderr)
			}
			wantEndedByMove(t, p, l.Path("data"))
			l.Start()
			h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			l.Settled(t)
		})
	}
}
