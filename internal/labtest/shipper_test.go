package labtest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The invariants of the lab host.

func TestSealOnce(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	sealed := fixture.ReadFile(t, h.Outbox("run-1.tar.zst"))
	l.Check(t)

	// What an installer does to a backlog, with a restart after each change.
	later := time.Now().Add(time.Hour)
	for name, change := range map[string]func(path string) error{
		"touch": func(path string) error { return os.Chtimes(path, later, later) },
		"chown": func(path string) error { return os.Lchown(path, os.Getuid(), os.Getgid()) },
		"chmod": func(path string) error { return os.Chmod(path, 0o600) },
	} {
		if err := change(h.Episodes("run-1", "telemetry.jsonl")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
		if fixture.ReadFile(t, h.Outbox("run-1.tar.zst")) != sealed {
			t.Fatalf("the sealed bytes changed after %s", name)
		}
	}
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if fixture.ReadFile(t, l.Archive("lab-01", "run-1")) != sealed {
		t.Error("other bytes are stored than were sealed")
	}
	l.Settled(t)
}

func TestChownAloneDoesNotHold(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	for _, path := range []string{"", "meta.json", "net", "net/flows.csv", "done.marker"} {
		fixture.Must(t, os.Lchown(h.Episodes("run-1", path), 4711, 4711))
	}
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestEpisodeChangedAfterSealingIsHeldUntilAccepted(t *testing.T) {
	t.Parallel()
	changes := map[string]func(dir string) error{
		"appended": func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "telemetry.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("late\n")
				f.Close()
			}
			return err
		},
		"added":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), nil, 0o644) },
		"removed": func(dir string) error { return os.Remove(filepath.Join(dir, "empty.log")) },
		"same-size": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "net/flows.csv"), []byte("ts,src,dst\n2,10.0.0.1,10.0.0.2\n"), 0o644)
		},
		"retyped": func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "empty.log")); err != nil {
				return err
			}
			return os.Symlink("nowhere", filepath.Join(dir, "empty.log"))
		},
	}
	l, h := newLab(t)
	for name := range changes {
		h.Episode(name)
	}
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 5, Transient: 5})
	for name, change := range changes {
		h.Change(name, func(dir string) {
			fixture.Must(t, change(dir))
		})
	}
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 3, labtest.Tally{Scanned: 5, Held: 5})
	l.Check(t)
	for name := range changes {
		if reason, _ := readHold(t, h, name); reason != "changed" {
			t.Errorf("%s is held for the reason %q, want changed", name, reason)
		}
		if h.IsShipped(name) {
			t.Errorf("%s was retired although it had changed", name)
		}
	}
	h.Run("retry", "appended").MustExit(t, 0)
	h.Once().Must(t, 3, labtest.Tally{Scanned: 5, Held: 5}) // a retry does not accept the change
	for name := range changes {
		h.Run("retry", "--accept", name).MustExit(t, 0)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 5, AlreadyPresent: 5})
	l.Settled(t)
}

// TestChangedEpisodeIsKeptUnderASecondName: with the receipt that was recorded when it was held, and
// without it, by asking the receiver.
func TestChangedEpisodeIsKeptUnderASecondName(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	packed := labtest.ReadTree(t, h.Episodes("run-1"))
	fixture.Must(t, os.WriteFile(h.Episodes("run-1", "late.csv"), []byte("1\n"), 0o644))
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Held: 1})
	var held struct {
		Digest    string `json:"sha256"`
		Delivered string `json:"delivered_sha256"`
	}
	if err := json.Unmarshal([]byte(h.Run("held", "--json").Stdout), &held); err != nil || held.Delivered == "" || held.Delivered != held.Digest {
		t.Fatalf("the hold says %+v, %v", held, err)
	}
	text := fixture.ReadFile(t, h.Outbox("run-1.held"))
	older := strings.Replace(text, "delivered_sha256", "nobody_knows", 1) // as an older shipper left it
	fixture.Must(t, os.WriteFile(h.Outbox("run-1.held"), []byte(older), 0o640))
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Run("retry", "--beside", "run-1").MustExit(t, 4)
	if fixture.ReadFile(t, h.Outbox("run-1.held")) != older || len(h.Run("held", "--json").Stdout) == 0 {
		t.Error("a receiver that cannot be asked changed something")
	}
	l.Proxy.Always(labtest.Fault{})
	h.Run("retry", "--beside", "run-1").MustExit(t, 0)
	other := "run-1.conflict-" + held.Digest[:8]
	h.Forget("run-1")
	h.Note(other, h.Episodes(other))
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Check(t)
	if got := l.RowOf(t, "lab-01", "run-1").SHA256; got != held.Digest {
		t.Errorf("the receiver has %s of run-1, want %s", got, held.Digest)
	}
	if _, late := packed["late.csv"]; late || !h.IsShipped(other) {
		t.Errorf("%s is not shipped", other)
	}
}

func TestNameTakenInShippedGetsASuffix(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	for range 2 {
		copyTree(t, h.Shipped("run-1"), h.Episodes("run-1"))
		h.Note("run-1", h.Episodes("run-1"))
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
		l.Settled(t)
	}
	if !fixture.Exists(h.Shipped("run-1~2")) || !fixture.Exists(h.Shipped("run-1~3")) {
		t.Error("the second and third run-1 have no suffix")
	}
}

func TestOneShipperAStateDirectory(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	d := h.Daemon()
	h.Episode("run-1")
	h.WaitShipped("run-1")
	for _, loser := range []labtest.Result{h.Once().Result, h.Run()} {
		if loser.Code != 5 {
			t.Errorf("exit code %d of the second shipper, want 5\n%s", loser.Code, loser.Stderr)
		}
		mustContain(t, "the loser", loser.Stderr, fmt.Sprintf("pid %d (shipper)", d.Pid()))
	}
	h.Run("status").MustExit(t, 0) // which needs no lock
	d.Stop(t)
	h.WaitEmpty()
	l.Settled(t)
}

func TestHostsFloorStopsPackingAndLosesNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Set("min_free", `"1PiB"`)
	p := h.Once()
	if p.Code == 0 || p.Tally != (labtest.Tally{Scanned: 2, Transient: 2}) {
		t.Errorf("exit code %d, %+v", p.Code, p.Tally)
	}
	mustContain(t, "the log", p.Stderr, "min_free")
	wantNoHolds(t, h)
	left, err := filepath.Glob(h.Outbox("*.tar.zst*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the outbox: %q (%v)", left, err)
	}
	l.Check(t)
	h.Set("min_free", `"1MiB"`)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	l.Settled(t)
}

func TestPackingContinuesDuringAnOutage(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Stop()
	d := h.Daemon()
	for i := range 5 {
		h.Episode(fmt.Sprintf("run-%d", i))
	}
	for i := range 5 {
		labtest.Eventually(t, "it is packed", func() bool { return fixture.Exists(h.Outbox(fmt.Sprintf("run-%d.tar.zst", i))) })
	}
	d.Stop(t)
	l.Check(t)
	l.Start()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 5, Shipped: 5})
	l.Settled(t)
}

func TestEntryWithoutItsEpisodeIsStillDelivered(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	l.Proxy.Always(labtest.Fault{})
	if err := os.Rename(h.Episodes("run-1"), h.Shipped("run-1")); err != nil { // as if a crash came here
		t.Fatal(err)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestFoldersMustShareAFileSystem(t *testing.T) {
	t.Parallel()
	var tmp, shm syscall.Stat_t
	l, h := newLab(t)
	if syscall.Stat(l.Dir, &tmp) != nil || syscall.Stat("/dev/shm", &shm) != nil || tmp.Dev == shm.Dev {
		t.Skip("no second file system")
	}
	other, err := os.MkdirTemp("/dev/shm", "labtest-*")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { os.RemoveAll(other) })
	h.Episode("run-1")
	h.Set("shipped_dir", fmt.Sprintf("%q", other))
	if p := h.Once(); p.Code != 2 || !strings.Contains(p.Stderr, "two file systems") {
		t.Errorf("exit code %d: %s", p.Code, p.Stderr)
	}
	l.Check(t)
}
