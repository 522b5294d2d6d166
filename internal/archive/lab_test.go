package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

const name = episode.Name("ep-1")

// A lab is an episodes directory with the episode ep-1 in it.
type lab struct {
	testing.TB
	parent  string
	episode string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{TB: t, parent: t.TempDir()}
	l.episode = filepath.Join(l.parent, string(name))
	fixture.Must(l, os.Mkdir(l.episode, 0o755))
	return l
}

// newUsualLab returns a lab with the files that every episode has, and a directory.
func newUsualLab(t testing.TB) *lab {
	l := newLab(t)
	l.write("meta.json", `{"code_version":{"commit":"0123456789ABCDEF0123456789abcdef01234567"}}`)
	l.write("done.marker", "")
	l.write("telemetry/a.jsonl", strings.Repeat(`{"ts":1}`+"\n", 1000))
	l.write("telemetry.csv", "1,2,3\n")
	return l
}

func (l *lab) path(rel string) string { return l.episode + "/" + rel }

func (l *lab) write(rel, content string) {
	l.Helper()
	fixture.WriteFile(l, l.path(rel), content)
}

// writeNoise writes n bytes that do not compress, so that Pack writes output for them.
func (l *lab) writeNoise(rel string, n int) {
	l.Helper()
	l.write(rel, string(fixture.Noise(n, 4)))
}

func (l *lab) tree(limits archive.Limits) *archive.Tree {
	l.Helper()
	t, err := l.open(limits)
	fixture.Must(l, err)
	l.Cleanup(func() { t.Close() })
	return t
}

func (l *lab) open(limits archive.Limits) (*archive.Tree, error) {
	l.Helper()
	parent, err := os.Open(l.parent)
	fixture.Must(l, err)
	defer parent.Close()
	return archive.OpenTree(parent, string(name), name, limits)
}

func (l *lab) survey() (archive.Survey, error) {
	l.Helper()
	return l.tree(archive.Limits{}).Survey(l.Context())
}

// pack packs the episode or fails the test.
func (l *lab) pack() ([]byte, archive.Survey) {
	l.Helper()
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(l.Context())
	fixture.Must(l, err)
	var b bytes.Buffer
	fixture.Must(l, archive.NewPacker().Pack(l.Context(), &b, tree, s))
	return b.Bytes(), s
}

// packDuring packs, and calls during once, after the first bytes are written.
func (l *lab) packDuring(during func()) error {
	l.Helper()
	tree := l.tree(archive.Limits{})
	s, err := tree.Survey(l.Context())
	fixture.Must(l, err)
	done := false
	err = archive.NewPacker().Pack(l.Context(), writerFunc(func(p []byte) (int, error) {
		if !done {
			done = true
			during()
		}
		return len(p), nil
	}), tree, s)
	if !done {
		l.Fatal("Pack wrote nothing")
	}
	return err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// readMembers returns the names in an archive and the contents of its files.
func readMembers(t testing.TB, b []byte) (names []string, contents map[string]string) {
	t.Helper()
	contents = map[string]string{}
	for m, err := range archive.Read(bytes.NewReader(b)) {
		fixture.Must(t, err)
		names = append(names, m.Name)
		content, err := io.ReadAll(m.Content)
		fixture.Must(t, err)
		contents[m.Name] = string(content)
	}
	return names, contents
}

// wantUnpackable fails the test unless err is an UnpackableError whose cause contains part.
func wantUnpackable(t testing.TB, err error, part string) {
	t.Helper()
	var u *archive.UnpackableError
	if !errors.As(err, &u) {
		t.Fatalf("got %v, want an Unfit that names %q", err, part)
	}
	if !strings.Contains(u.Cause, part) {
		t.Errorf("cause %q does not name %q", u.Cause, part)
	}
	wantPrintable(t, u.Cause)
}

func wantPrintable(t testing.TB, s string) {
	t.Helper()
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			t.Fatalf("%q is not printable ASCII", s)
		}
	}
}

func wantChanged(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, archive.ErrChanged) {
		t.Fatalf("got %v, want ErrChanged", err)
	}
}

// runTool runs a program and returns its output.
func runTool(t testing.TB, stdin []byte, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(fixture.RequireTool(t, program), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// listTree lists a tree: path, type and mode, mtime, content or target. It omits what an
// archive omits. Python sets times from a float, and none of links, so times are cut to tick
// and may omit links.
func listTree(t testing.TB, root string, tick time.Duration, linkTimes bool) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var what string
		when := info.ModTime().Round(tick).UnixNano()
		if d.Type() == fs.ModeSymlink && !linkTimes {
			when = 0
		}
		switch d.Type() {
		case 0:
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = string(b)
		case fs.ModeSymlink:
			if what, err = os.Readlink(path); err != nil {
				return err
			}
		case fs.ModeDir:
		default:
			return nil
		}
		lines = append(lines, fmt.Sprintf("%q %v %d %q", strings.TrimPrefix(path, root), info.Mode(), when, what))
		return nil
	})
	fixture.Must(t, err)
	return lines
}

func mkfifo(t testing.TB, path string) {
	t.Helper()
	fixture.Must(t, syscall.Mkfifo(path, 0o644))
}
