package fsck_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"cis490/internal/indextest"

	"github.com/google/go-cmp/cmp"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/index"
)

func (l *lab) backfill(change ...func(*fsck.Options)) (fsck.BackfillReport, []string) {
	l.Helper()
	opts := l.options()
	var bad []string
	opts.Bad = func(err error) { bad = append(bad, err.Error()) }
	for _, c := range change {
		c(&opts)
	}
	r, err := fsck.Backfill(l.Context(), opts)
	fixture.Must(l, err)
	return r, bad
}

func setDryRun(o *fsck.Options) { o.DryRun = true }

func TestBackfillWritesTheRowOfArrival(t *testing.T) {
	l := newLab(t, t.TempDir())
	want := l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "A"))
	want.Backfilled, want.Commit = true, strings.Repeat("a", 40)
	r, bad := l.backfill()
	if rows := indextest.ReadRows(t, l.data); len(rows) != 1 || rows[0] != want || len(bad) > 0 {
		t.Errorf("%v, got %+v, want %+v", bad, rows, want)
	}
	if diff := cmp.Diff(fsck.BackfillReport{Scanned: 1, Missing: 1, Written: 1}, r); diff != "" {
		t.Error(diff)
	}
}

func TestBackfillTakesTheFilesTimeWithoutAttribute(t *testing.T) {
	l := newLab(t, t.TempDir())
	path := l.copyByHand("lab-01/ep-1.tar.zst", l.pack("ep-1", "z"))
	fixture.Must(t, os.Chtimes(path, indextest.Arrival, indextest.Arrival))
	l.backfill()
	if rows := indextest.ReadRows(t, l.data); len(rows) != 1 || !rows[0].ReceivedAt.Equal(indextest.Arrival) || rows[0].Commit != "" {
		t.Errorf("got %+v", rows)
	}
}

func TestBackfillTwiceIsBackfillOnce(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	l.put(indextest.Key("lab-02", "ep-1"), l.pack("ep-1", "b")) // the same name, another host
	l.backfill()
	r, _ := l.backfill()
	if diff := cmp.Diff(fsck.BackfillReport{Scanned: 2, Indexed: 2}, r); diff != "" {
		t.Error(diff)
	}
	indextest.WantOneRowPerKey(t, l.data, 2)
}

func TestBackfillWithNothingToDoWritesNothing(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.backfill()
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	l.backfill(setDryRun)
	if _, err := os.Lstat(filepath.Join(l.data, indextest.IndexName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the index: %v", err)
	}
}

func TestDryRunShowsTheRowsThatWouldCome(t *testing.T) {
	l := newLab(t, t.TempDir())
	for i := range 8 {
		l.put(indextest.Key("lab-01", fmt.Sprint("ep-", i)), l.pack(episode.Name(fmt.Sprint("ep-", i)), "a"))
	}
	r, _ := l.backfill(setDryRun)
	if r.Missing != 8 || len(r.Rows) != 5 || r.More != 3 || r.Written != 0 {
		t.Errorf("got %+v", r)
	}
	l.backfill()
	if diff := cmp.Diff(r.Rows, indextest.ReadRows(t, l.data)[:5]); diff != "" {
		t.Error(diff)
	}
}

func TestBackfillOfOneHostLeavesTheOthers(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	l.put(indextest.Key("lab-02", "ep-1"), l.pack("ep-1", "a"))
	r, _ := l.backfill(func(o *fsck.Options) { o.Host = "lab-02" })
	if rows := indextest.ReadRows(t, l.data); r.Scanned != 1 || len(rows) != 1 || rows[0].Key.Host != "lab-02" {
		t.Errorf("%+v, %+v", r, rows)
	}
	if r, bad := l.backfill(func(o *fsck.Options) { o.Host = "lab-99" }); r.Scanned != 0 || len(bad) > 0 {
		t.Errorf("an unknown host: %+v, %q", r, bad)
	}
}

func TestBackfillNeedsAStore(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	fixture.Must(t, os.WriteFile(file, nil, 0o644))
	for _, root := range []string{filepath.Join(dir, "none"), file} {
		_, err := fsck.Backfill(t.Context(), fsck.Options{EpisodesRoot: root, Index: filepath.Join(dir, indextest.IndexName)})
		if !errors.Is(err, fsck.ErrNoEpisodes) || err.Error() != "no episodes dir at "+root {
			t.Errorf("got %v", err)
		}
	}
}

func TestBackfillBlessesNoDamage(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.put(indextest.Key("lab-01", "a-good"), l.pack("a-good", "a"))
	flipped := l.put(indextest.Key("lab-01", "b-flipped"), l.pack("b-flipped", "a"))
	b, err := os.ReadFile(l.archivePath(flipped.Key))
	fixture.Must(t, err)
	b[len(b)/2] ^= 1
	fixture.Must(t, os.WriteFile(l.archivePath(flipped.Key), b, 0o644))
	whole := l.pack("c-cut", "a")
	l.copyByHand("lab-01/c-cut.tar.zst", whole[:len(whole)-7])
	l.copyByHand("lab-01/d-empty.tar.zst", nil)
	l.copyByHand("lab-01/e-text.tar.zst", []byte("no archive"))
	swapped := l.put(indextest.Key("lab-01", "f-swapped"), l.pack("f-swapped", "a"))
	fixture.Must(t, os.WriteFile(l.archivePath(swapped.Key), l.pack("f-swapped", "b"), 0o644)) // decodes, and is not what was received
	fixture.Must(t, os.MkdirAll(filepath.Join(l.data, "episodes/lab-01/g-dir.tar.zst"), 0o755))
	fixture.Must(t, os.Symlink("a-good.tar.zst", filepath.Join(l.data, "episodes/lab-01/h-link.tar.zst")))
	fixture.Must(t, os.WriteFile(filepath.Join(l.data, "episodes/lab-01/notes.txt"), nil, 0o644)) // the original skipped it as well
	l.put(indextest.Key("lab-02", "z-good"), l.pack("z-good", "a"))

	r, bad := l.backfill()
	if r.Written != 2 || r.Bad != 7 || r.Missing != 7 || len(bad) != 7 {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"b-flipped", "c-cut", "d-empty", "e-text", "f-swapped", "g-dir", "h-link"} {
		if n := strings.Count(strings.Join(bad, "\n"), name+".tar.zst"); n != 1 {
			t.Errorf("%s was told of %d times: %q", name, n, bad)
		}
	}
	indextest.WantOneRowPerKey(t, l.data, 2)
}

func TestBackfillLeavesUploadsToTheReceiver(t *testing.T) {
	l := newLab(t, t.TempDir())
	_, u := l.storeWithoutRow(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"), indextest.Arrival)
	r, _ := l.backfill()
	if diff := cmp.Diff(fsck.BackfillReport{Underway: 1}, r); diff != "" {
		t.Error(diff)
	}
	fixture.Must(t, u.MarkIndexed(indextest.Arrival))
	if r, _ := l.backfill(); r.Written != 1 {
		t.Errorf("settled without a row: %+v", r)
	}
}

func TestBackfillRepairsATornTailFirst(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	fixture.Must(t, os.WriteFile(filepath.Join(l.data, indextest.IndexName), append(indextest.EncodeRows(indextest.Row(1)), "{\"half\x00"...), 0o644))
	l.backfill()
	indextest.WantOneRowPerKey(t, l.data, 2)
	if saved := indextest.SavedTails(t, l.data); len(saved) != 1 {
		t.Errorf("saved %q", saved)
	}
}

func TestBackfillInBatchesIsTheSame(t *testing.T) {
	l := newLab(t, fixture.MemoryDir(t))
	const hosts, each = 3, 7
	for h := range hosts {
		for i := range each {
			name := episode.Name(fmt.Sprint("ep-", i))
			k := indextest.Key(fmt.Sprint("lab-", h), string(name))
			r := l.put(k, l.pack(name, "a"))
			if i%3 == 0 {
				appendRows(t, l.data, r)
			}
		}
	}
	r, bad := l.backfill(func(o *fsck.Options) { o.Batch = 4 })
	if r.Scanned != 21 || r.Indexed != 9 || r.Written != 12 || len(bad) > 0 {
		t.Errorf("%+v %q", r, bad)
	}
	indextest.WantOneRowPerKey(t, l.data, 21)
}

func appendRows(tb testing.TB, dir string, rows ...index.Row) {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(dir, indextest.IndexName), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	fixture.Must(tb, err)
	_, err = f.Write(indextest.EncodeRows(rows...))
	fixture.Must(tb, errors.Join(err, f.Close()))
}

func TestTwoBackfillsAndAReceiverMakeNoDuplicate(t *testing.T) {
	l := newLab(t, fixture.MemoryDir(t))
	archives := map[string][]byte{}
	for i := range 30 {
		name := fmt.Sprintf("ep-%02d", i)
		archives[name] = l.pack(episode.Name(name), "a")
		if i < 20 {
			l.put(indextest.Key("old", name), archives[name])
		}
	}
	log := indextest.OpenLog(t, l.data)
	var receiver, backfills sync.WaitGroup
	receiver.Go(func() { // as the receiver stores uploads
		for name, b := range archives {
			row, u := l.storeWithoutRow(indextest.Key("new", name), b, indextest.Arrival)
			if _, err := log.Append(t.Context(), row); err != nil {
				t.Error(err)
			}
			if err := u.MarkIndexed(row.ReceivedAt); err != nil {
				t.Error(err)
			}
		}
		for i := range 20 { // and as it ensures rows on the 200 path
			name := fmt.Sprintf("ep-%02d", i)
			_, found, err := log.FindRow(t.Context(), indextest.Key("new", name))
			if err != nil || !found {
				t.Errorf("%s: %v %v", name, found, err)
			}
		}
	})
	for range 4 {
		backfills.Go(func() {
			opts := l.options()
			opts.Batch = 7
			for range 5 {
				if _, err := fsck.Backfill(t.Context(), opts); err != nil {
					t.Error(err)
				}
				if r, err := fsck.Verify(t.Context(), opts, func(f fsck.Finding) {
					if f.Kind != fsck.FileWithoutRow || f.Host != "old" { // another backfill is not that far yet
						t.Errorf("a false alarm: %+v", f)
					}
				}); err != nil {
					t.Error(err, r)
				}
			}
		})
	}
	backfills.Wait()
	receiver.Wait()
	indextest.WantOneRowPerKey(t, l.data, 50)
}

func TestBackfillDropsRowsThatCameWhileItRead(t *testing.T) {
	l := newLab(t, t.TempDir())
	first := l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	l.put(indextest.Key("lab-01", "ep-2"), l.pack("ep-2", "a"))
	came := sync.OnceFunc(func() { appendRows(t, l.data, first) })
	r, _ := l.backfill(func(o *fsck.Options) { o.Progress = func(int) { came() } })
	if r.Missing != 2 || r.Written != 1 {
		t.Errorf("got %+v, want Missing 2 and Written 1", r)
	}
	indextest.WantOneRowPerKey(t, l.data, 2)
}

func TestBackfillSeesRowsInPlaceOfGarbage(t *testing.T) {
	l := newLab(t, t.TempDir())
	first := l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	path := filepath.Join(l.data, indextest.IndexName)
	good := indextest.EncodeRows(indextest.Row(1))
	fixture.Must(t, os.WriteFile(path, append(bytes.Clone(good), strings.Repeat("garbage\n", 200)...), 0o644))
	came := sync.OnceFunc(func() { fixture.Must(t, os.WriteFile(path, append(good, indextest.EncodeRows(first)...), 0o644)) })
	l.backfill(func(o *fsck.Options) { o.Progress = func(int) { came() } })
	indextest.WantOneRowPerKey(t, l.data, 2)
}

func TestInterruptedBackfillKeepsWhatItWrote(t *testing.T) {
	l := newLab(t, fixture.MemoryDir(t))
	b := l.pack("ep", "a")
	for i := range 300 {
		l.copyByHand(fmt.Sprintf("lab-01/ep-%03d.tar.zst", i), b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	opts := l.options()
	n := 0
	opts.Progress = func(int) {
		n++
		if n == 280 {
			cancel()
		}
	}
	r, err := fsck.Backfill(ctx, opts)
	if !errors.Is(err, context.Canceled) || r.Written == 0 {
		t.Errorf("%v, %+v", err, r)
	}
	indextest.WantOneRowPerKey(t, l.data, int(r.Written))
}

func TestCancelledBackfillLeavesAValidIndex(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	opts := l.options()
	opts.Progress = func(int) { cancel() }
	opts.Bad = func(err error) { t.Errorf("told of as bad: %v", err) }
	if _, err := fsck.Backfill(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	indextest.ReadRows(t, l.data)
}

// The original tool and this one must make the same rows of one tree, except for the times, and
// for faults that only the original has.
func TestBackfillMakesTheOriginalsRows(t *testing.T) {
	tool := os.Getenv("CIS490_ORIGINAL_BACKFILL")
	if tool == "" {
		tool = "/work/shared/original/index_backfill.py"
	}
	for _, need := range []string{"python3", "zstd"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skip(err)
		}
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skip(err)
	}
	l := newLab(t, t.TempDir())
	for i := range 7 {
		name := episode.Name(fmt.Sprint("ep-", i))
		r := l.put(indextest.Key(fmt.Sprint("lab-", i%2), string(name)), l.pack(name, string("aB0z"[i%4])))
		if i == 3 {
			appendRows(t, l.data, r)
		}
	}
	theirs := filepath.Join(t.TempDir(), "theirs.jsonl")
	b, err := os.ReadFile(filepath.Join(l.data, indextest.IndexName))
	fixture.Must(t, err)
	fixture.Must(t, os.WriteFile(theirs, b, 0o644))
	out, err := exec.Command("python3", tool, "--episodes-root", l.options().EpisodesRoot, "--index", theirs).CombinedOutput()
	fixture.Must(t, err)
	r, _ := l.backfill()
	if want := fmt.Sprintf("scanned: %d already-indexed: %d to-backfill: %d\n", r.Scanned, r.Indexed, r.Missing); !strings.HasPrefix(string(out), want) {
		t.Errorf("the original said %s, ours %s", out, want)
	}
	b, err = os.ReadFile(theirs)
	fixture.Must(t, err)
	ours, err := os.ReadFile(filepath.Join(l.data, indextest.IndexName))
	fixture.Must(t, err)
	if diff := cmp.Diff(withoutTimes(t, b), withoutTimes(t, ours)); diff != "" {
		t.Errorf("theirs and ours: %s", diff)
	}
}

// withoutTimes returns lines without the time of those that were backfilled.
func withoutTimes(tb testing.TB, b []byte) []string {
	tb.Helper()
	var all []string
	for line := range bytes.Lines(b) {
		var m map[string]any
		fixture.Must(tb, json.Unmarshal(line, &m))
		at := m["received_at_wall"].(string)
		if m["backfilled"] == true {
			line = bytes.Replace(line, []byte(at), []byte("TIME"), 1)
		}
		all = append(all, string(line))
	}
	return all
}

// peakHeap returns the peak of the live heap while do runs, as sampled at each call of the
// function that do gets.
func peakHeap(do func(sample func(int))) uint64 {
	most := uint64(0)
	do(func(int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	})
	return most
}

func TestMemoryDoesNotGrowWithTheIndex(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 12 MB")
	}
	l := newLab(t, fixture.MemoryDir(t))
	l.put(indextest.Key("lab-01", "ep-1"), l.pack("ep-1", "a"))
	var b []byte
	for i := range 50_000 {
		b = indextest.Row(i).Append(b)
	}
	fixture.Must(t, os.WriteFile(filepath.Join(l.data, indextest.IndexName), b, 0o644))
	b = nil
	most := peakHeap(func(sample func(int)) {
		opts := l.options()
		opts.Progress = sample
		if r, err := fsck.Backfill(t.Context(), opts); err != nil || r.Written != 1 {
			t.Errorf("got %v %+v, want Written 1", err, r)
		}
		n := 0
		opts.Deep = true
		r, err := fsck.Verify(t.Context(), opts, func(fsck.Finding) {
			n++
			if n%10_000 == 0 {
				sample(0)
			}
		})
		if err != nil || n != 50_000 || r.Rows != 50_001 {
			t.Errorf("%v, %d findings, %+v", err, n, r)
		}
	})
	if most > 8<<20 {
		t.Errorf("%d bytes of heap for an index of 12 MB", most)
	}
}
