package outbox_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// retired makes a folder with a retired episode beside the outbox.
func (l *lab) retired() (*durable.Dir, string) {
	l.Helper()
	path := l.TempDir()
	at := filepath.Join(path, "run-7")
	l.must(os.MkdirAll(filepath.Join(at, "sub"), 0o755))
	for _, name := range []string{episode.Marker, "meta.json", "sub/file"} {
		l.must(os.WriteFile(filepath.Join(at, name), []byte(name), 0o644))
	}
	d, err := durable.Open(path)
	l.must(err)
	l.Cleanup(func() { d.Close() })
	return d, at
}

// What a crash leaves of a deletion must not be taken for a finished episode,
// wherever somebody moves it.
func TestTrashTakesTheMarkerFirst(t *testing.T) {
	l := newLab(t)
	from, at := l.retired()
	l.must(l.Trash(from, "run-7", nil))
	left, err := filepath.Glob(l.at(".trash/run-7~*"))
	l.must(err)
	if len(left) != 1 {
		t.Fatalf("in the trash: %q", left)
	}
	if _, err := os.Stat(filepath.Join(left[0], episode.Marker)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the marker: %v", err)
	}
	if _, err := os.Stat(at); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still in its folder: %v", err)
	}
	l.must(l.Empty(t.Context()))
	l.must(l.Empty(t.Context()))
	if left, err := os.ReadDir(l.at(".trash")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for name, err := range l.Names() {
		t.Errorf("the outbox takes the trash for %s, %v", name, err)
	}
}

func TestTrashGivesBackWhatIsNotMeant(t *testing.T) {
	l := newLab(t)
	from, at := l.retired()
	other := errors.New("another one")
	if err := l.Trash(from, "run-7", func(*durable.Dir) error { return other }); !errors.Is(err, other) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{episode.Marker, "meta.json", "sub/file"} {
		if _, err := os.Stat(filepath.Join(at, name)); err != nil {
			t.Error(err)
		}
	}
	if err := l.Trash(from, "run-8", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
