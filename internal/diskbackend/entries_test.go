package diskbackend_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/scrub"
	"cis490/internal/wire"
)

// TestOneBadEntryStopsNoLoop runs the test below as a user for whom permissions count.
func TestOneBadEntryStopsNoLoop(t *testing.T) {
	const name, nobody = "TestBadEntryStopsNoLoopWithoutRoot", 65534
	fixture.RequireRoot(t)
	dir, err := os.MkdirTemp("", "receiver-test")
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	fixture.Must(t, err)
	binary, err := os.ReadFile(self)
	fixture.Must(t, err)
	child := filepath.Join(dir, "receiver.test") // go test keeps it where other users have no access
	fixture.Must(t, errors.Join(os.Chmod(dir, 0o755), os.WriteFile(child, binary, 0o755)))
	cmd := exec.Command(child, "-test.run=^"+name+"$", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+name) {
		t.Errorf("%v\n%s", err, out)
	}
}

// denyAccess removes all permissions of a directory or file until the test ends.
func (l *lab) denyAccess(path string) {
	l.Helper()
	info, err := os.Stat(path)
	fixture.Must(l, err)
	fixture.Must(l, os.Chmod(path, 0))
	l.Cleanup(func() { os.Chmod(path, info.Mode().Perm()) })
}

// makeHostDir creates the directory of a host.
func (l *lab) makeHostDir(parts ...string) string {
	l.Helper()
	path := filepath.Join(append([]string{l.Data}, parts...)...)
	fixture.Must(l, os.MkdirAll(path, 0o750))
	return path
}

// newUnreadableLab returns a lab with one archive from each of two hosts, and a third host whose
// directories cannot be opened.
func newUnreadableLab(t *testing.T, log *strings.Builder) *lab {
	t.Helper()
	l := newLab(t, func(c *diskbackend.Config) { c.HostBytes = 1 << 30 })
	l.WantReceipt(key("lab-01", "a"), packNoise(1000, 1), wire.Stored)
	l.WantReceipt(key("lab-02", "b"), packNoise(1000, 2), wire.Stored)
	l.WantReceipt(key("lab-00", "c"), packNoise(1000, 3), wire.Stored)
	l.stop()
	l.denyAccess(l.makeHostDir("episodes", "lab-00"))
	l.denyAccess(l.makeHostDir("staging", "lab-00"))
	l.denyAccess(l.makeHostDir("quarantine", "lab-00"))
	if log != nil {
		l.log = slog.NewTextHandler(log, nil)
	}
	return l
}

// Each loop meets an entry that cannot be opened, and still handles the others.
func TestBadEntryStopsNoLoopWithoutRoot(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may open all; TestOneBadEntryStopsNoLoop runs it")
	}
	t.Run("recovery", recoverBesideBadEntry)
	t.Run("scrub", scrubBesideBadEntry)
	t.Run("scrub of what is not listed", scrubUnlistedHost)
	t.Run("scrub from the command line", scrubOnceBesideBadEntry)
	t.Run("inventory", queryBesideBadEntry)
	t.Run("backfill and verify", fsckBesideBadEntry)
	t.Run("status", inspectBesideBadEntry)
	t.Run("status without quarantine", inspectWithoutQuarantine)
	t.Run("quota", countBesideBadEntry)
	t.Run("expiry", expireUploads)
}

func recoverBesideBadEntry(t *testing.T) {
	var log strings.Builder
	l := newUnreadableLab(t, &log)
	whole, bad := key("lab-01", "a"), key("lab-02", "b")
	fixture.Must(t, os.Link(l.StoredPath(whole), l.stagedPath(whole)))
	fixture.Must(t, os.Link(l.StoredPath(bad), l.stagedPath(bad)))
	l.denyAccess(l.StoredPath(bad))
	l.start()
	if _, err := os.Stat(l.stagedPath(whole)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the upload that could be recovered was not: %v", err)
	}
	if _, err := os.Stat(l.stagedPath(bad)); err != nil {
		t.Errorf("the other one is no longer noted: %v", err)
	}
	for _, want := range []string{"staging/lab-00", "host=lab-02 episode=b"} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("the log names %s %d times:\n%s", want, n, log.String())
		}
	}
}

func scrubBesideBadEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		l := newUnreadableLab(t, &log)
		l.denyAccess(l.StoredPath(key("lab-01", "a")))
		fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "scrub.json"), nil, 0o640))
		l.start()
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		p := l.inspect().Scrub
		if p.Objects != 2 || p.Unreadable != 1 || p.HostsUnreadable != 1 || p.Missing != 0 || p.Ended.IsZero() || !p.WholeSince.IsZero() {
			t.Errorf("got %+v", p)
		}
		got, err := l.b.Inventory(t.Context(), "lab-02", []wire.InventoryQuery{queryFor("b", packNoise(1000, 2))}, false)
		fixture.Must(t, err)
		if got[0].VerifiedAt == nil {
			t.Errorf("the last host was not reached: %+v", got)
		}
		for _, want := range []string{"cannot list stored archives", "cannot read stored archive"} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("the log says %q %d times:\n%s", want, n, log.String())
			}
		}
	})
}

func scrubUnlistedHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newUnreadableLab(t, nil)
		l.start()
		stop := l.startScrub()
		time.Sleep(10 * time.Minute)
		stop()
		if p := l.inspect().Scrub; p.HostsUnreadable != 1 || p.NotOpened != 0 || p.Ended.IsZero() || !p.WholeSince.IsZero() {
			t.Errorf("got %+v", p)
		}
	})
}

func scrubOnceBesideBadEntry(t *testing.T) {
	l := newUnreadableLab(t, nil)
	p, found := l.scrubOnce(scrub.Options{})
	if p.Objects != 2 || p.HostsUnreadable != 1 || found != "unreadable " {
		t.Errorf("got %+v, %q", p, found)
	}
}

func queryBesideBadEntry(t *testing.T) {
	l := newUnreadableLab(t, nil)
	l.start()
	l.WantReceipt(key("lab-01", "d"), packNoise(1000, 4), wire.Stored)
	l.denyAccess(l.StoredPath(key("lab-01", "a")))
	for _, readBack := range []bool{false, true} {
		claims := []wire.InventoryQuery{queryFor("a", packNoise(1000, 1)), queryFor("d", packNoise(1000, 4)), queryFor("none", nil)}
		if readBack {
			claims = claims[:1]
		}
		got, err := l.b.Inventory(t.Context(), "lab-01", claims, readBack)
		fixture.Must(t, err)
		if len(got) != len(claims) || got[0].State != wire.Present || !got[0].Unreadable || got[0].VerifiedAt != nil {
			t.Errorf("of the one that cannot be looked at: %+v", got)
		}
		if !readBack && (got[1].State != wire.Present || got[2].State != wire.Absent) {
			t.Errorf("of the others: %+v", got)
		}
	}
}

func fsckBesideBadEntry(t *testing.T) {
	l := newUnreadableLab(t, nil)
	l.truncateIndex()
	episodes, path := l.cfg.Paths()
	bad := 0
	opts := fsck.Options{EpisodesRoot: episodes, Index: path, Bad: func(error) { bad++ }}
	report, err := fsck.Backfill(t.Context(), opts)
	if err != nil || report.Written != 2 || bad != 1 {
		t.Errorf("backfill: %+v, %d bad, %v", report, bad, err)
	}
	fixture.Must(t, os.Chmod(filepath.Join(episodes, "lab-00"), 0o750))
	_, err = fsck.Backfill(t.Context(), opts)
	fixture.Must(t, err)
	fixture.Must(t, os.Chmod(filepath.Join(episodes, "lab-00"), 0))
	for _, batch := range []int{0, 1} { // rows are read before the folder, and after it
		var found []fsck.Finding
		opts.Deep, opts.Batch = true, batch
		checked, err := fsck.Verify(t.Context(), opts, func(f fsck.Finding) { found = append(found, f) })
		if err != nil || checked.Files != 2 || checked.Read != 2 || len(found) != 1 || found[0].Kind != fsck.Unreadable {
			t.Errorf("verify by %d: %+v, %+v, %v", batch, checked, found, err)
		}
	}
}

func inspectBesideBadEntry(t *testing.T) {
	l := newUnreadableLab(t, nil)
	fixture.Must(t, os.WriteFile(filepath.Join(l.makeHostDir("quarantine", "lab-01"), "a~1"), nil, 0o640))
	if st := l.inspect(); st.Quarantined != 1 || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "lab-00") {
		t.Errorf("got %+v", st)
	}
}

func inspectWithoutQuarantine(t *testing.T) {
	l := newUnreadableLab(t, nil)
	l.denyAccess(l.makeHostDir("quarantine"))
	if st := l.inspect(); st.Quarantined != 0 || len(st.Problems) != 1 || !strings.Contains(st.Problems[0], "quarantine") {
		t.Errorf("got %+v", st)
	}
}

func countBesideBadEntry(t *testing.T) {
	l := newUnreadableLab(t, nil)
	l.start()
	l.WantReceipt(key("lab-01", "e"), packNoise(1000, 5), wire.Stored)
	if _, err := l.b.Storage(t.Context(), "lab-02"); err != nil {
		t.Error(err)
	}
}

// expireUploads drops the uploads of a host whose staging folder can be opened.
func expireUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, func(c *diskbackend.Config) { c.UnfinishedAge = time.Hour })
		for _, host := range []episode.Name{"lab-00", "lab-01"} {
			k := key(string(host), "part")
			u := uploadOf(k, packNoise(1000, 1))
			_, told, err := l.b.Announce(t.Context(), u)
			fixture.Must(t, err)
			_, _, err = l.b.AppendPiece(t.Context(), host, told.ID, wire.Piece{Size: 10}, strings.NewReader("0123456789"))
			fixture.Must(t, err)
		}
		l.WantStaged(2)
		l.denyAccess(l.makeHostDir("staging", "lab-00"))
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- l.b.ExpireUploads(ctx) }()
		time.Sleep(4 * time.Hour)
		cancel()
		fixture.Must(t, <-done)
		left, err := filepath.Glob(filepath.Join(l.Data, "staging", "lab-01", "*"))
		fixture.Must(t, err)
		if len(left) != 0 {
			t.Errorf("left %q", left)
		}
	})
}
