package outbox_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/outbox"
)

// makeRetired makes a folder with a retired episode beside the outbox.
func (l *lab) makeRetired() (*durable.Dir, string) {
	l.Helper()
	path := l.TempDir()
	at := filepath.Join(path, "run-7")
	fixture.Must(l, os.MkdirAll(filepath.Join(at, "sub"), 0o755))
	for _, name := range []string{episode.Marker, "meta.json", "sub/file"} {
		fixture.Must(l, os.WriteFile(filepath.Join(at, name), []byte(name), 0o644))
	}
	d, err := durable.Open(path)
	fixture.Must(l, err)
	l.Cleanup(func() { d.Close() })
	return d, at
}

func (l *lab) openTrash() *outbox.Trash {
	l.Helper()
	trash, err := l.OpenTrash("the test")
	fixture.Must(l, err)
	l.Cleanup(func() { trash.Close() })
	return trash
}

// discardEpisode moves the episode into the trash.
func (l *lab) discardEpisode(trash *outbox.Trash, from *durable.Dir) *outbox.Discarded {
	l.Helper()
	d, err := trash.Discard(from, "run-7")
	fixture.Must(l, err)
	l.Cleanup(func() { d.Close() })
	return d
}

// judgeNow returns a judgement that covers all files that exist.
func judgeNow() time.Time { return time.Now().Add(time.Minute) }

func all(durable.Stat) bool { return true }

func (l *lab) listTrash() []string {
	l.Helper()
	entries, err := os.ReadDir(l.filePath(".trash"))
	fixture.Must(l, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestOneProcessAtATimeHasTheTrash(t *testing.T) {
	l := newLab(t)
	first := l.openTrash()
	_, err := l.OpenTrash("another one")
	if locked, ok := errors.AsType[*durable.LockedError](err); !ok || locked.Holder != "the test" {
		t.Errorf("got %v, want that the test has it", err)
	}
	fixture.Must(l, first.Close())
	l.openTrash()
}

func TestNothingIsDeletedWithoutAJudgement(t *testing.T) {
	l := newLab(t)
	trash := l.openTrash()
	from, _ := l.makeRetired()
	d := l.discardEpisode(trash, from)
	if err := d.Delete(t.Context(), all); err == nil {
		t.Error("deleted what nobody has judged")
	}
	if _, err := d.Lstat(episode.Marker); err != nil {
		t.Errorf("the marker: %v", err)
	}
	fixture.Must(l, d.RecordJudgement(judgeNow()))
	fixture.Must(l, d.Delete(t.Context(), all))
	if left := l.listTrash(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	for name, err := range l.Names() {
		t.Errorf("the outbox takes the trash for %s, %v", name, err)
	}
}

// A judgement survives the process, and covers the files that it has seen.
func TestAFileThatChangedSinceTheJudgementIsKept(t *testing.T) {
	l := newLab(t)
	trash := l.openTrash()
	from, at := l.makeRetired()
	d := l.discardEpisode(trash, from)
	st, err := d.Lstat("meta.json")
	fixture.Must(l, err)
	_, ctime := st.Times()
	fixture.Must(l, d.RecordJudgement(time.Unix(ctime.Unix()).Add(time.Hour)))
	late := filepath.Join(l.filePath(".trash"), d.Name(), "sub", "late")
	fixture.Must(l, os.WriteFile(late, nil, 0o644))
	fixture.Must(l, d.Close())

	d, err = trash.Open(l.listTrash()[0])
	fixture.Must(l, err)
	defer d.Close()
	j, judged := d.ReadJudgement()
	if !judged || !j.Equal(time.Unix(ctime.Unix()).Add(time.Hour)) {
		t.Errorf("judged %v: %v", judged, j)
	}
	err = d.Delete(t.Context(), func(s durable.Stat) bool { return s.Size() > 0 })
	if !errors.Is(err, durable.ErrKept) {
		t.Errorf("got %v, want that it was kept", err)
	}
	name, err := d.Restore(from)
	if err != nil || name != "run-7" {
		t.Errorf("restored as %s, %v", name, err)
	}
	if _, err := os.Stat(filepath.Join(at, "sub", "late")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(at, "sub", "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was judged is still there: %v", err)
	}
}

func TestAFileYoungerThanTheJudgementIsKept(t *testing.T) {
	l := newLab(t)
	trash := l.openTrash()
	from, _ := l.makeRetired()
	d := l.discardEpisode(trash, from)
	fixture.Must(l, d.RecordJudgement(time.Unix(1, 0)))
	if err := d.Delete(t.Context(), all); !errors.Is(err, durable.ErrKept) {
		t.Errorf("got %v, want that all was kept", err)
	}
	for _, name := range []string{episode.Marker, "meta.json"} {
		if _, err := d.Lstat(name); err != nil {
			t.Error(err)
		}
	}
}

// Its former name may have been taken by a later run.
func TestRestoringReplacesNothing(t *testing.T) {
	l := newLab(t)
	trash := l.openTrash()
	from, at := l.makeRetired()
	d := l.discardEpisode(trash, from)
	fixture.Must(l, d.RecordJudgement(judgeNow()))
	fixture.Must(l, os.Mkdir(at, 0o755))
	name, err := d.Restore(from)
	if err != nil || name != "run-7~2" {
		t.Errorf("restored as %s, %v", name, err)
	}
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(at), "run-7~2", "meta.json")); err != nil || string(b) != "meta.json" {
		t.Errorf("got %q, %v, want %q", b, err, "meta.json")
	}
	d = l.discardEpisode(trash, from) // the other one
	if j, judged := d.ReadJudgement(); judged {
		t.Errorf("judged %v", j)
	}
	if left := l.listTrash(); !slices.Equal(left, []string{d.Name()}) {
		t.Errorf("left: %q", left)
	}
	if _, err := trash.Discard(from, "run-8"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
