package archive_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// changes are possible changes to a file that Pack reads after the blob.
var changes = []struct {
	name string
	do   func(l *lab)
}{
	{"vanished", func(l *lab) { fixture.Must(l, os.Remove(l.path("telemetry.csv"))) }},
	{"directory vanished", func(l *lab) { fixture.Must(l, os.RemoveAll(l.path("telemetry"))) }},
	{"grew", func(l *lab) { l.append("telemetry.csv", "4,5,6\n") }},
	{"shrank", func(l *lab) { fixture.Must(l, os.Truncate(l.path("telemetry.csv"), 3)) }},
	{"same size", func(l *lab) { l.append("telemetry.csv", ""); l.write("telemetry.csv", "9,9,9\n") }},
	{"replaced by itself", func(l *lab) {
		l.write("new", "1,2,3\n")
		fixture.Must(l, os.Rename(l.path("new"), l.path("telemetry.csv")))
	}},
	{"became a link", func(l *lab) {
		fixture.Must(l, os.Remove(l.path("telemetry.csv")))
		fixture.Must(l, os.Symlink("/etc/passwd", l.path("telemetry.csv")))
	}},
	{"became a FIFO", func(l *lab) {
		fixture.Must(l, os.Remove(l.path("telemetry.csv")))
		mkfifo(l, l.path("telemetry.csv"))
	}},
	{"new file", func(l *lab) { l.write("zzz", "") }},
	{"new socket-like", func(l *lab) { mkfifo(l, l.path("zzz")) }},
	{"changed behind the reader", func(l *lab) { l.append("a-first", "more") }},
	{"changed the file being read", func(l *lab) { l.append("blob.bin", "more") }},
	{"shrank the file being read", func(l *lab) { fixture.Must(l, os.Truncate(l.path("blob.bin"), 700<<10)) }},
}

func (l *lab) append(rel, content string) {
	l.Helper()
	f, err := os.OpenFile(l.path(rel), os.O_APPEND|os.O_WRONLY, 0)
	fixture.Must(l, err)
	_, err = f.WriteString(content)
	fixture.Must(l, err)
	fixture.Must(l, f.Close())
}

// TestChangeUnderPackIsSeen, whether it happens before Pack or during it.
func TestChangeUnderPackIsSeen(t *testing.T) {
	for _, c := range changes {
		fill := func(t *testing.T) *lab {
			l := newUsualLab(t)
			l.write("a-first", "first")
			l.writeNoise("blob.bin", 1<<20)
			return l
		}
		t.Run(c.name, func(t *testing.T) {
			l := fill(t)
			tree := l.tree(archive.Limits{})
			s, err := tree.Survey(t.Context())
			fixture.Must(l, err)
			c.do(l)
			wantChanged(t, archive.NewPacker().Pack(t.Context(), &bytes.Buffer{}, tree, s))
		})
		t.Run(c.name+" while packing", func(t *testing.T) {
			l := fill(t)
			err := l.packDuring(func() { c.do(l) })
			wantChanged(t, err)
			if strings.HasSuffix(c.name, "being read") && !strings.Contains(err.Error(), `"blob.bin"`) {
				t.Errorf("%v: want it seen when the file had been read", err)
			}
		})
	}
}

// TestGrowingTreeDoesNotFillTheDisk: Pack writes no more than was surveyed.
func TestGrowingTreeDoesNotFillTheDisk(t *testing.T) {
	l := newUsualLab(t)
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	l.writeNoise("blob.bin", 4<<20)
	var b bytes.Buffer
	wantChanged(t, archive.NewPacker().Pack(t.Context(), &b, tree, s))
	if int64(b.Len()) > s.Size {
		t.Errorf("wrote %d bytes for a survey of %d", b.Len(), s.Size)
	}
}
