package shipped_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/shipped"
)

// archive.Compare compares each of these.
var treeChanges = map[string]func(l *lab, at string){
	"appended": func(l *lab, at string) {
		f, err := os.OpenFile(filepath.Join(at, "telemetry.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
		fixture.Must(l, err)
		_, err = f.WriteString("late")
		fixture.Must(l, errors.Join(err, f.Close()))
	},
	"same size, old mtime": func(l *lab, at string) {
		path := filepath.Join(at, "telemetry.jsonl")
		info, err := os.Stat(path)
		fixture.Must(l, err)
		fixture.Must(l, os.WriteFile(path, []byte(strings.Repeat("y", int(info.Size()))), 0o644))
		fixture.Must(l, os.Chtimes(path, info.ModTime(), info.ModTime()))
	},
	"added":      func(l *lab, at string) { fixture.WriteFile(l, filepath.Join(at, "analysis.txt"), "a week of work") },
	"added, dir": func(l *lab, at string) { fixture.Must(l, os.Mkdir(filepath.Join(at, "plots"), 0o755)) },
	"removed":    func(l *lab, at string) { fixture.Must(l, os.Remove(filepath.Join(at, "telemetry.jsonl"))) },
	"renamed": func(l *lab, at string) {
		fixture.Must(l, os.Rename(filepath.Join(at, "telemetry.jsonl"), filepath.Join(at, "t.jsonl")))
	},
	"linked": func(l *lab, at string) { fixture.Must(l, os.Symlink("meta.json", filepath.Join(at, "meta-2.json"))) },
	"a FIFO": func(l *lab, at string) { fixture.Must(l, unix.Mkfifo(filepath.Join(at, "pipe"), 0o644)) },
	"marker": func(l *lab, at string) { fixture.WriteFile(l, filepath.Join(at, episode.Marker), "notes") },
}

func TestPruneKeepsWhatChangedSinceItWasShipped(t *testing.T) {
	for what, change := range treeChanges {
		l := newExpiredLab(t, "run-1", "run-2")
		change(l, l.path("shipped", "run-1"))
		for range 2 { // the second time it is known
			report, found := l.prune(shipped.PruneOptions{})
			if !strings.Contains(found, "run-1 max_age kept") || report.Kept != 1 {
				t.Errorf("%s: got %s, %+v, want %q in it and Kept 1", what, found, report, "run-1 max_age kept")
			}
		}
		l.wantFiles("shipped", "run-1")
		if note := l.notedChange("run-1"); note == "" {
			t.Errorf("%s: nothing is noted", what)
		}
	}
}

func TestVerifyFindsWhatChangedSinceItWasShipped(t *testing.T) {
	for what, change := range treeChanges {
		l := newExpiredLab(t, "run-1", "run-2")
		change(l, l.path("shipped", "run-1"))
		report, found := l.verify(shipped.VerifyOptions{})
		if found != "run-1 changed, run-2 verified" || report.Changed != 1 || report.ProblemCount() != 1 {
			t.Errorf("%s: %s, %+v", what, found, report)
		}
		if note := l.notedChange("run-1"); note == "" {
			t.Errorf("%s: nothing is noted", what)
		}
	}
}

// An installer's chown and chmod must not keep a backlog.
func TestOtherOwnersAndModesAreNoChange(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	at := l.path("shipped", "run-1")
	fixture.Must(l, os.Chmod(filepath.Join(at, "telemetry.jsonl"), 0o640))
	fixture.Must(l, os.Chtimes(filepath.Join(at, "meta.json"), time.Now(), time.Unix(1, 0)))
	if _, found := l.verify(shipped.VerifyOptions{Deep: true}); found != "run-1 verified" {
		t.Errorf("verify: %s", found)
	}
	if _, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age deleted" {
		t.Errorf("prune: %s", found)
	}
}

// What the archive lacks because it was skipped may go if the same was skipped then.
func TestSkippedEntriesMustBeThoseOfThen(t *testing.T) {
	l := newLab(t)
	l.setMaxAge("1h")
	for _, name := range []episode.Name{"same", "other"} {
		l.finishEpisode(name)
		fixture.Must(l, unix.Mkfifo(l.path("episodes", string(name), "pipe"), 0o644))
		l.deliver(name, 3*time.Hour)
	}
	fixture.Must(l, unix.Mkfifo(l.path("shipped", "other", "pipe-2"), 0o644))
	if _, found := l.prune(shipped.PruneOptions{}); found != "same max_age deleted, other max_age kept" && found != "other max_age kept, same max_age deleted" {
		t.Errorf("got %s", found)
	}
}

// A change that was reverted does not count.
func TestANoteGoesWithTheChange(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	fixture.WriteFile(l, l.path("shipped", "run-1", "analysis.txt"), "x")
	l.prune(shipped.PruneOptions{})
	if l.notedChange("run-1") == "" {
		t.Fatal("nothing is noted")
	}
	fixture.Must(l, os.Remove(l.path("shipped", "run-1", "analysis.txt")))
	if _, found := l.verify(shipped.VerifyOptions{}); found != "run-1 verified" || l.notedChange("run-1") != "" {
		t.Errorf("%s, noted: %q", found, l.notedChange("run-1"))
	}
}

// Nothing is deleted until the receiver reports what its archive contains. An older receiver
// does not.
func TestNothingIsDeletedThatCannotBeCompared(t *testing.T) {
	l := newExpiredLab(t, "run-1")
	l.receiver.stored["run-1"].contents = digest.Digest{} // an older receiver
	if _, found := l.prune(shipped.PruneOptions{}); found != "run-1 max_age kept" || l.notedChange("run-1") != "" {
		t.Errorf("%s, noted %q", found, l.notedChange("run-1"))
	}
	if _, found := l.verify(shipped.VerifyOptions{}); found != "run-1 verified" {
		t.Errorf("verify: %s", found)
	}
	if _, found := l.verify(shipped.VerifyOptions{Deep: true}); found != "run-1 unknown" {
		t.Errorf("verify --deep: %s", found)
	}
	l.wantFiles("shipped", "run-1")
}

// The receipts of older shippers come without a state.
func TestAnOlderReceiptIsComparedByContents(t *testing.T) {
	l := newExpiredLab(t, "run-1", "run-2")
	for _, dir := range []string{"run-1", "run-2"} {
		fixture.Must(l, unix.Removexattr(l.path("shipped", dir), "user.cis490.state"))
	}
	fixture.WriteFile(l, l.path("shipped", "run-1", "late"), "x")
	if _, found := l.prune(shipped.PruneOptions{}); !strings.Contains(found, "run-1 max_age kept") || !strings.Contains(found, "run-2 max_age deleted") {
		t.Errorf("got %s, want %q in it and %q in it", found, "run-1 max_age kept", "run-2 max_age deleted")
	}
}
