package archive_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/fixture"
)

func (l *lab) contentDigest() digest.Digest {
	l.Helper()
	d, _, err := l.tree(archive.Limits{}).HashContents(l.Context(), func(int) error { return nil })
	fixture.Must(l, err)
	return d
}

// The receiver's digest of an archive is compared with the host's of the tree.
func TestContentsOfTreeAndArchiveAreEqual(t *testing.T) {
	l := newOddLab(t)
	l.writeNoise("blob.bin", 300<<10)
	mkfifo(t, l.path("fifo"))
	packed, _ := l.pack()
	want := l.contentDigest()
	got, err := archive.ContentDigest(bytes.NewReader(packed), io.Discard)
	if err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, err := archive.ContentDigest(bytes.NewReader(packed[:len(packed)-1]), io.Discard); err == nil {
		t.Error("a cut archive has a digest")
	}
}

func TestContentsLeaveOutTimesModesAndOwners(t *testing.T) {
	l := newOddLab(t)
	want := l.contentDigest()
	for _, rel := range []string{"", "telemetry.csv", "meta.json"} {
		fixture.Must(l, os.Chmod(l.path(rel), 0o711))
		fixture.Must(l, os.Chtimes(l.path(rel), time.Now(), time.Unix(1, 0)))
	}
	if got := l.contentDigest(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestContentsDifferForEachDifference(t *testing.T) {
	seen := map[digest.Digest]string{}
	for name, do := range map[string]func(*lab){
		"nothing": func(*lab) {},
		"content": func(l *lab) { l.write("telemetry.csv", "9,9,9\n") },
		"longer":  func(l *lab) { l.append("telemetry.csv", "x") },
		"target": func(l *lab) {
			fixture.Must(l, os.Remove(l.path("link-abs")))
			fixture.Must(l, os.Symlink("/etc/passwe", l.path("link-abs")))
		},
		"type": func(l *lab) {
			fixture.Must(l, os.Remove(l.path("telemetry.csv")))
			fixture.Must(l, os.Symlink("telemetry.csv", l.path("telemetry.csv")))
		},
		"renamed":   func(l *lab) { fixture.Must(l, os.Rename(l.path("telemetry.csv"), l.path("telemetry.csw"))) },
		"new":       func(l *lab) { l.write("zzz", "") },
		"directory": func(l *lab) { fixture.Must(l, os.Mkdir(l.path("zzz"), 0o755)) },
		"gone":      func(l *lab) { fixture.Must(l, os.Remove(l.path("done.marker"))) },
	} {
		l := newOddLab(t)
		do(l)
		sum := l.contentDigest()
		if other, taken := seen[sum]; taken {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[sum] = name
	}
}

// Retiring renames the directory of the episode and sets attributes of it.
func TestMarksBelowOutliveARename(t *testing.T) {
	l := newOddLab(t)
	tree := l.tree(archive.Limits{})
	before, err := tree.ReadMarks(t.Context())
	fixture.Must(l, err)
	fixture.Must(l, os.Chtimes(l.path(""), time.Now(), time.Unix(1, 0)))
	after, err := tree.ReadMarks(t.Context())
	fixture.Must(l, err)
	if after.Below != before.Below || after.Fingerprint == before.Fingerprint {
		t.Errorf("below %s and %s, all %s and %s", before.Below, after.Below, before.Fingerprint, after.Fingerprint)
	}
	l.append("meta.json", " ")
	after, err = tree.ReadMarks(t.Context())
	fixture.Must(l, err)
	if after.Below == before.Below {
		t.Error("a write leaves it as it was")
	}
	if after.ChangedLast != `"meta.json"` || time.Since(after.ChangedAt).Abs() > time.Minute {
		t.Errorf("changed last %s at %v", after.ChangedLast, after.ChangedAt)
	}
}

// When a tree changed, as its packer must know.
func TestMarksTellWhenTheMarkerCame(t *testing.T) {
	l := newOddLab(t)
	marks := func() archive.Marks {
		m, err := l.tree(archive.Limits{}).ReadMarks(t.Context())
		fixture.Must(l, err)
		return m
	}
	fixture.Must(l, os.RemoveAll(l.path("done.marker")))
	if m := marks(); !m.MarkerChangedAt.IsZero() || m.MarkerAlone || m.RootChangedAt.Before(m.ChangedAt) {
		t.Errorf("without a marker %+v", m)
	}
	fixture.Must(l, os.WriteFile(l.path("done.marker"), nil, 0o644))
	m := marks()
	if m.MarkerChangedAt.IsZero() || m.ChangedAt.After(m.MarkerChangedAt) || m.MarkerAlone {
		t.Errorf("with the marker last %+v", m)
	}
	entries, err := os.ReadDir(l.path(""))
	fixture.Must(l, err)
	for _, e := range entries {
		if e.Name() != "done.marker" {
			fixture.Must(l, os.RemoveAll(l.path(e.Name())))
		}
	}
	m = marks()
	if !m.MarkerAlone || !m.ChangedAt.Equal(m.MarkerChangedAt) {
		t.Errorf("with the marker alone %+v", m)
	}
	mkfifo(t, l.path("fifo"))
	m = marks()
	if m.MarkerAlone {
		t.Error("a FIFO beside the marker is nothing")
	}
}

// An unfit tree that is still being copied is distinguished from one that does not change.
func TestSurveyOfAnUnfitTreeTellsWhenItChanged(t *testing.T) {
	l := newOddLab(t)
	fixture.Must(l, os.WriteFile(l.path("meta.json"), nil, 0o644))
	s, err := l.survey()
	if _, unfit := errors.AsType[*archive.UnpackableError](err); !unfit {
		t.Fatalf("got %v, want an Unfit", err)
	}
	if m := s.Marks; m.ChangedLast != `"meta.json"` || time.Since(m.ChangedAt).Abs() > time.Minute || m.RootChangedAt.IsZero() {
		t.Errorf("the marks are %+v", m)
	}
}

func TestMarksTellSkippedEntries(t *testing.T) {
	l := newOddLab(t)
	skips := func() digest.Digest {
		m, err := l.tree(archive.Limits{}).ReadMarks(t.Context())
		fixture.Must(l, err)
		return m.Skips
	}
	without := skips()
	mkfifo(t, l.path("fifo"))
	with := skips()
	if with == without {
		t.Error("a FIFO changes nothing")
	}
	fixture.Must(l, os.Remove(l.path("fifo")))
	mkfifo(t, l.path("fifo"))
	if again := skips(); again != with {
		t.Error("another FIFO of the same name counts as another skip")
	}
}
