package index_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cis490/internal/indextest"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

func TestAppendedRowIsInTheFile(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	for i := range 3 {
		got, err := l.Append(t.Context(), indextest.Row(i))
		fixture.Must(t, err)
		if rows := indextest.ReadRows(t, dir); len(rows) != i+1 || rows[i] != got || got != indextest.Row(i) {
			t.Fatalf("got %+v, the file has %+v", got, rows)
		}
	}
}

func TestAppendRefusesWhatCouldNotBeRead(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	for name, change := range map[string]func(*index.Row){
		"host":   func(r *index.Row) { r.Key.Host = "a\nb" },
		"commit": func(r *index.Row) { r.Commit = `"` },
		"digest": func(r *index.Row) { r.SHA256 = [32]byte{} },
		"year":   func(r *index.Row) { r.ReceivedAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		r := indextest.Row(1)
		change(&r)
		if _, err := l.Append(t.Context(), r); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	if rows := indextest.ReadRows(t, dir); len(rows) != 0 {
		t.Errorf("written: %+v", rows)
	}
}

// lockAsOther locks the index as another process would.
func lockAsOther(tb testing.TB, dir string) (release func()) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(dir, durable.LogLockName(indextest.IndexName)), os.O_RDWR, 0)
	fixture.Must(tb, err)
	fixture.Must(tb, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}))
	return sync.OnceFunc(func() { f.Close() })
}

// waitForAppends returns when n goroutines wait in Append.
func waitForAppends(n int) {
	buf := make([]byte, 1<<20)
	for waiting := -1; waiting != n; runtime.Gosched() {
		waiting = 0
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			state, _, _ := strings.Cut(g, "\n")
			if strings.Contains(g, "index.(*Log).Append(") && strings.Contains(state, "[select") {
				waiting++
			}
		}
	}
}

func TestWaitingAppendsShareOneCommit(t *testing.T) {
	const n = 50
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	release := lockAsOther(t, dir)
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() {
			if _, err := l.Append(t.Context(), indextest.Row(i)); err != nil {
				t.Error(err)
			}
		})
	}
	waitForAppends(n)
	release()
	g.Wait()
	indextest.WantOneRowPerKey(t, dir, n)
	// The first one may have been written alone.
	if l.CommitCount() > 2 {
		t.Errorf("%d commits for %d rows that waited together", l.CommitCount(), n)
	}
}

func TestAbandonedAppendHarmsNoOther(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	release := lockAsOther(t, dir)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	for i := range 10 {
		g.Go(func() {
			if _, err := l.Append(ctx, indextest.Row(i)); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		})
	}
	waitForAppends(10)
	cancel()
	g.Wait()
	release()
	_, err := l.Append(t.Context(), indextest.Row(10))
	fixture.Must(t, err)
	if rows := indextest.ReadRows(t, dir); rows[len(rows)-1].Key.Name != indextest.Row(10).Key.Name {
		t.Errorf("the last row is %+v", rows[len(rows)-1])
	}
}

func TestCloseTellsThoseWhoWait(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	_, err := l.Append(t.Context(), indextest.Row(1))
	fixture.Must(t, err)
	fixture.Must(t, l.Close())
	fixture.Must(t, l.Close())
	if _, err := l.Append(t.Context(), indextest.Row(2)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v, want %v", err, fs.ErrClosed)
	}
	if l.IsAlive(t.Context()) {
		t.Error("alive after Close")
	}
}

func TestAliveOnlyWhileTheCommitterAnswers(t *testing.T) {
	dir := t.TempDir()
	l := indextest.OpenLog(t, dir)
	if !l.IsAlive(t.Context()) {
		t.Fatal("not alive")
	}
	release := lockAsOther(t, dir)
	defer release()
	go l.Append(t.Context(), indextest.Row(1))
	waitForAppends(1)
	for { // the committer may not have received the row yet
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		alive := l.IsAlive(ctx)
		cancel()
		if !alive {
			break
		}
	}
	release()
	if !l.IsAlive(t.Context()) {
		t.Error("not alive after the lock was free")
	}
}

func TestTimeDoesNotGoBackwards(t *testing.T) {
	for name, c := range map[string]struct{ given, want time.Duration }{
		"later":              {time.Second, time.Second},
		"earlier":            {-time.Hour, 0},
		"a day earlier":      {-24 * time.Hour, 0},
		"more than a day":    {-24*time.Hour - time.Microsecond, -24*time.Hour - time.Microsecond},
		"a wrong clock once": {-300 * 24 * time.Hour, -300 * 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			dir := fixture.MemoryDir(t)
			l := indextest.OpenLog(t, dir)
			_, err := l.Append(t.Context(), indextest.Row(0))
			fixture.Must(t, err)
			for _, l := range []*index.Log{l, indextest.OpenLog(t, dir)} { // as known, and as read from the tail
				if got := l.RowTime(indextest.Arrival.Add(c.given)).Sub(indextest.Arrival); got != c.want {
					t.Errorf("Now is %v after the last row, want %v", got, c.want)
				}
			}
			r := indextest.Row(0)
			r.ReceivedAt = indextest.Arrival.Add(c.given)
			got, err := l.Append(t.Context(), r)
			fixture.Must(t, err)
			if d := got.ReceivedAt.Sub(indextest.Arrival); d != c.want || indextest.ReadRows(t, dir)[1] != got {
				t.Errorf("written %v after the last row, want %v", d, c.want)
			}
		})
	}
}

func TestBackfilledRowsDoNotSetTheClock(t *testing.T) {
	dir := fixture.MemoryDir(t)
	old, copied := indextest.Row(0), indextest.Row(1)
	copied.Backfilled = true
	copied.ReceivedAt = indextest.Arrival.Add(time.Hour) // a copy's mtime, not our clock
	fixture.Must(t, os.WriteFile(filepath.Join(dir, indextest.IndexName), indextest.EncodeRows(old, copied), 0o644))
	l := indextest.OpenLog(t, dir)
	for given, want := range map[time.Duration]time.Duration{-time.Minute: 0, time.Minute: time.Minute} {
		if got := l.RowTime(indextest.Arrival.Add(given)).Sub(indextest.Arrival); got != want {
			t.Errorf("%v: got %v, want %v", given, got, want)
		}
	}
	older := indextest.Row(2)
	older.Backfilled, older.ReceivedAt = true, indextest.Arrival.Add(-time.Hour)
	if got, err := l.Append(t.Context(), older); err != nil || got != older {
		t.Errorf("a backfilled row was written as %+v, %v", got, err)
	}
}

func TestTwoLogsShareAFile(t *testing.T) {
	dir := fixture.MemoryDir(t)
	const n = 100
	var g sync.WaitGroup
	for i, l := range []*index.Log{indextest.OpenLog(t, dir), indextest.OpenLog(t, dir)} {
		for j := range 2 {
			g.Go(func() {
				for k := range n {
					r := indextest.Row(i*1000 + j*500 + k)
					r.ReceivedAt = indextest.Arrival.Add(time.Duration(i+k) * time.Minute)
					if _, err := l.Append(t.Context(), r); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	g.Wait()
	indextest.WantOneRowPerKey(t, dir, 4*n)
	last := time.Time{}
	for _, r := range indextest.ReadRows(t, dir) {
		if r.ReceivedAt.Before(last) {
			t.Fatalf("%v follows %v", r.ReceivedAt, last)
		}
		last = r.ReceivedAt
	}
}

func TestAppendRepairsATailThatAnotherProcessTore(t *testing.T) {
	dir := fixture.MemoryDir(t)
	l := indextest.OpenLog(t, dir)
	_, err := l.Append(t.Context(), indextest.Row(0))
	fixture.Must(t, err)
	f, err := os.OpenFile(filepath.Join(dir, indextest.IndexName), os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(t, err)
	other := indextest.Row(60_000)
	_, err = f.Write(append(other.Append(nil), indextest.Row(2).Append(nil)[:50]...))
	fixture.Must(t, errors.Join(err, f.Close()))
	got, err := l.Append(t.Context(), indextest.Row(3))
	fixture.Must(t, err)
	if rows := indextest.ReadRows(t, dir); len(rows) != 3 || rows[2] != got || !got.ReceivedAt.Equal(other.ReceivedAt) {
		t.Errorf("got %+v", rows)
	}
	if saved := indextest.SavedTails(t, dir); len(saved) != 1 || saved[0] != string(indextest.Row(2).Append(nil)[:50]) {
		t.Errorf("saved %q", saved)
	}
}

func TestFindReturnsTheLastRowOfAKey(t *testing.T) {
	dir := fixture.MemoryDir(t)
	l := indextest.OpenLog(t, dir)
	for i := range 20 {
		_, err := l.Append(t.Context(), indextest.Row(i))
		fixture.Must(t, err)
	}
	again := indextest.Row(3)
	again.Repaired, again.ReceivedAt = true, indextest.Row(50).ReceivedAt
	_, err := l.Append(t.Context(), again)
	fixture.Must(t, err)
	escaped := []byte(strings.Replace(string(indextest.Row(99).Append(nil)), "ep-", `\u0065p-`, 1))
	f, err := os.OpenFile(filepath.Join(dir, indextest.IndexName), os.O_WRONLY|os.O_APPEND, 0)
	fixture.Must(t, err)
	_, err = f.Write(append(escaped, `{"on its way`...))
	fixture.Must(t, errors.Join(err, f.Close()))

	for k, want := range map[episode.Key]index.Row{indextest.Row(0).Key: indextest.Row(0), indextest.Row(3).Key: again, indextest.Row(99).Key: indextest.Row(99)} {
		got, found, err := l.FindRow(t.Context(), k)
		if err != nil || !found || got != want {
			t.Errorf("%s: %v %v %+v", k, err, found, got)
		}
	}
	for _, k := range []episode.Key{indextest.Key("lab-02", "ep-0000003"), indextest.Key("lab-01", "ep-000000"), indextest.Key("lab-01", "ep-0000044")} {
		if got, found, err := l.FindRow(t.Context(), k); found || err != nil {
			t.Errorf("%s: %v %+v", k, err, got)
		}
	}
}

// Find reads blocks backward: every row must be found wherever the borders of the blocks are.
func TestFindSeesEveryRowAcrossBlocks(t *testing.T) {
	dir := fixture.MemoryDir(t)
	const n = 2000 // some seven blocks
	var b []byte
	for i := range n {
		b = indextest.Row(i).Append(b)
	}
	fixture.Must(t, os.WriteFile(filepath.Join(dir, indextest.IndexName), b, 0o644))
	l := indextest.OpenLog(t, dir)
	for i := range n {
		if got, found, err := l.FindRow(t.Context(), indextest.Row(i).Key); err != nil || !found || got != indextest.Row(i) {
			t.Fatalf("row %d: %v %v %+v", i, err, found, got)
		}
	}
}

func TestFullDiskLeavesTheIndexValid(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	l := indextest.OpenLog(t, dir)
	ballast := filepath.Join(dir, "ballast")
	fixture.Must(t, os.WriteFile(ballast, make([]byte, 128<<10), 0o644))
	written := 0
	for {
		_, err := l.Append(t.Context(), indextest.Row(written))
		if errors.Is(err, durable.ErrFault) {
			t.Fatal(err)
		}
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		fixture.Must(t, err)
		written++
	}
	indextest.WantOneRowPerKey(t, dir, written)

	release := lockAsOther(t, dir)
	var g sync.WaitGroup
	var refused atomic.Int64
	for i := range 200 { // more than a page, together
		g.Go(func() {
			_, err := l.Append(t.Context(), indextest.Row(1_000_000+i))
			if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, durable.ErrFault) {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	waitForAppends(200)
	release()
	g.Wait()
	rows := len(indextest.ReadRows(t, dir))
	if n := int(refused.Load()); n < 100 || rows != written+200-n {
		t.Errorf("%d rows were refused, and there are %d, before %d", n, rows, written)
	}
	fixture.Must(t, os.Remove(ballast))
	_, err := l.Append(t.Context(), indextest.Row(2_000_000))
	fixture.Must(t, err)
	indextest.WantOneRowPerKey(t, dir, rows+1)
}

// TestFaultIsFinal: a faulty disk or file may seem to work again, but what was lost meanwhile
// is lost.
func TestFaultIsFinal(t *testing.T) {
	path := t.TempDir()
	l, err := index.Open(indextest.OpenDir(t, path), "index.jsonl", nil)
	fixture.Must(t, err)
	defer l.Close()
	fixture.Must(t, os.Rename(path+"/index.jsonl", path+"/moved"))
	_, first := l.Append(t.Context(), indextest.Row(1))
	if !errors.Is(first, durable.ErrFault) {
		t.Fatalf("got %v, want %v", first, durable.ErrFault)
	}
	fixture.Must(t, os.Rename(path+"/moved", path+"/index.jsonl"))
	if _, err := l.Append(t.Context(), indextest.Row(2)); err != first {
		t.Errorf("the second Append returned %v, want the first one's %v", err, first)
	}
	if !l.IsAlive(t.Context()) {
		t.Error("the committer is gone")
	}
}
