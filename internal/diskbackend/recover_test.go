package diskbackend_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/wire"
)

// TestEveryCrashPointIsRecovered creates the state after a crash at each step of an upload,
// starts, and sends the episode again.
func TestEveryCrashPointIsRecovered(t *testing.T) {
	k, content := key("h", "e"), fixture.Noise(200_000, 1)
	for _, c := range []struct {
		what string
		lay  func(l *lab)
		rows int         // after the start
		then wire.Status // of the next attempt
	}{
		{"in the body", func(l *lab) {
			l.removeStored(k)
			fixture.Must(l, os.WriteFile(l.stagedPath(k), content[:100], 0o640))
		}, 0, wire.Stored},
		{"before the link", func(l *lab) {
			fixture.Must(l, os.Rename(l.StoredPath(k), l.stagedPath(k)))
			l.truncateIndex()
		}, 0, wire.Stored},
		{"after the link", func(l *lab) {
			fixture.Must(l, os.Link(l.StoredPath(k), l.stagedPath(k)))
			l.truncateIndex()
		}, 1, wire.AlreadyPresent},
		{"in the row", func(l *lab) {
			fixture.Must(l, os.Link(l.StoredPath(k), l.stagedPath(k)))
			fixture.Must(l, os.Truncate(filepath.Join(l.Data, datadir.IndexFile), 50))
		}, 1, wire.AlreadyPresent},
		{"after the row", func(l *lab) {
			fixture.Must(l, os.Link(l.StoredPath(k), l.stagedPath(k)))
		}, 1, wire.AlreadyPresent},
		{"after the staging name was given up", func(*lab) {}, 1, wire.AlreadyPresent},
		{"after the link, bytes lost", func(l *lab) {
			fixture.Must(l, os.Link(l.StoredPath(k), l.stagedPath(k)))
			l.truncateIndex()
			fixture.Must(l, os.Truncate(l.StoredPath(k), 100_000))
		}, 0, wire.Stored},
		{"beside what is stored", func(l *lab) {
			fixture.Must(l, os.WriteFile(l.stagedPath(k), fixture.Noise(100, 2), 0o640))
		}, 1, wire.AlreadyPresent},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := newLab(t, nil)
			l.WantReceipt(k, content, wire.Stored)
			l.restart(func() { c.lay(l) })
			if rows := l.Rows(); len(rows) != c.rows {
				t.Errorf("%d rows after the start, want %d", len(rows), c.rows)
			}
			l.WantConsistent(c.rows)
			first := l.WantReceipt(k, content, c.then)
			l.WantConsistent(1)
			if again := l.WantReceipt(k, content, wire.AlreadyPresent); again.ReceivedAt != first.ReceivedAt {
				t.Errorf("receipts of %v and %v", first.ReceivedAt, again.ReceivedAt)
			}
			set, err := filepath.Glob(filepath.Join(l.Data, "quarantine", "*", "*"))
			fixture.Must(t, err)
			if lost := strings.Contains(c.what, "lost"); lost != (len(set) == 1) {
				t.Errorf("quarantine has %q", set)
			}
		})
	}
}

// removeStored removes an archive and all rows, so that the store is empty.
func (l *lab) removeStored(k episode.Key) {
	l.Helper()
	fixture.Must(l, os.Remove(l.StoredPath(k)))
	l.truncateIndex()
}

func (l *lab) truncateIndex() {
	l.Helper()
	fixture.Must(l, os.Truncate(filepath.Join(l.Data, datadir.IndexFile), 0))
}

func TestStraysDoNotStopTheStart(t *testing.T) {
	l := newLab(t, nil)
	outside := t.TempDir()
	l.restart(func() {
		fixture.Must(t, os.Symlink(outside, filepath.Join(l.Data, "staging", "linked")))
		fixture.Must(t, os.WriteFile(filepath.Join(l.Data, "staging", "file"), nil, 0o600))
	})
	l.WantReceipt(key("h", "e"), fixture.Noise(10, 1), wire.Stored)
	if r, err := l.Put(key("linked", "e"), fixture.Noise(10, 1)); err == nil {
		t.Errorf("%+v", r)
	}
	if names, _ := os.ReadDir(outside); len(names) != 0 {
		t.Errorf("outside has %v", names)
	}
}

// TestMillionRowsCostNothing starts and serves with a large index, and counts the bytes that
// the process reads.
func TestMillionRowsCostNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 200 MB")
	}
	l := newLab(t, nil)
	l.WantReceipt(key("h", "before"), fixture.Noise(10, 1), wire.Stored)
	l.stop()
	size := writeMillionRows(t, filepath.Join(l.Data, datadir.IndexFile))
	heap, read := heapInUse(), bytesRead(t)
	l.start()
	l.WantReceipt(key("h", "new"), fixture.Noise(10, 2), wire.Stored)
	l.WantReceipt(key("h", "new"), fixture.Noise(10, 2), wire.AlreadyPresent)
	l.WantRefusal(key("h", "new"), fixture.Noise(10, 3), wire.Conflict)
	l.WantReceipt(key("h", "before"), fixture.Noise(10, 1), wire.AlreadyPresent)
	if _, err := l.b.Stat(t.Context(), key("h", "before")); err != nil {
		t.Error(err)
	}
	if n := bytesRead(t) - read; n > 16<<20 {
		t.Errorf("%d of %d bytes were read", n, size)
	}
	if n := heapInUse() - heap; n > 16<<20 {
		t.Errorf("%d bytes more in memory", n)
	}
}

func writeMillionRows(tb testing.TB, path string) int {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(tb, err)
	defer f.Close()
	size := 0
	var b []byte
	for n := range 1_000_000 {
		row := index.Row{ReceivedAt: time.Unix(1_700_000_000, 0), Key: key("h", fmt.Sprint("ep-", n)), SHA256: [32]byte{1, byte(n)}, Size: 7}
		b = row.Append(b)
		if len(b) > 1<<20 || n == 999_999 {
			_, err := f.Write(b)
			fixture.Must(tb, err)
			size += len(b)
			b = b[:0]
		}
	}
	return size
}

func bytesRead(tb testing.TB) int64 {
	tb.Helper()
	b, err := os.ReadFile("/proc/self/io")
	fixture.Must(tb, err)
	var n int64
	_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	fixture.Must(tb, err)
	return n
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
