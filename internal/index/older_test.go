package index_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"cis490/internal/indextest"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

// lockIndex takes the lock that a program of an older version takes to append, or that
// any reader can take.
func lockIndex(tb testing.TB, dir string, kind int16) (release func()) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(dir, indextest.IndexName), os.O_RDWR, 0)
	fixture.Must(tb, err)
	fixture.Must(tb, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind}))
	return func() { f.Close() }
}

// TestTailIsNotCutWhileAnOlderProgramRuns: it may be the row that this one writes.
func TestTailIsNotCutWhileAnOlderProgramRuns(t *testing.T) {
	for kind, locked := range map[int16]bool{unix.F_WRLCK: true, unix.F_RDLCK: false} {
		dir := t.TempDir()
		whole := indextest.EncodeRows(indextest.Row(0))
		b := append(bytes.Clone(whole), "torn"...)
		fixture.Must(t, os.WriteFile(filepath.Join(dir, indextest.IndexName), b, 0o644))
		release := lockIndex(t, dir, kind)
		l, err := index.Open(indextest.OpenDir(t, dir), indextest.IndexName, nil)
		if err == nil {
			fixture.Must(t, l.Close())
		}
		want, copies := whole, 1
		if locked {
			want, copies = b, 0
		}
		if _, is := errors.AsType[*durable.LockedError](err); is != locked || err != nil && !is {
			t.Errorf("lock of kind %d: got %v", kind, err)
		}
		after, err := os.ReadFile(filepath.Join(dir, indextest.IndexName))
		fixture.Must(t, err)
		if !bytes.Equal(after, want) || len(indextest.SavedTails(t, dir)) != copies {
			t.Errorf("lock of kind %d: the index holds %q, and %d tails are saved", kind, after, len(indextest.SavedTails(t, dir)))
		}
		release()
		l, err = index.Open(indextest.OpenDir(t, dir), indextest.IndexName, nil)
		fixture.Must(t, err)
		fixture.Must(t, l.Close())
		if after, err := os.ReadFile(filepath.Join(dir, indextest.IndexName)); err != nil || !bytes.Equal(after, whole) {
			t.Errorf("without a lock the index holds %q, %v", after, err)
		}
	}
}

// TestAppendWaitsForNoReader of the index, whatever it locks.
func TestAppendWaitsForNoReader(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	_, err := l.Append(t.Context(), indextest.Row(0))
	fixture.Must(t, err)
	defer lockIndex(t, dir, unix.F_RDLCK)()
	_, err = l.Append(t.Context(), indextest.Row(1))
	fixture.Must(t, err)
	if rows := indextest.ReadRows(t, dir); len(rows) != 2 {
		t.Errorf("the index has %d rows, want 2", len(rows))
	}
}
