package shipper_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// ship ships finished episodes.
func (l *lab) ship(names ...episode.Name) {
	l.Helper()
	l.finish(names...)
	l.wantOnce(shipper.Tally{Scanned: len(names), Shipped: len(names)})
}

// audit returns what is found, as "run-1 verified".
func (l *lab) audit(o shipped.VerifyOptions) (shipped.VerifyReport, string) {
	l.Helper()
	var found []string
	o.OnResult = func(a shipped.VerifyResult) error {
		s := a.Dir + " " + string(a.Finding)
		if a.Healing {
			s += " healing"
		}
		if a.NotHealed != "" {
			s += " not healed"
		}
		found = append(found, s)
		return nil
	}
	report, err := shipped.Verify(l.Context(), l.cfg.Dirs(), l.rx, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

func TestAuditAsksTheReceiversDisk(t *testing.T) {
	l := newLab(t)
	l.ship("good", "gone", "rotten", "other")
	l.rx.shelf.rotten = map[episode.Name]bool{"rotten": true}
	delete(l.rx.stored, "gone")
	other := l.rx.stored["other"]
	other.Digest[0]++
	l.rx.stored["other"] = other
	fixture.Must(l, os.MkdirAll(l.at("shipped", "before-receipts"), 0o755))
	report, found := l.audit(shipped.VerifyOptions{Quick: true})
	if want := "before-receipts unknown, gone missing, good stored, other divergent, rotten stored"; found != want || l.rx.shelf.read != 0 {
		t.Errorf("quick: %s, %d read back, want %s", found, l.rx.shelf.read, want)
	}
	if report.Problems() != 3 {
		t.Errorf("%+v", report)
	}
	report, found = l.audit(shipped.VerifyOptions{})
	if want := "before-receipts unknown, gone missing, good verified, other divergent, rotten damaged"; found != want || report.Problems() != 4 || report.Healing != 0 {
		t.Errorf("%s, %+v, want %s", found, report, want)
	}
	if l.rx.shelf.read != 2 {
		t.Errorf("%d were read back, want what is present", l.rx.shelf.read)
	}
	l.wantFiles("episodes")
	if _, found = l.audit(shipped.VerifyOptions{MaxAge: time.Hour}); !strings.Contains(found, "good verified") || l.rx.shelf.read != 2 {
		t.Errorf("what was read lately is read again: %s, %d", found, l.rx.shelf.read)
	}
}

// One archive that takes the receiver longer than an answer may keeps none of the others
// from being read.
func TestAuditGoesOnBehindAnArchiveThatCannotBeReadBack(t *testing.T) {
	l := newLab(t)
	l.ship("a", "giant", "z")
	l.rx.shelf.slow = map[episode.Name]bool{"giant": true}
	if report, found := l.audit(shipped.VerifyOptions{}); found != "a verified, giant stored, z verified" || report.Problems() != 0 {
		t.Errorf("%s, %+v", found, report)
	}
	l.rx.down = errors.New("no network")
	_, err := shipped.Verify(t.Context(), l.cfg.Dirs(), l.rx, shipped.VerifyOptions{OnResult: func(shipped.VerifyResult) error { return nil }})
	if _, away := errors.AsType[*uplink.UnreachableError](err); !away {
		t.Errorf("without a receiver: %v", err)
	}
}

func TestAuditHealsWhatIsLost(t *testing.T) {
	l := newLab(t)
	l.ship("good", "gone", "rotten", "taken")
	l.rx.shelf.rotten = map[episode.Name]bool{"rotten": true}
	delete(l.rx.stored, "gone")
	delete(l.rx.stored, "taken")
	fixture.Must(l, os.WriteFile(l.at("outbox", "taken.held"), []byte("{}"), 0o640))
	report, found := l.audit(shipped.VerifyOptions{Heal: true})
	if want := "gone missing healing, good verified, rotten damaged healing, taken missing not healed"; found != want || report.Healing != 2 {
		t.Fatalf("%s, %+v, want %s", found, report, want)
	}
	l.rx.shelf.rotten = nil
	fixture.Must(l, os.Remove(l.at("outbox", "taken.held")))
	l.wantFiles("episodes", "gone", "rotten")
	fixture.Must(l, shipped.Resend(l.cfg.Dirs(), "taken"))
	l.wantOnce(shipper.Tally{Scanned: 3, Shipped: 3})
	if report, found := l.audit(shipped.VerifyOptions{}); report.Verified != 4 || report.Problems() != 0 {
		t.Errorf("after it was sent again: %s", found)
	}
}

// The same bytes are packed again, so that a receiver that has kept its row, or
// the archive, knows them.
func TestResendPacksTheSameBytes(t *testing.T) {
	l := newLab(t)
	l.ship("run-1")
	want := l.rx.stored["run-1"].Digest
	fixture.Must(l, shipped.Resend(l.cfg.Dirs(), "run-1"))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	if got := l.rx.sent["run-1"]; got != want {
		t.Errorf("sent %s, and %s before", got, want)
	}
	if err := shipped.Resend(l.cfg.Dirs(), "../episodes"); err == nil {
		t.Error("resent what is no episode")
	}
}

func TestAuditIsPatientWithABusyReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.ship("run-1")
		l.rx.shelf.busy = 3
		if report, _ := l.audit(shipped.VerifyOptions{}); report.Verified != 1 {
			t.Errorf("%+v", report)
		}
		l.rx.shelf.busy = 1000
		_, err := shipped.Verify(t.Context(), l.cfg.Dirs(), l.rx, shipped.VerifyOptions{OnResult: func(shipped.VerifyResult) error { return nil }})
		if _, ok := errors.AsType[*uplink.UnreachableError](err); !ok || !errors.Is(err, wire.HostBusy) {
			t.Errorf("one that stays busy: %v", err)
		}
	})
}

// An episode that a person accepted although it was changed is not what the
// receiver has: nobody may delete it for what the receiver says.
func TestAcceptedEpisodeIsUnknownForEver(t *testing.T) {
	l := newLab(t)
	l.finish("run-1")
	l.sealed("run-1")
	fixture.WriteFile(l, l.at("episodes", "run-1", "late.txt"), "more")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	fixture.Must(l, shipped.Release(l.cfg.Dirs(), "run-1", true))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	if _, found := l.audit(shipped.VerifyOptions{}); found != "run-1 unknown" {
		t.Errorf("got %s", found)
	}
}

// prune returns what is found, as "run-1 max_age deleted".
func (l *lab) prune(o shipped.PruneOptions) (shipped.PruneReport, string) {
	l.Helper()
	var found []string
	o.OnResult = func(p shipped.PruneResult) error {
		s := p.Dir + " " + p.Reason
		switch {
		case p.Deleted:
			s += " deleted"
		case p.Kept != "":
			s += " kept"
		}
		found = append(found, s)
		return nil
	}
	o.Retention = l.cfg.Retention
	if o.Limit == 0 {
		o.Limit = 1000
	}
	if o.MinUnchanged == 0 {
		o.MinUnchanged = 1
	}
	report, err := shipped.Prune(l.Context(), l.cfg.Dirs(), l.rx, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

// shipAt ships an episode that the receiver says it stored so long ago, and has
// read back since.
func (l *lab) shipAt(name episode.Name, ago time.Duration) {
	l.Helper()
	l.rx.shelf.ago = ago
	l.ship(name)
	l.rx.verify(name, time.Now())
}

func TestPruneIsOffUnlessConfigured(t *testing.T) {
	l := newLab(t)
	l.shipAt("run-1", 1000*time.Hour)
	if report, found := l.prune(shipped.PruneOptions{}); found != "" || report.Deleted != 0 {
		t.Errorf("deleted %s", found)
	}
	l.wantFiles("shipped", "run-1")
}

func TestPruneNeedsAReadBack(t *testing.T) {
	l := newLab(t)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	for _, name := range []episode.Name{"verified", "never-read", "read-before", "divergent", "missing"} {
		l.shipAt(name, 3*time.Hour)
	}
	l.shipAt("young", time.Minute)
	delete(l.rx.shelf.verified, "never-read")
	l.rx.verify("read-before", time.Now().Add(-4*time.Hour))
	other := l.rx.stored["divergent"]
	other.Digest[0]++
	l.rx.stored["divergent"] = other
	delete(l.rx.stored, "missing")
	fixture.Must(l, os.MkdirAll(l.at("shipped", "unknown"), 0o755))
	for _, dry := range []bool{true, false} {
		report, found := l.prune(shipped.PruneOptions{DryRun: dry})
		if report.Deleted != 1 || report.Kept != 4 || report.Bytes == 0 || strings.Contains(found, "deleted") == dry {
			t.Errorf("dry %v: %+v, %s", dry, report, found)
		}
		if _, err := os.Stat(l.at("shipped", "verified")); (err == nil) != dry {
			t.Errorf("dry %v: the one that may go: %v", dry, err)
		}
	}
	l.wantFiles("shipped", "divergent", "missing", "never-read", "read-before", "unknown", "young")
	l.wantFiles("outbox")
	if left, err := os.ReadDir(l.at("outbox", ".trash")); err != nil || len(left) != 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	delete(l.made, "verified")
	delete(l.made, "divergent") // they are not there by this test's doing
	delete(l.made, "missing")
	l.check()
}

func TestPruneTakesTheOldestFirst(t *testing.T) {
	l := newLab(t)
	for i := range 5 {
		name := episode.Name(fmt.Sprintf("run-%d", i))
		l.finish(name)
		fixture.WriteFile(l, l.at("episodes", string(name), "big"), strings.Repeat("x", 1<<20))
		l.rx.shelf.ago = time.Duration(10-i) * time.Hour
		l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
		l.rx.verify(name, time.Now())
	}
	delete(l.rx.shelf.verified, "run-0")
	l.cfg.Retention.MaxBytes = 3<<20 + 512<<10
	if _, found := l.prune(shipped.PruneOptions{DryRun: true}); found != "run-0 max_bytes kept, run-1 max_bytes, run-2 max_bytes" {
		t.Errorf("got %s", found)
	}
	if _, found := l.prune(shipped.PruneOptions{Limit: 1}); found != "run-0 max_bytes kept, run-1 max_bytes deleted" {
		t.Errorf("at most one: %s", found)
	}
	l.cfg.Retention = shipped.RetentionConfig{MinFree: 1 << 60}
	if report, found := l.prune(shipped.PruneOptions{}); report.Deleted != 3 || report.Kept != 1 {
		t.Errorf("for a floor that is never reached: %s", found)
	}
	l.wantFiles("shipped", "run-0")
}

// Links lead out of the episode, and the receiver had the last word before: what
// they lead to stays.
func TestPruneFollowsNoLink(t *testing.T) {
	l := newLab(t)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	fixture.WriteFile(l, l.at("precious", "file"), "precious")
	l.finish("run-1")
	fixture.Must(l, os.Symlink(l.at("precious"), l.at("episodes", "run-1", "link")))
	l.rx.shelf.ago = 2 * time.Hour
	l.wantOnce(shipper.Tally{Scanned: 1, Shipped: 1})
	l.rx.verify("run-1", time.Now())
	fixture.Must(l, os.Symlink(l.at("precious"), l.at("shipped", "run-2")))
	if _, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age deleted" {
		t.Errorf("got %s", found)
	}
	if b, err := os.ReadFile(l.at("precious", "file")); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// An episode that is resent and retired anew between the question and the
// deletion is another one.
func TestPruneOfAnotherReceiptGoesBack(t *testing.T) {
	l := newLab(t)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	l.shipAt("run-1", 3*time.Hour)
	l.rx.during = func() {
		b := make([]byte, 48)
		n, err := unix.Getxattr(l.at("shipped", "run-1"), "user.cis490.receipt", b)
		fixture.Must(l, err)
		b[n-1]++
		fixture.Must(l, unix.Setxattr(l.at("shipped", "run-1"), "user.cis490.receipt", b, 0))
	}
	if report, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age kept" || report.Deleted != 0 {
		t.Errorf("got %s", found)
	}
	l.wantFiles("shipped", "run-1")
	l.check()
}

func TestDaemonPrunesAsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.shipAt("old", 3*time.Hour)
		l.shipAt("unread", 3*time.Hour)
		delete(l.rx.shelf.verified, "unread")
		_, stop := l.daemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		l.wantFiles("shipped", "old", "unread")
		l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
		_, stop = l.daemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		l.wantFiles("shipped", "unread")
		if len(l.logs.with("deleted a retired episode episode=old")) != 1 {
			t.Errorf("the log:\n%s", l.logs)
		}
		l.rx.down = errors.New("no network")
		_, stop = l.daemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		if loud := l.logs.loud(); slices.ContainsFunc(loud, func(s string) bool { return strings.Contains(s, "delete") }) {
			t.Errorf("a receiver that is away: %q", loud)
		}
	})
}
