package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// newOddLab returns a lab with names and nodes that break tar readers.
func newOddLab(t testing.TB) *lab {
	l := newUsualLab(t)
	for _, s := range []string{
		"new\nline", "latin-\xe9.csv", "\xff\xfe", "snow\u2603man", "tab\t and \x1b[31m", "back\\slash",
		" space ", "-rf", "=", "12 path=x", strings.Repeat("n", 255), strings.Repeat("\u00fc", 127),
		"deep/" + strings.Repeat("d", 200) + "/" + strings.Repeat("e", 255) + "/f",
	} {
		l.write("odd/"+s, "content of "+s)
	}
	fixture.Must(l, os.Mkdir(l.path("empty"), 0o700))
	l.write("run.sh", "#!/bin/sh\n")
	fixture.Must(l, os.Chmod(l.path("run.sh"), os.ModeSetuid|0o755))
	for to, from := range map[string]string{
		"/etc/passwd": "link-abs", "../../outside": "link-up", "telemetry": "link-dir", "nowhere": "link-dangling",
		strings.Repeat("t", 4000): "link-long", "\xe9\n": "link-latin",
	} {
		fixture.Must(l, os.Symlink(to, l.path(from)))
	}
	fixture.Must(l, os.Link(l.path("telemetry.csv"), l.path("telemetry-again.csv")))
	for i, s := range []string{"telemetry.csv", "done.marker", "telemetry/a.jsonl", "telemetry"} {
		when := time.Unix(1_700_000_000+int64(i), int64(i)*123_456_789)
		fixture.Must(l, os.Chtimes(l.path(s), when, when))
	}
	old := time.Date(1969, 7, 20, 20, 17, 40, 500_000_000, time.UTC)
	fixture.Must(l, os.Chtimes(l.path("run.sh"), old, old))
	return l
}

// TestSystemToolsUnpackTheSourceTree: GNU tar, the zstd command and Python's
// tarfile get back what was packed.
func TestSystemToolsUnpackTheSourceTree(t *testing.T) {
	l := newOddLab(t)
	packed, _ := l.pack()
	plain := runTool(t, packed, "zstd", "-d", "-c")
	fixture.Must(l, os.Chmod(l.path("run.sh"), 0o755)) // set-uid is not packed
	for _, c := range []struct {
		program   string
		tick      time.Duration
		linkTimes bool
		args      []string
	}{
		{"tar", 1, true, []string{"-x", "-p", "-C"}},
		{"python3", time.Millisecond, false, []string{"-c", "import sys, tarfile\n" +
			"tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)\n" +
			"tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall(sys.argv[1])"}},
	} {
		t.Run(c.program, func(t *testing.T) {
			out := t.TempDir()
			runTool(t, []byte(plain), c.program, append(c.args, out)...)
			want := listTree(t, l.episode, c.tick, c.linkTimes)
			got := listTree(t, filepath.Join(out, string(name)), c.tick, c.linkTimes)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("unpacked tree differs (-want +got):\n%s", d)
			}
		})
	}
}

// TestOneFrameWithChecksumAndSize is what common readers need.
func TestOneFrameWithChecksumAndSize(t *testing.T) {
	for _, c := range []struct {
		name        string
		noise, text int
	}{{"small", 0, 0}, {"large", 9 << 20, 0}, {"packed by two goroutines", 34 << 20, 34 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			l := newUsualLab(t)
			l.writeNoise("blob.bin", c.noise)
			l.write("calls.jsonl", strings.Repeat(`{"ts":12345,"call":"NtCreateFile"}`+"\n", c.text/35))
			packed, s := l.pack()
			file := filepath.Join(t.TempDir(), "x.tar.zst")
			fixture.Must(l, os.WriteFile(file, packed, 0o600))
			facts := runTool(t, nil, "zstd", "-l", "-v", file)
			for _, want := range []string{"# Zstandard Frames: 1\n", "Check: XXH64"} {
				if !strings.Contains(facts, want) {
					t.Errorf("zstd -l -v does not say %q:\n%s", want, facts)
				}
			}
			if !strings.Contains(facts, "("+strconv.FormatInt(s.Size, 10)+" B)") {
				t.Errorf("zstd -l -v does not state the size %d:\n%s", s.Size, facts)
			}
			if got := len(runTool(t, packed, "zstd", "-d", "-c")); int64(got) != s.Size {
				t.Errorf("decoded to %d bytes, surveyed %d", got, s.Size)
			}
		})
	}
}

// TestSurveyTellsTheArchive: entries and bytes are those of the members.
func TestSurveyTellsTheArchive(t *testing.T) {
	l := newOddLab(t)
	packed, s := l.pack()
	names, contents := readMembers(t, packed)
	var bytes int64
	for _, c := range contents {
		bytes += int64(len(c))
	}
	if s.Entries != len(names) || s.Bytes != bytes || s.Skipped.Count != 0 {
		t.Errorf("surveyed %d entries, %d bytes, skipped %+v; archive has %d, %d", s.Entries, s.Bytes, s.Skipped, len(names), bytes)
	}
	again, err := l.survey()
	fixture.Must(l, err)
	if d := cmp.Diff(s, again); d != "" {
		t.Errorf("two surveys of an untouched tree differ:\n%s", d)
	}
}

// TestSameTreeSameBytes also for a Packer that has packed other things, or failed before; for a
// large episode, with any number of goroutines.
func TestSameTreeSameBytes(t *testing.T) {
	l := newOddLab(t)
	l.writeNoise("blob.bin", 300<<10)
	l.write("big.jsonl", strings.Repeat(`{"ts":12345,"call":"NtCreateFile"}`+"\n", 40_000))
	other := newUsualLab(t)
	other.writeNoise("other.bin", 200<<10)
	other.write("big.jsonl", strings.Repeat(`{"call":"NtCreateFile","ts":12345}`+"\n", 50_000))
	want, _ := l.pack()
	wantSamePack(t, archive.NewPacker(), l, other, want)
	if os.Getuid() == 0 { // an owner is no part of an archive
		fixture.Must(l, os.Chown(l.path("telemetry.csv"), 4900, 4900))
		fixture.Must(l, os.Chown(l.path("telemetry"), 4900, 4900))
		fixture.Must(l, os.Chown(l.episode, 4900, 4900))
	}
	if got, _ := l.pack(); !bytes.Equal(got, want) {
		t.Error("a chown changed the bytes")
	}

	const section = 1 << 20 // that one goroutine of several takes
	l.writeNoise("middle.bin", section+1)
	l.write("more.jsonl", strings.Repeat(`{"ts":12345,"call":"NtCreateFile"}`+"\n", section/10))
	var b bytes.Buffer
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	fixture.Must(l, archive.NewPackerOf(2).Pack(t.Context(), &b, tree, s))
	for _, goroutines := range []int{2, 3} {
		wantSamePack(t, archive.NewPackerOf(goroutines), l, other, b.Bytes())
	}
}

// wantSamePack checks that a packer packs l to the same bytes each time, whatever it packed
// before.
func wantSamePack(t *testing.T, p *archive.Packer, l, other *lab, want []byte) {
	t.Helper()
	tree, otherTree := l.tree(archive.Limits{}), other.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	so, err := otherTree.Survey(t.Context())
	fixture.Must(l, err)
	for range 3 {
		fixture.Must(l, p.Pack(t.Context(), &bytes.Buffer{}, otherTree, so))
		wantChanged(t, p.Pack(t.Context(), &bytes.Buffer{}, otherTree, s))
		var b bytes.Buffer
		fixture.Must(l, p.Pack(t.Context(), &b, tree, s))
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatal("the same tree gave other bytes")
		}
	}
}

// TestMetaIsFirst and the rest sorted by bytes, depth first.
func TestMetaIsFirst(t *testing.T) {
	l := newUsualLab(t)
	l.write("a", "")
	l.write("Z/z", "")
	l.write("Z.txt", "")
	packed, _ := l.pack()
	names, _ := readMembers(t, packed)
	want := []string{
		"ep-1/meta.json", "ep-1/", "ep-1/Z/", "ep-1/Z/z", "ep-1/Z.txt", "ep-1/a", "ep-1/done.marker",
		"ep-1/telemetry/", "ep-1/telemetry/a.jsonl", "ep-1/telemetry.csv",
	}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
}

// TestHeadersIdentifyNoHost: no owner, no set-uid, no times except the mtime.
func TestHeadersIdentifyNoHost(t *testing.T) {
	l := newOddLab(t)
	if os.Getuid() == 0 {
		fixture.Must(l, os.Chown(l.path("run.sh"), 4900, 4901))
		fixture.Must(l, os.Chmod(l.path("run.sh"), os.ModeSetuid|0o755))
	}
	packed, _ := l.pack()
	out := runTool(t, []byte(runTool(t, packed, "zstd", "-d", "-c")), "python3", "-c", `
import sys, tarfile
for m in tarfile.open(fileobj=sys.stdin.buffer, mode="r|"):
    bad = set(m.pax_headers) - {"path", "linkpath", "mtime", "size"}
    if m.uid or m.gid or m.uname or m.gname or m.mode & ~0o777 or bad:
        print(ascii(m.name), m.uid, m.gid, m.uname, m.gname, oct(m.mode), bad)
`)
	if out != "" {
		t.Errorf("headers say too much:\n%s", out)
	}
}

// TestPackStopsWhenCancelled within a chunk, though the file is long.
func TestPackStopsWhenCancelled(t *testing.T) {
	l := newUsualLab(t)
	l.writeNoise("blob.bin", 8<<20)
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	ctx, cancel := context.WithCancel(t.Context())
	written := 0
	err = archive.NewPacker().Pack(ctx, writerFunc(func(p []byte) (int, error) {
		cancel()
		written += len(p)
		return len(p), nil
	}), tree, s)
	if !errors.Is(err, context.Canceled) || written > 512<<10 {
		t.Errorf("got %v after %d bytes", err, written)
	}
	if _, err := tree.Survey(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Survey: got %v", err)
	}
}

// TestWriteErrorIsPassedOn so that the caller can tell a full disk.
func TestWriteErrorIsPassedOn(t *testing.T) {
	l := newUsualLab(t)
	tree := l.tree(archive.Limits{})
	full := errors.New("full")
	for _, noise := range []int{0, 1 << 20} { // at Close, and before
		l.writeNoise("blob.bin", noise)
		s, err := tree.Survey(t.Context())
		fixture.Must(l, err)
		err = archive.NewPacker().Pack(t.Context(), writerFunc(func([]byte) (int, error) { return 0, full }), tree, s)
		if !errors.Is(err, full) {
			t.Errorf("got %v, want %v", err, full)
		}
	}
}

// TestWhoEndsEarlyIsAlone: when Pack returns, for whatever reason, nothing is written any more
// and no goroutine is left.
func TestWhoEndsEarlyIsAlone(t *testing.T) {
	l := newUsualLab(t)
	l.writeNoise("blob.bin", 9<<20)
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(t.Context())
	fixture.Must(l, err)
	full := errors.New("full")
	for goroutines := range 4 {
		for _, at := range []int{0, 1, 1 << 20, 5 << 20, 9 << 20} {
			for _, want := range []error{full, context.Canceled} {
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					written, calls := 0, 0
					w := writerFunc(func(p []byte) (int, error) {
						calls++
						written += len(p)
						if written <= at {
							return len(p), nil
						}
						if want == full {
							return 0, full
						}
						cancel()
						return len(p), nil
					})
					err := archive.NewPackerOf(1+goroutines).Pack(ctx, w, tree, s)
					before := calls
					synctest.Wait()
					if !errors.Is(err, want) || calls != before {
						t.Errorf("%d goroutines, from byte %d on: %v, and %d writes behind it, want %v and none", 1+goroutines, at, err, calls-before, want)
					}
				})
			}
		}
	}
}
