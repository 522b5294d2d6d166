package outbox_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

const name = episode.Name("run-7")

// A lab is an outbox and the path of its folder.
type lab struct {
	testing.TB
	*outbox.Outbox
	path string
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{TB: t, path: t.TempDir()}
	l.reopen()
	return l
}

// reopen opens the folder again, as a restart does.
func (l *lab) reopen() {
	l.Helper()
	dir, err := durable.Open(l.path)
	fixture.Must(l, err)
	l.Outbox = outbox.New(dir)
	l.TB.Cleanup(func() { dir.Close() })
}

func (l *lab) filePath(file string) string { return filepath.Join(l.path, file) }

func (l *lab) writeFile(file, content string) {
	l.Helper()
	fixture.Must(l, os.WriteFile(l.filePath(file), []byte(content), 0o640))
}

// listFiles returns the names in the folder, sorted.
func (l *lab) listFiles() []string {
	l.Helper()
	entries, err := os.ReadDir(l.path)
	fixture.Must(l, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func (l *lab) wantFiles(want ...string) {
	l.Helper()
	if got := l.listFiles(); !slices.Equal(got, want) {
		l.Errorf("the folder holds %q, want %q", got, want)
	}
}

func sealOf(content string) outbox.Seal {
	d, _, _ := digest.Of(strings.NewReader(content))
	return outbox.Seal{Digest: d, Fingerprint: digest.Short{1, 2, 3, 15: 9}, Skipped: 4}
}

// sealEntry creates an entry with content.
func (l *lab) sealEntry(n episode.Name, content string) error {
	l.Helper()
	draft, err := l.CreateDraft(n)
	fixture.Must(l, err)
	_, err = io.WriteString(draft, content)
	fixture.Must(l, err)
	if err := draft.Seal(sealOf(content)); err != nil {
		return errors.Join(err, draft.Discard())
	}
	return nil
}

// openEntry opens an entry and returns it with its bytes.
func (l *lab) openEntry(n episode.Name) (*outbox.Entry, string) {
	l.Helper()
	e, err := l.OpenEntry(n)
	fixture.Must(l, err)
	l.TB.Cleanup(func() { e.Close() })
	b, err := io.ReadAll(e.Reader())
	fixture.Must(l, err)
	return e, string(b)
}

func TestAnEpisodeIsSealedOnce(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.sealEntry(name, "the first"))
	if err := l.sealEntry(name, "the second"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("sealing again gives %v, want fs.ErrExist", err)
	}
	l.reopen()
	e, content := l.openEntry(name)
	if content != "the first" || e.Seal != sealOf("the first") || e.Size != 9 || e.Name != name {
		t.Errorf("got %q %+v %d %q, want the first", content, e.Seal, e.Size, e.Name)
	}
	l.wantFiles("run-7.tar.zst")
}

func TestADraftIsNoEntry(t *testing.T) {
	l := newLab(t)
	draft, err := l.CreateDraft(name)
	fixture.Must(l, err)
	_, err = io.WriteString(draft, "half")
	fixture.Must(l, err)
	if s, err := l.ReadState(name); err != nil || s != (outbox.State{}) {
		t.Errorf("while packing the state is %+v, %v", s, err)
	}
	if _, err := l.OpenEntry(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening a draft gives %v, want fs.ErrNotExist", err)
	}
	for n, err := range l.Names() {
		t.Errorf("a draft is listed: %q %v", n, err)
	}
	fixture.Must(l, draft.Discard())
	l.wantFiles()
}

func TestWhatACrashLeftIsOverwritten(t *testing.T) {
	l := newLab(t)
	l.writeFile("run-7.tar.zst.partial", strings.Repeat("left by a crash", 100))
	fixture.Must(l, l.sealEntry(name, "new"))
	if _, content := l.openEntry(name); content != "new" {
		t.Errorf("the entry holds %q", content)
	}
}

func TestSweepTakesPartialsOnly(t *testing.T) {
	l := newLab(t)
	keep := []string{".lock", "notes.txt", "run-7.accepted", "run-7.held", "run-7.seal", "run-7.tar.zst"}
	for _, f := range append(keep, "run-7.tar.zst.partial", "run-8.tar.zst.partial") {
		l.writeFile(f, "x")
	}
	fixture.Must(l, l.RemovePartials())
	l.wantFiles(keep...)
}

// A seal is read from three places, in this order. In each case the digest is that of the
// bytes. Only files that packing leaves are removed. A directory of that name does not prevent
// a start.
func TestSweepLeavesADirectory(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, os.Mkdir(l.filePath("run-1.tar.zst.partial"), 0o755))
	fixture.Must(l, os.WriteFile(l.filePath("run-2.tar.zst.partial"), nil, 0o644))
	fixture.Must(l, l.RemovePartials())
	if _, err := os.Stat(l.filePath("run-1.tar.zst.partial")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.filePath("run-2.tar.zst.partial")); err == nil {
		t.Error("a partial is left")
	}
}

func TestTheSealSurvivesTheLossOfItsPlace(t *testing.T) {
	const content = "packed bytes"
	full := sealOf(content)
	noAttr := func(l *lab) { fixture.Must(l, unix.Removexattr(l.filePath("run-7.tar.zst"), "user.cis490.seal")) }
	encoded := func(l *lab) string {
		b := make([]byte, 256)
		n, err := unix.Getxattr(l.filePath("run-7.tar.zst"), "user.cis490.seal", b)
		fixture.Must(l, err)
		return string(b[:n])
	}
	for _, test := range []struct {
		name   string
		damage func(l *lab)
		want   outbox.Seal
	}{
		{"attribute", func(*lab) {}, full},
		{"attribute before sidecar", func(l *lab) { l.writeFile("run-7.seal", strings.Repeat("x", 52)) }, full},
		{"sidecar", func(l *lab) { s := encoded(l); noAttr(l); l.writeFile("run-7.seal", s) }, full},
		{"both lost", noAttr, outbox.Seal{Digest: full.Digest}},
		{"sidecar torn", func(l *lab) { s := encoded(l); noAttr(l); l.writeFile("run-7.seal", s[:20]) }, outbox.Seal{Digest: full.Digest}},
		{"attribute torn", func(l *lab) {
			fixture.Must(l, unix.Setxattr(l.filePath("run-7.tar.zst"), "user.cis490.seal", []byte("short"), 0))
		}, outbox.Seal{Digest: full.Digest}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			fixture.Must(l, l.sealEntry(name, content))
			test.damage(l)
			e, got := l.openEntry(name) // reads from where Entry left the offset
			if got != content || e.Seal != test.want {
				t.Errorf("got %q %+v, want %+v", got, e.Seal, test.want)
			}
			if intact, err := e.IsIntact(); err != nil || !intact {
				t.Errorf("intact: %v, %v", intact, err)
			}
		})
	}
}

func TestCorruptArchiveIsFound(t *testing.T) {
	l := newLab(t)
	fixture.Must(l, l.sealEntry(name, "packed bytes"))
	f, err := os.OpenFile(l.filePath("run-7.tar.zst"), os.O_WRONLY, 0)
	fixture.Must(l, err)
	_, err = f.WriteAt([]byte{'P'}, 0)
	fixture.Must(l, errors.Join(err, f.Close()))
	e, _ := l.openEntry(name)
	if e.Digest != sealOf("packed bytes").Digest {
		t.Error("the digest is not the one that was sealed")
	}
	if intact, err := e.IsIntact(); err != nil || intact {
		t.Errorf("a flipped byte counts as intact: %v, %v", intact, err)
	}
}

func TestAnEntryIsARegularFile(t *testing.T) {
	for kind, make := range map[string]func(path string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o750) },
		"link":      func(p string) error { return os.Symlink("/etc/passwd", p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o640) },
	} {
		t.Run(kind, func(t *testing.T) {
			l := newLab(t)
			fixture.Must(l, make(l.filePath("run-7.tar.zst")))
			if e, err := l.OpenEntry(name); err == nil {
				e.Close()
				t.Error("it was opened")
			}
		})
	}
}

func TestRemoveTakesAllOfAnEntryAndNoHold(t *testing.T) {
	l := newLab(t)
	for _, f := range []string{"run-7.accepted", "run-7.held", "run-7.seal", "run-7.tar.zst", "run-70.tar.zst"} {
		l.writeFile(f, "x")
	}
	fixture.Must(l, l.Remove(name))
	l.wantFiles("run-7.held", "run-70.tar.zst")
	fixture.Must(l, l.Remove(name)) // a second time, after a crash
}

func TestNamesAndStates(t *testing.T) {
	l := newLab(t)
	for _, f := range []string{
		"a.tar.zst", "b.held", "c.tar.zst", "c.held", "d.seal", "e.accepted", "f.tar.zst.partial",
		".lock", ".g.held.tmp", "-h.tar.zst", ".tar.zst", ".held", "i j.held", "ü.tar.zst", "notes",
	} {
		l.writeFile(f, "")
	}
	times := map[episode.Name]int{}
	for n, err := range l.Names() {
		fixture.Must(l, err)
		times[n]++
	}
	if got, want := fmt.Sprint(times), fmt.Sprint(map[episode.Name]int{"a": 1, "b": 1, "c": 2}); got != want {
		t.Errorf("names: got %s, want %s", got, want)
	}
	for n, want := range map[episode.Name]outbox.State{
		"a": {Sealed: true}, "b": {Held: true}, "c": {Sealed: true, Held: true}, "d": {}, "e": {}, "f": {},
	} {
		if got, err := l.ReadState(n); err != nil || got != want {
			t.Errorf("state of %s: got %+v, %v, want %+v", n, got, err, want)
		}
	}
	for range l.Names() {
		break // an iteration that stops early is not called again
	}
}

func TestOneProcessHasTheOutbox(t *testing.T) {
	l := newLab(t)
	if who, held, err := l.Holder(); who != "" || held != durable.LockFree || err != nil {
		t.Errorf("before anybody came: %q %v %v", who, held, err)
	}
	lock, err := l.Lock("the first")
	fixture.Must(l, err)
	_, err = l.Lock("the second")
	if locked, ok := errors.AsType[*durable.LockedError](err); !ok || locked.Holder != "the first" {
		t.Errorf("the second gets %v", err)
	}
	if who, held, err := l.Holder(); who != "the first" || held != durable.LockHeld || err != nil {
		t.Errorf("while it is locked: %q %v %v", who, held, err)
	}
	fixture.Must(l, lock.Unlock())
	if _, held, err := l.Holder(); held != durable.LockFree || err != nil {
		t.Errorf("after it was given up: %v %v", held, err)
	}
}
