package shipped_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
	"cis490/internal/source"
	"cis490/internal/wire"
)

// The invariant of deleting, whatever a receiver answers.
func TestDeletingNeedsTheVerySameBytesReadBack(t *testing.T) {
	same, other := digest.Digest{1}, digest.Digest{2}
	at := func(h int) *wire.Timestamp { return &wire.Timestamp{Time: time.Unix(int64(h)*3600, 0)} }
	good := source.Retired{HasReceipt: true, Receipt: source.Receipt{Digest: same}}
	for what, c := range map[string]struct {
		r   source.Retired
		h   wire.InventoryEntry
		may bool
	}{
		"read back since":       {good, wire.InventoryEntry{State: wire.Present, Digest: &same, ReceivedAt: at(1), VerifiedAt: at(2)}, true},
		"read back before":      {good, wire.InventoryEntry{State: wire.Present, Digest: &same, ReceivedAt: at(2), VerifiedAt: at(1)}, false},
		"read back just then":   {good, wire.InventoryEntry{State: wire.Present, Digest: &same, ReceivedAt: at(1), VerifiedAt: at(1)}, false},
		"never read back":       {good, wire.InventoryEntry{State: wire.Present, Digest: &same, ReceivedAt: at(1)}, false},
		"received at no time":   {good, wire.InventoryEntry{State: wire.Present, Digest: &same, VerifiedAt: at(2)}, false},
		"other bytes":           {good, wire.InventoryEntry{State: wire.Present, Digest: &other, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"no bytes":              {good, wire.InventoryEntry{State: wire.Present, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"divergent":             {good, wire.InventoryEntry{State: wire.Divergent, Digest: &same, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
		"absent":                {good, wire.InventoryEntry{State: wire.Absent}, false},
		"not asked":             {good, wire.InventoryEntry{}, false},
		"it carries no receipt": {source.Retired{}, wire.InventoryEntry{State: wire.Present, Digest: &digest.Digest{}, ReceivedAt: at(1), VerifiedAt: at(2)}, false},
	} {
		if why := shipped.ReasonToKeep(c.r, c.h); (why == "") != c.may {
			t.Errorf("%s: kept for %q", what, why)
		}
	}
}

func TestPruneIsOffUnlessConfigured(t *testing.T) {
	l := newLab(t)
	l.finishEpisode("run-1")
	l.deliver("run-1", 1000*time.Hour)
	if report, found := l.prune(shipped.PruneOptions{}); found != "" || report.Deleted != 0 {
		t.Errorf("deleted %s", found)
	}
	l.wantFiles("shipped", "run-1")
}

func TestPruneTakesTheOldestFirst(t *testing.T) {
	l := newLab(t)
	for i := range 5 {
		name := episode.Name(fmt.Sprintf("run-%d", i))
		l.finishEpisode(name)
		fixture.WriteFile(l, l.path("episodes", string(name), "big"), strings.Repeat("x", 1<<20))
		l.deliver(name, time.Duration(10-i)*time.Hour)
	}
	l.receiver.stored["run-0"].verifiedAt = time.Time{}
	l.retention.MaxBytes = 3<<20 + 512<<10
	if _, found := l.prune(shipped.PruneOptions{DryRun: true}); found != "run-0 max_bytes kept, run-1 max_bytes, run-2 max_bytes" {
		t.Errorf("got %s, want %q", found, "run-0 max_bytes kept, run-1 max_bytes, run-2 max_bytes")
	}
	if _, found := l.prune(shipped.PruneOptions{Limit: 1}); found != "run-0 max_bytes kept, run-1 max_bytes deleted" {
		t.Errorf("at most one: %s", found)
	}
	l.retention = shipped.RetentionConfig{MinFree: 1 << 60}
	if report, found := l.prune(shipped.PruneOptions{}); report.Deleted != 3 || report.Kept != 1 {
		t.Errorf("for a floor that is never reached: %s", found)
	}
	l.wantFiles("shipped", "run-0")
}

// Links lead out of the episode, and the receiver had the last word before: what they lead to
// stays.
func TestPruneFollowsNoLink(t *testing.T) {
	l := newLab(t)
	l.setMaxAge("1h")
	fixture.WriteFile(l, l.path("precious", "file"), "precious")
	l.finishEpisode("run-1")
	fixture.Must(l, os.Symlink(l.path("precious"), l.path("episodes", "run-1", "link")))
	l.deliver("run-1", 2*time.Hour)
	fixture.Must(l, os.Symlink(l.path("precious"), l.path("shipped", "run-2")))
	if _, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age deleted" {
		t.Errorf("got %s, want %q", found, "run-1 max_age deleted")
	}
	if b, err := os.ReadFile(l.path("precious", "file")); err != nil || string(b) != "precious" {
		t.Errorf("got %q, %v, want %q", b, err, "precious")
	}
}

// An episode that is resent and retired again between the question and the deletion is another
// one.
func TestPruneOfAnotherReceiptGoesBack(t *testing.T) {
	l := newLab(t)
	l.setMaxAge("1h")
	l.finishEpisode("run-1")
	l.deliver("run-1", 3*time.Hour)
	l.receiver.during = func() {
		b := make([]byte, 48)
		n, err := unix.Getxattr(l.path("shipped", "run-1"), "user.cis490.receipt", b)
		fixture.Must(l, err)
		b[n-1]++
		fixture.Must(l, unix.Setxattr(l.path("shipped", "run-1"), "user.cis490.receipt", b, 0))
	}
	if report, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age kept" || report.Deleted != 0 {
		t.Errorf("got %s, want %q and Deleted 0", found, "run-1 max_age kept")
	}
	l.wantFiles("shipped", "run-1")
}

func TestPruneKeepsWhatIsYoung(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	if _, found := l.prune(shipped.PruneOptions{MinUnchanged: time.Hour}); found != "run-1 max_age kept" {
		t.Errorf("got %s, want %q", found, "run-1 max_age kept")
	}
	l.wantFiles("shipped", "run-1")
	if l.notedChange("run-1") != "" {
		t.Error("it is noted as changed")
	}
	l.wantFiles("outbox")
	if left, err := os.ReadDir(l.path("outbox", ".trash")); err != nil || len(left) != 0 {
		t.Errorf("left in the trash: %v, %v", left, err)
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	fixture.WriteFile(l, l.path("shipped", "run-1", "late"), "x")
	report, found := l.prune(shipped.PruneOptions{DryRun: true})
	if !strings.Contains(found, "run-1 max_age kept") || report.Deleted != 1 || l.notedChange("run-1") != "" {
		t.Errorf("%s, %+v, noted %q", found, report, l.notedChange("run-1"))
	}
	l.wantFiles("shipped", "run-1", "run-2")
}

// The receiver may have lost its copy while the episodes before were compared.
func TestAnOldAnswerIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newExpiredLab(t, "run-1", "run-2")
		o := shipped.PruneOptions{Retention: l.retention, Limit: 10, MinUnchanged: 1}
		o.OnResult = func(p shipped.PruneResult) error {
			if p.Deleted { // the next one is compared long after
				time.Sleep(time.Hour)
				clear(l.receiver.stored)
			}
			return nil
		}
		report, err := shipped.Prune(t.Context(), l.dirs, l.receiver, o)
		if err != nil || report.Deleted != 1 || report.Kept != 1 {
			t.Errorf("got %+v, %v, want Deleted 1 and Kept 1", report, err)
		}
	})
}

// A kill between the rename and the judgement leaves an episode that was not compared.
func TestAnUnjudgedEpisodeGoesBack(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	l.setMaxAge("100h")
	fixture.Must(l, os.MkdirAll(l.path("outbox", ".trash"), 0o750))
	fixture.Must(l, os.Rename(l.path("shipped", "run-1"), l.path("outbox", ".trash", "run-1~X")))
	fixture.Must(l, os.Rename(l.path("shipped", "run-2"), l.path("outbox", ".trash", "run-2~Y")))
	fixture.Must(l, os.Mkdir(l.path("shipped", "run-2"), 0o755))
	if _, found := l.prune(shipped.PruneOptions{}); !strings.Contains(found, "run-1 interrupted kept") || !strings.Contains(found, "run-2~2 interrupted kept") {
		t.Errorf("got %s, want %q in it and %q in it", found, "run-1 interrupted kept", "run-2~2 interrupted kept")
	}
	l.wantFiles("shipped", "run-1", "run-2", "run-2~2")
	if l.notedChange("run-1") != "" {
		t.Error("it is noted as changed")
	}
}

// Shippers before 2026-11-29 removed the marker and then deleted whatever was there.
func TestWhatAnOlderPruningLeftGoesBackAndIsNamed(t *testing.T) {
	l := newLab(t)
	fixture.WriteFile(l, l.path("outbox", ".trash", "run-1~X", "sub", "file"), "x")
	fixture.Must(l, os.MkdirAll(l.path("shipped"), 0o755))
	_, found := l.prune(shipped.PruneOptions{})
	if found != "run-1 interrupted kept" || l.notedChange("run-1") == "" {
		t.Errorf("%s, noted %q", found, l.notedChange("run-1"))
	}
	l.wantFiles("shipped", "run-1")
}

// The note that part of an episode is gone outlives the comparisons that follow.
func TestTheNoteOfAnIncompleteEpisodeStays(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	fixture.Must(l, os.MkdirAll(l.path("outbox", ".trash"), 0o750))
	fixture.Must(l, os.Rename(l.path("shipped", "run-1"), l.path("outbox", ".trash", "run-1~X")))
	fixture.Must(l, os.Remove(l.path("outbox", ".trash", "run-1~X", episode.Marker)))
	for range 2 {
		report, found := l.prune(shipped.PruneOptions{})
		if report.Kept != 1 {
			t.Errorf("got %s, %+v, want Kept 1", found, report)
		}
		l.verify(shipped.VerifyOptions{})
	}
	if note := l.notedChange("run-1"); note != "an interrupted deletion left it incomplete" {
		t.Errorf("noted: %q", note)
	}
}

// The announced total is the number of results that follow.
func TestTotalIsTheNumberOfResults(t *testing.T) {
	l := newLab(t)
	l.setMaxAge("24h")
	for i, name := range []episode.Name{"run-1", "run-2", "run-3"} {
		l.finishEpisode(name)
		l.deliver(name, time.Duration(50-i*22)*time.Hour) // run-3 is from today
	}
	verified, pruned := 0, 0
	l.verify(shipped.VerifyOptions{OnTotal: func(n int) { verified = n }})
	report, _ := l.prune(shipped.PruneOptions{Limit: 10, DryRun: true, OnTotal: func(n int) { pruned = n }})
	if verified != 3 || pruned != 2 || report.Deleted+report.Kept != 2 {
		t.Errorf("announced %d to verify and %d to prune (%+v), want 3 and 2", verified, pruned, report)
	}
}
