package shipper_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// shipEpisodes ships finished episodes.
func (l *lab) shipEpisodes(names ...episode.Name) {
	l.Helper()
	l.finishEpisodes(names...)
	l.wantOnce(shipper.Tally{Scanned: len(names), Shipped: len(names)})
}

// verifyShipped verifies, and returns the findings, as "run-1 verified".
func (l *lab) verifyShipped(o shipped.VerifyOptions) (shipped.VerifyReport, string) {
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
	report, err := shipped.Verify(l.Context(), l.cfg.DirsConfig(), l.receiver, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

func TestAuditAsksTheReceiversDisk(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("good", "gone", "rotten", "other")
	l.receiver.archives.corrupt = map[episode.Name]bool{"rotten": true}
	delete(l.receiver.stored, "gone")
	other := l.receiver.stored["other"]
	other.Digest[0]++
	l.receiver.stored["other"] = other
	fixture.Must(l, os.MkdirAll(l.path("shipped", "before-receipts"), 0o755))
	report, found := l.verifyShipped(shipped.VerifyOptions{Quick: true})
	if want := "before-receipts unknown, gone missing, good stored, other divergent, rotten stored"; found != want || l.receiver.archives.reads != 0 {
		t.Errorf("quick: %s, %d read back, want %s", found, l.receiver.archives.reads, want)
	}
	if report.ProblemCount() != 3 {
		t.Errorf("got %+v, want Problems 3", report)
	}
	report, found = l.verifyShipped(shipped.VerifyOptions{})
	if want := "before-receipts unknown, gone missing, good verified, other divergent, rotten damaged"; found != want || report.ProblemCount() != 4 || report.Healing != 0 {
		t.Errorf("%s, %+v, want %s", found, report, want)
	}
	if l.receiver.archives.reads != 2 {
		t.Errorf("%d were read back, want what is present", l.receiver.archives.reads)
	}
	l.wantFiles("episodes")
	_, found = l.verifyShipped(shipped.VerifyOptions{MaxAge: time.Hour})
	if !strings.Contains(found, "good verified") || l.receiver.archives.reads != 2 {
		t.Errorf("what was read lately is read again: %s, %d", found, l.receiver.archives.reads)
	}
}

// An archive that takes the receiver longer to read than an answer may take does not keep the
// others from being verified.
func TestAuditContinuesAfterAnArchiveThatCannotBeReadBack(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("a", "giant", "z")
	l.receiver.archives.slow = map[episode.Name]bool{"giant": true}
	if report, found := l.verifyShipped(shipped.VerifyOptions{}); found != "a verified, giant stored, z verified" || report.ProblemCount() != 0 {
		t.Errorf("got %s, %+v, want %q and Problems 0", found, report, "a verified, giant stored, z verified")
	}
	l.receiver.down = errors.New("no network")
	_, err := shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.VerifyOptions{OnResult: func(shipped.VerifyResult) error { return nil }})
	if _, away := errors.AsType[*uplink.UnreachableError](err); !away {
		t.Errorf("without a receiver: %v", err)
	}
}

func TestAuditResendsWhatIsLost(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("good", "gone", "rotten", "taken")
	l.receiver.archives.corrupt = map[episode.Name]bool{"rotten": true}
	delete(l.receiver.stored, "gone")
	delete(l.receiver.stored, "taken")
	fixture.Must(l, os.WriteFile(l.path("outbox", "taken.held"), []byte("{}"), 0o640))
	report, found := l.verifyShipped(shipped.VerifyOptions{Heal: true})
	if want := "gone missing healing, good verified, rotten damaged healing, taken missing not healed"; found != want || report.Healing != 2 {
		t.Fatalf("%s, %+v, want %s", found, report, want)
	}
	l.receiver.archives.corrupt = nil
	fixture.Must(l, os.Remove(l.path("outbox", "taken.held")))
	l.wantFiles("episodes", "gone", "rotten")
	fixture.Must(l, shipped.ResendRetired(l.cfg.DirsConfig(), "taken"))
	l.wantOnce(shipper.Tally{Scanned: 3, Shipped: 3})
	if report, found := l.verifyShipped(shipped.VerifyOptions{}); report.Verified != 4 || report.ProblemCount() != 0 {
		t.Errorf("after it was sent again: %s", found)
	}
}

// The same bytes are packed again, so that a receiver which kept the row or the archive
// recognizes them.
func TestResendPacksTheSameBytes(t *testing.T) {
	l := newLab(t)
	l.shipEpisodes("run-1")
	want := l.receiver.stored["run-1"].Digest
	fixture.Must(l, shipped.ResendRetired(l.cfg.DirsConfig(), "run-1"))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	if got := l.receiver.sent["run-1"]; got != want {
		t.Errorf("sent %s, and %s before", got, want)
	}
	if err := shipped.ResendRetired(l.cfg.DirsConfig(), "../episodes"); err == nil {
		t.Error("resent what is no episode")
	}
}

func TestAuditIsPatientWithABusyReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.shipEpisodes("run-1")
		l.receiver.archives.busyAnswers = 3
		if report, _ := l.verifyShipped(shipped.VerifyOptions{}); report.Verified != 1 {
			t.Errorf("got %+v, want Verified 1", report)
		}
		l.receiver.archives.busyAnswers = 1000
		_, err := shipped.Verify(t.Context(), l.cfg.DirsConfig(), l.receiver, shipped.VerifyOptions{OnResult: func(shipped.VerifyResult) error { return nil }})
		if _, ok := errors.AsType[*uplink.UnreachableError](err); !ok || !errors.Is(err, wire.HostBusy) {
			t.Errorf("one that stays busy: %v", err)
		}
	})
}

// An episode that was accepted although it was changed is not what the receiver has: the
// receiver's answer must not permit deleting it.
func TestAcceptedEpisodeIsUnknownForEver(t *testing.T) {
	l := newLab(t)
	l.finishEpisodes("run-1")
	l.packOnly("run-1")
	fixture.WriteFile(l, l.path("episodes", "run-1", "late.txt"), "more")
	l.wantOnce(shipper.Tally{Scanned: 1, Held: 1})
	fixture.Must(l, shipped.ReleaseHold(l.cfg.DirsConfig(), "run-1", true))
	l.wantOnce(shipper.Tally{Scanned: 1, AlreadyPresent: 1})
	if _, found := l.verifyShipped(shipped.VerifyOptions{}); found != "run-1 unknown" {
		t.Errorf("got %s, want %q", found, "run-1 unknown")
	}
}

// pruneShipped prunes, and returns what was done, as "run-1 max_age deleted".
func (l *lab) pruneShipped(o shipped.PruneOptions) (shipped.PruneReport, string) {
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
	report, err := shipped.Prune(l.Context(), l.cfg.DirsConfig(), l.receiver, o)
	fixture.Must(l, err)
	return report, strings.Join(found, ", ")
}

// shipEpisodeAt ships an episode that the receiver stored some time ago, and has verified since.
func (l *lab) shipEpisodeAt(name episode.Name, ago time.Duration) {
	l.Helper()
	l.receiver.archives.storedAgo = ago
	l.shipEpisodes(name)
	l.receiver.markVerified(name, time.Now())
}

func TestPruneNeedsAReadBack(t *testing.T) {
	l := newLab(t)
	l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
	for _, name := range []episode.Name{"verified", "never-read", "read-before", "divergent", "missing"} {
		l.shipEpisodeAt(name, 3*time.Hour)
	}
	l.shipEpisodeAt("young", time.Minute)
	delete(l.receiver.archives.verified, "never-read")
	l.receiver.markVerified("read-before", time.Now().Add(-4*time.Hour))
	other := l.receiver.stored["divergent"]
	other.Digest[0]++
	l.receiver.stored["divergent"] = other
	delete(l.receiver.stored, "missing")
	fixture.Must(l, os.MkdirAll(l.path("shipped", "unknown"), 0o755))
	for _, dry := range []bool{true, false} {
		report, found := l.pruneShipped(shipped.PruneOptions{DryRun: dry})
		if report.Deleted != 1 || report.Kept != 4 || report.Bytes == 0 || strings.Contains(found, "deleted") == dry {
			t.Errorf("dry %v: %+v, %s", dry, report, found)
		}
		if _, err := os.Stat(l.path("shipped", "verified")); (err == nil) != dry {
			t.Errorf("dry %v: the one that may go: %v", dry, err)
		}
	}
	l.wantFiles("shipped", "divergent", "missing", "never-read", "read-before", "unknown", "young")
	l.wantFiles("outbox")
	if left, err := os.ReadDir(l.path("outbox", ".trash")); err != nil || len(left) != 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
	delete(l.contents, "verified")
	delete(l.contents, "divergent") // this test removed them
	delete(l.contents, "missing")
	l.checkNothingLost()
}

func TestDaemonPrunesAsConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.shipEpisodeAt("old", 3*time.Hour)
		l.shipEpisodeAt("unread", 3*time.Hour)
		delete(l.receiver.archives.verified, "unread")
		_, stop := l.startDaemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		l.wantFiles("shipped", "old", "unread")
		l.cfg.Retention.MaxAge.UnmarshalText([]byte("1h"))
		_, stop = l.startDaemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		l.wantFiles("shipped", "unread")
		if len(l.logs.linesContaining("deleted a retired episode episode=old")) != 1 {
			t.Errorf("the log:\n%s", l.logs)
		}
		l.receiver.down = errors.New("no network")
		_, stop = l.startDaemon()
		time.Sleep(time.Hour)
		fixture.Must(l, stop())
		if loud := l.logs.warnings(); slices.ContainsFunc(loud, func(s string) bool { return strings.Contains(s, "delete") }) {
			t.Errorf("a receiver that is away: %q", loud)
		}
	})
}
