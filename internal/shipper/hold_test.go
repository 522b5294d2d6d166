package shipper_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/backlog"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// TestOutcomesCountAttemptsAndNotScans: every scan finds a held episode again.
func TestOutcomesCountAttemptsAndNotScans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.finishEpisodes("run-1", "run-2", "run-3")
		theirs, _, _ := digest.Of(strings.NewReader("another archive"))
		l.receiver.stored["run-1"] = wire.Receipt{Host: host, Episode: "run-1", Digest: theirs}
		s, stop := l.startDaemon()
		time.Sleep(time.Hour) // 120 scans
		got := s.Outcomes()
		fixture.Must(t, stop())
		if got.Shipped != 2 || got.Held != 1 || got.Failed != 0 || got.AlreadyPresent != 0 || got.DeliveredBytes == 0 {
			t.Errorf("got %+v", got)
		}
	})
}

// A conflict needs an operator: both digests are shown, and nothing is sent again until it is
// released, not even after a restart.
func TestAConflictIsHeldUntilAnOperatorRetries(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	theirs, _, _ := digest.Of(strings.NewReader("another archive"))
	l.receiver.stored["run-1"] = wire.Receipt{Host: host, Episode: "run-1", Digest: theirs}
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Conflicts: 1})
	for range 3 { // each pass is a restart
		l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	}
	if n := l.receiver.attemptsOf("run-1"); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	h := l.held()["run-1"]
	if h.Reason != outbox.Conflict || h.Stored == nil || *h.Stored != theirs || h.Digest == nil || *h.Digest != l.receiver.sent["run-1"] || h.HeldAt.IsZero() {
		t.Errorf("status shows %+v", h)
	}
	l.wantFiles("episodes", "run-1")
	l.wantFiles("outbox", "run-1.held", "run-1.tar.zst")

	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false))
	l.wantOnce(shipper.Tally{Scanned: 1, Conflicts: 1})
	if n := l.receiver.attemptsOf("run-1"); n != 2 {
		t.Errorf("after a retry it was sent %d times in all", n)
	}
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false))
	delete(l.receiver.stored, "run-1") // the operator has resolved it on the receiver
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	l.wantFiles("outbox")
}

func TestPermanentFailureIsHeldWithItsCause(t *testing.T) {
	for what, test := range map[string]struct {
		spoil  func(l *lab)
		reason outbox.Reason
		cause  string
		entry  bool
	}{
		"empty meta.json": {func(l *lab) { fixture.WriteFile(l, l.path("episodes", "run-1", "meta.json"), "") }, outbox.Unpackable, "meta.json", false},
		"too many files":  {func(l *lab) { l.cfg.Limits.EpisodeEntries = 2 }, outbox.Unpackable, "2", false},
		"too large":       {func(l *lab) { l.cfg.Limits.EpisodeBytes = 3 }, outbox.Unpackable, "3", false},
		"refused": {func(l *lab) {
			l.receiver.before = func(_ context.Context, u wire.Upload) error {
				if u.Key.Name == "run-1" {
					return wire.Refuse(wire.TooLarge, "no more than 1 GiB")
				}
				return nil
			}
		}, outbox.Refused, "no more than 1 GiB", true},
		"other bytes, and the entry is intact": {func(l *lab) {
			l.receiver.before = func(_ context.Context, u wire.Upload) error {
				if u.Key.Name == "run-1" {
					return wire.Refuse(wire.DigestMismatch, "got something else")
				}
				return nil
			}
		}, outbox.Refused, "got something else", true},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1")
			fixture.WriteFile(l, l.path("episodes", "run-2", episode.Marker), "") // fits into any limit above
			test.spoil(l)
			l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Held: 1})
			h := l.held()["run-1"]
			if h.Reason != test.reason || !strings.Contains(h.Cause, test.cause) || (h.Digest != nil) != test.entry {
				t.Errorf("status shows %+v", h)
			}
			l.receiver.before = nil
			l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
			if got := fixture.Exists(l.path("outbox", "run-1.tar.zst")); got != test.entry {
				t.Errorf("there is an entry: %v", got)
			}
		})
	}
}

// The entry is a copy: if it is corrupt, and the episode is complete, it is packed again. If
// the receiver reports corruption, the shipper checks the entry first.
func TestACorruptEntryIsPackedAgain(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	l.packOnly("run-1")
	l.corruptEntry("run-1")
	l.receiver.repacked["run-1"] = true
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Transient: 1})
	l.wantFiles("outbox")
	if warned := l.logs.linesContaining("was corrupt"); len(warned) != 1 {
		t.Errorf("the log says %q of it", warned)
	}
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
}

// Without the episode, the corrupt entry is the only copy: nothing is dropped.
func TestACorruptEntryWithoutItsEpisodeIsHeld(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	l.corruptEntry("run-1")
	fixture.Must(l, os.Rename(l.path("episodes", "run-1"), l.path("shipped", "run-1")))
	delete(l.contents, "run-1")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	l.wantFiles("outbox", "run-1.held", "run-1.tar.zst")
}

// packOnly packs an episode and leaves it there.
func (l *lab) packOnly(n episode.Name) {
	l.Helper()
	s := l.openShipper()
	defer s.Close()
	fixture.Must(l, s.PackOnly(n))
}

// corruptEntry flips a bit of an entry.
func (l *lab) corruptEntry(n episode.Name) {
	l.Helper()
	path := l.path("outbox", string(n)+".tar.zst")
	b, err := os.ReadFile(path)
	fixture.Must(l, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	fixture.Must(l, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{b[len(b)/2] ^ 1}, int64(len(b)/2))
	fixture.Must(l, err)
}

// I8: what is retired is what was packed.
func TestAChangeAfterPackingIsSeen(t *testing.T) {
	file := func(l *lab, parts ...string) string {
		return l.path(append([]string{"episodes", "run-1"}, parts...)...)
	}
	for what, change := range map[string]func(l *lab){
		"appended": func(l *lab) { fixture.WriteFile(l, file(l, "telemetry.jsonl"), l.contents["run-1"]+"more") },
		"other bytes, same size and times": func(l *lab) {
			var st unix.Stat_t
			fixture.Must(l, unix.Stat(file(l, "telemetry.jsonl"), &st))
			fixture.WriteFile(l, file(l, "telemetry.jsonl"), strings.ToUpper(l.contents["run-1"]))
			fixture.Must(l, unix.UtimesNanoAt(unix.AT_FDCWD, file(l, "telemetry.jsonl"), []unix.Timespec{st.Atim, st.Mtim}, 0))
		},
		"added":      func(l *lab) { fixture.WriteFile(l, file(l, "late.csv"), "1") },
		"added deep": func(l *lab) { fixture.WriteFile(l, file(l, "a", "b", "late.csv"), "1") },
		"removed":    func(l *lab) { fixture.Must(l, os.Remove(file(l, "meta.json"))) },
		"a link now": func(l *lab) {
			fixture.Must(l, os.Remove(file(l, "meta.json")))
			fixture.Must(l, os.Symlink("x", file(l, "meta.json")))
		},
		"empty folder": func(l *lab) { fixture.Must(l, os.Mkdir(file(l, "new"), 0o755)) },
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1", "run-2")
			l.packOnly("run-1")
			change(l)
			delete(l.contents, "run-1")
			l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Held: 1})
			h := l.held()["run-1"]
			if h.Reason != outbox.Changed || h.Cause == "" {
				t.Errorf("status shows %+v", h)
			}
			l.wantFiles("episodes", "run-1")
			l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})

			// Without an acceptance the change is found again. With one the episode is retired
			// as it is, once the receiver reports that it has what was packed.
			fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false))
			l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
			fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", true))
			l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
			l.wantFiles("shipped", "run-1", "run-2")
			l.wantFiles("outbox")
		})
	}
}

func TestAcceptedNeedsTheReceiverAgain(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	fixture.WriteFile(l, l.path("episodes", "run-1", "late.csv"), "1")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", true))
	l.receiver.down = unix.ECONNREFUSED
	if tally, unreachable := l.runOnce(); tally.Transient != 1 || unreachable == nil {
		t.Errorf("got %v, %v", tally, unreachable)
	}
	l.wantFiles("episodes", "run-1")
	l.receiver.down = nil
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
}

// An installer's chown, or a backup's touch, must not hold a backlog.
func TestMetadataAloneHoldsNothing(t *testing.T) {
	for what, change := range map[string]func(path string) error{
		"chmod": func(p string) error { return os.Chmod(p, 0o600) },
		"touch": func(p string) error { return os.Chtimes(p, time.Unix(1, 0), time.Unix(2, 0)) },
		"chown": func(p string) error { return os.Chown(p, 1234, 1234) },
		"copied over itself": func(p string) error {
			b, err := os.ReadFile(p)
			if err == nil {
				if err = os.Remove(p); err == nil {
					err = os.WriteFile(p, b, 0o644)
				}
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			if what == "chown" && os.Getuid() != 0 {
				t.Skip("needs root")
			}
			l := newLab(t)
			l.finishEpisodes("run-1")
			l.packOnly("run-1")
			for _, f := range []string{"meta.json", "telemetry.jsonl", episode.Marker} {
				fixture.Must(l, change(l.path("episodes", "run-1", f)))
			}
			l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
		})
	}
}

// I6: whatever happens to metadata, restarts and attributes in between, every
// attempt sends the same bytes. The receiver of these tests complains if not.
func TestEveryAttemptSendsTheSameBytes(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.receiver.after = func(context.Context, wire.Upload) error { return os.ErrDeadlineExceeded }
	for i := range 5 {
		if tally, _ := l.runOnce(); tally.Transient != 1 {
			t.Fatalf("attempt %d: %v", i, tally)
		}
		fixture.Must(l, os.Chtimes(l.path("episodes", "run-1", "meta.json"), time.Unix(int64(i), 0), time.Unix(int64(i), 0)))
		if i == 3 { // a backup tool without attributes
			fixture.Must(l, unix.Removexattr(l.path("outbox", "run-1.tar.zst"), "user.cis490.seal"))
		}
	}
	l.receiver.after = nil
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	if n := l.receiver.attemptsOf("run-1"); n != 6 {
		t.Errorf("%d attempts", n)
	}
	if packed := len(l.logs.linesContaining(" INFO packed ")); packed != 1 {
		t.Errorf("packed %d times", packed)
	}
}

func TestAHoldThatIsNoJSONStillHolds(t *testing.T) {
	for what, content := range map[string]string{"empty": "", "huge": strings.Repeat("x", 1<<20)} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.finishEpisodes("run-1")
			fixture.WriteFile(l, l.path("outbox", "run-1.held"), content)
			l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
			if h, shown := l.held()["run-1"]; !shown || h.Cause == "" {
				t.Errorf("status does not show it: %+v", h)
			}
		})
	}
}

// An operator renamed or removed what was held: the hold is removed too.
func TestAHoldOfNothingIsForgotten(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.path("outbox", "run-1.held"), `{"cause": "old"}`)
	l.wantOnce(shipper.Tally{})
	l.wantFiles("outbox")
	l.finishEpisodes("run-1") // a later run of this name is not held because of the former
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
}

// An acceptance applies to one archive: a later run of the name, or one that was never packed,
// must not pass unnoticed because of it.
func TestAnAcceptanceIsOfWhatWasPacked(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	fixture.WriteFile(l, l.path("episodes", "run-1", "meta.json"), "")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})             // unfit, so there is no entry
	_ = shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", true) // may be refused
	fixture.WriteFile(l, l.path("episodes", "run-1", "meta.json"), "{}")
	_ = shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", false)
	l.packOnly("run-1")
	fixture.WriteFile(l, l.path("episodes", "run-1", "late.csv"), "not packed")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
}

func TestABadNameIsReportedAtEachScan(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	for _, bad := range []string{"a b", "esc\x1b[31m", "\xff"} {
		fixture.WriteFile(l, l.path("episodes", bad, episode.Marker), "")
	}
	l.wantOnce(shipper.Tally{Scanned: 4, Shipped: 1, Held: 3})
	l.wantOnce(shipper.Tally{Scanned: 3, Held: 3})
	reports := l.logs.linesContaining("cannot ship an episode")
	if len(reports) != 6 {
		t.Errorf("%d reports: %q", len(reports), reports)
	}
	st, err := backlog.InspectStatus(l.cfg.Backlog())
	if err != nil || len(st.Unshippable) != 3 {
		t.Errorf("status shows %q, %v", st.Unshippable, err)
	}
	for _, line := range append(reports, st.Unshippable...) {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("not printable ASCII: %+q", line)
		}
	}
}

// An episode that is a mount point cannot be moved.
func TestAMountedEpisodeIsHeld(t *testing.T) {
	fixture.RequireRoot(t)
	l := newLab(t)
	l.finishEpisodes("run-1", "run-2")
	path := l.path("episodes", "run-1")
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
	l.wantOnce(shipper.Tally{Scanned: 2, Shipped: 1, Held: 1})
	if h := l.held()["run-1"]; h.Reason != outbox.Unpackable || !strings.Contains(h.Cause, "mount") {
		t.Errorf("status shows %+v", h)
	}
}

func TestFilesLeftOutAreLoggedAndCounted(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	fixture.Must(l, unix.Mkfifo(l.path("episodes", "run-1", "monitor\x1b.sock"), 0o644))
	skipped := -1
	l.receiver.before = func(_ context.Context, u wire.Upload) error { skipped = u.Skipped; return nil }
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	if told := l.logs.linesContaining("skipped file"); len(told) != 1 || strings.Contains(told[0], "\x1b") || skipped != 1 {
		t.Errorf("told %q, the receiver was told of %d", told, skipped)
	}
}
