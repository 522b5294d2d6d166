package archive_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// TestWhatIsNotContentIsNoDifference: changes by an installer's chown -R, chmod and touch, and
// files that a monitor creates and removes.
func TestWhatIsNotContentIsNoDifference(t *testing.T) {
	l := newOddLab(t)
	l.writeNoise("blob.bin", 300<<10)
	mkfifo(t, l.path("fifo"))
	packed, _ := l.pack()
	tree := l.tree(archive.Limits{})
	compare := func(after string) {
		t.Helper()
		if _, err := archive.Compare(t.Context(), bytes.NewReader(packed), tree); err != nil {
			t.Errorf("after %s: %v", after, err)
		}
	}
	compare("nothing")
	for _, rel := range []string{"", "telemetry.csv", "telemetry", "meta.json"} {
		fixture.Must(l, os.Chmod(l.path(rel), 0o711))
		fixture.Must(l, os.Chtimes(l.path(rel), time.Now(), time.Unix(1, 0)))
		if os.Getuid() == 0 {
			fixture.Must(l, os.Lchown(l.path(rel), 4900, 4900))
		}
	}
	compare("chown, chmod and touch")
	fixture.Must(l, os.Remove(l.path("fifo")))
	compare("a FIFO went")
	mkfifo(t, l.path("fifo-2"))
	compare("a FIFO came")
}

// TestEveryDifferenceIsFound in names, types, targets, sizes and contents.
func TestEveryDifferenceIsFound(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*lab)
		path string // part of the Difference's
	}{
		{"content", func(l *lab) { l.write("telemetry.csv", "9,9,9\n") }, "telemetry"},
		{"last byte of a long file", func(l *lab) {
			b, err := os.ReadFile(l.path("blob.bin"))
			fixture.Must(l, err)
			b[len(b)-1]++
			fixture.Must(l, os.WriteFile(l.path("blob.bin"), b, 0o644))
		}, "blob.bin"},
		{"longer", func(l *lab) { l.append("telemetry.csv", "x") }, "telemetry"},
		{"shorter", func(l *lab) { fixture.Must(l, os.Truncate(l.path("telemetry.csv"), 2)) }, "telemetry"},
		{"target", func(l *lab) {
			fixture.Must(l, os.Remove(l.path("link-abs")))
			fixture.Must(l, os.Symlink("/etc/passwe", l.path("link-abs")))
		}, "link-abs"},
		{"type", func(l *lab) {
			fixture.Must(l, os.Remove(l.path("telemetry.csv")))
			fixture.Must(l, os.Symlink("telemetry.csv", l.path("telemetry.csv")))
		}, "telemetry.csv"},
		{"became a directory", func(l *lab) {
			fixture.Must(l, os.Remove(l.path("done.marker")))
			fixture.Must(l, os.Mkdir(l.path("done.marker"), 0o755))
		}, "done.marker"},
		{"renamed", func(l *lab) { fixture.Must(l, os.Rename(l.path("telemetry.csv"), l.path("telemetry.csw"))) }, "telemetry.csw"},
		{"new", func(l *lab) { l.write("zzz\n", "") }, `zzz\n`},
		{"gone, the last one", func(l *lab) { fixture.Must(l, os.RemoveAll(l.path("zz"))) }, "zz"},
		{"gone", func(l *lab) { fixture.Must(l, os.Remove(l.path("done.marker"))) }, ""},
		{"no meta.json", func(l *lab) { fixture.Must(l, os.Remove(l.path("meta.json"))) }, ""},
		{"became a FIFO", func(l *lab) { fixture.Must(l, os.Remove(l.path("done.marker"))); mkfifo(l, l.path("done.marker")) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newOddLab(t)
			l.writeNoise("blob.bin", 300<<10)
			fixture.Must(l, os.Mkdir(l.path("zz"), 0o755))
			packed, _ := l.pack()
			c.do(l)
			_, err := archive.Compare(t.Context(), bytes.NewReader(packed), l.tree(archive.Limits{}))
			var d *archive.Difference
			if !errors.As(err, &d) {
				t.Fatalf("got %v, want a Difference", err)
			}
			if !strings.Contains(d.Path, c.path) {
				t.Errorf("got %q, want one at %q", d, c.path)
			}
			if c.name == "type" && !strings.Contains(d.What, "type") {
				t.Errorf("got %q, want the type named", d)
			}
			wantPrintable(t, d.Error())
		})
	}
}

// TestComparedArchiveMustBeWhole: a truncated copy does not permit deleting an episode.
func TestComparedArchiveMustBeWhole(t *testing.T) {
	l := newUsualLab(t)
	packed, _ := l.pack()
	tree := l.tree(archive.Limits{})
	for _, b := range [][]byte{packed[:len(packed)-1], packed[:len(packed)/2], nil, append(slices.Clone(packed), 0)} {
		_, err := archive.Compare(t.Context(), bytes.NewReader(b), tree)
		var d *archive.Difference
		if err == nil || errors.As(err, &d) {
			t.Errorf("%d of %d bytes: got %v", len(b), len(packed), err)
		}
	}
}

// TestChangeUnderCompareIsSeen, even if the comparison found no difference.
func TestChangeUnderCompareIsSeen(t *testing.T) {
	for _, rel := range []string{"a-first", "blob.bin", "telemetry.csv"} {
		l := newUsualLab(t)
		l.write("a-first", "first")
		l.writeNoise("blob.bin", 300<<10)
		packed, _ := l.pack()
		// The archive's last bytes are read after blob.bin was opened and
		// before the walk has ended.
		change := &onRead{func() { fixture.Must(l, os.Chmod(l.path(rel), 0o640)) }}
		r := io.MultiReader(bytes.NewReader(packed[:200<<10]), change, bytes.NewReader(packed[200<<10:]))
		_, err := archive.Compare(t.Context(), r, l.tree(archive.Limits{}))
		if rel == "telemetry.csv" { // not read yet, and a mode is no difference
			if err != nil {
				t.Errorf("%s: %v", rel, err)
			}
			continue
		}
		wantChanged(t, err)
	}
}

// onRead calls a function once, when it is read.
type onRead struct{ do func() }

func (o *onRead) Read([]byte) (int, error) {
	o.do()
	return 0, io.EOF
}
