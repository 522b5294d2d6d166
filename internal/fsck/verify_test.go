package fsck_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// verify returns findings as "kind host/episode line".
func (l *lab) verify(change ...func(*fsck.Options)) []string {
	l.Helper()
	opts := l.options()
	for _, c := range change {
		c(&opts)
	}
	found := []string{}
	r, err := fsck.Verify(l.Context(), opts, func(f fsck.Finding) {
		found = append(found, fmt.Sprintf("%s %s/%s %d", f.Kind, f.Host, f.Episode, f.Line))
	})
	fixture.Must(l, err)
	if int(r.Findings) != len(found) {
		l.Errorf("%d findings reported, %d told", r.Findings, len(found))
	}
	slices.Sort(found)
	return found
}

func setDeep(o *fsck.Options) { o.Deep = true }

// newLabWith returns a lab with n archives, and their rows.
func newLabWith(t *testing.T, n int) (*lab, []index.Row) {
	l := newLab(t, fixture.MemoryDir(t))
	var rows []index.Row
	for i := range n {
		name := episode.Name(fmt.Sprint("ep-", i))
		rows = append(rows, l.put(indextest.Key("lab-01", string(name)), l.pack(name, "a")))
	}
	appendRows(t, l.data, rows...)
	return l, rows
}

// The total matches what is checked and read, also in batches.
func TestTotalIsWhatIsChecked(t *testing.T) {
	l, _ := newLabWith(t, 5)
	for _, batch := range []int{0, 1, 2, 5} {
		for _, deep := range []bool{false, true} {
			var totals, archives, size, checked, read int64
			l.verify(func(o *fsck.Options) {
				o.Batch, o.Deep = batch, deep
				o.Total = func(n, bytes int64) { totals++; archives, size = n, bytes }
				o.Checked = func() { checked++ }
				o.Progress = func(n int) { read += int64(n) }
			})
			if totals != 1 || archives != 5 || checked != 5 || size != read || deep != (read > 0) {
				t.Errorf("batch %d, deep %v: %d totals, the last of %d archives and %d bytes; %d checked, %d bytes read",
					batch, deep, totals, archives, size, checked, read)
			}
		}
	}
	fixture.Must(t, os.Remove(l.options().Index))
	opts := l.options()
	var archives, size, checked, read int64
	opts.Total = func(n, bytes int64) { archives, size = n, bytes }
	opts.Checked = func() { checked++ }
	opts.Progress = func(n int) { read += int64(n) }
	_, err := fsck.Backfill(l.Context(), opts)
	fixture.Must(t, err)
	if archives != 5 || checked != 5 || size != read {
		t.Errorf("backfill: %d archives and %d bytes; %d checked, %d bytes read", archives, size, checked, read)
	}
}

func TestVerifyFindsNothingInAGoodStore(t *testing.T) {
	l, rows := newLabWith(t, 5)
	again := rows[2]
	again.Repaired = true
	appendRows(t, l.data, again)
	for _, batch := range []int{0, 1, 2, 5} {
		if found := l.verify(setDeep, func(o *fsck.Options) { o.Batch = batch }); len(found) > 0 {
			t.Errorf("in batches of %d: %q", batch, found)
		}
	}
}

func none(*fsck.Options) {}

// faults are what can be wrong with a store of three episodes, and what verify must find.
var faults = map[string]struct {
	do   func(l *lab, rows []index.Row)
	with func(*fsck.Options)
	want []string
}{
	"a file without a row": {
		func(l *lab, _ []index.Row) { l.put(indextest.Key("lab-02", "new"), l.pack("new", "a")) }, none,
		[]string{"file-without-row lab-02/new 0"},
	},
	"a row without a file": {
		func(l *lab, rows []index.Row) { fixture.Must(l, os.Remove(l.archivePath(rows[1].Key))) }, none,
		[]string{"row-without-file lab-01/ep-1 2"},
	},
	"another size": {
		func(l *lab, rows []index.Row) { fixture.Must(l, os.Truncate(l.archivePath(rows[1].Key), 10)) }, none,
		[]string{"size-differs lab-01/ep-1 2"},
	},
	"another digest": {func(l *lab, rows []index.Row) {
		r := rows[0]
		r.SHA256, r.Repaired = rows[1].SHA256, true
		appendRows(l, l.data, r)
	}, none, []string{"digest-differs lab-01/ep-0 4"}},
	"a second row": {
		func(l *lab, rows []index.Row) { appendRows(l, l.data, rows[2]) }, none,
		[]string{"duplicate-row lab-01/ep-2 4"},
	},
	"a bad line": {func(l *lab, rows []index.Row) {
		fixture.Must(l, os.WriteFile(filepath.Join(l.data, indextest.IndexName), append([]byte("bad\n"), indextest.EncodeRows(rows...)...), 0o644))
	}, none, []string{"bad-line / 1"}},
	"a torn tail": {func(l *lab, rows []index.Row) {
		fixture.Must(l, os.WriteFile(filepath.Join(l.data, indextest.IndexName), append(indextest.EncodeRows(rows...), 0, 0), 0o644))
	}, none, []string{"torn-tail / 4"}},
	"strays": {func(l *lab, rows []index.Row) {
		l.copyByHand("lab-01/notes.txt", nil)
		l.copyByHand("lab-01/-.tar.zst", nil)
		l.copyByHand("file", nil)
		fixture.Must(l, os.Mkdir(filepath.Join(l.data, "episodes", "..."), 0o755))
	}, none, []string{"stray / 0", "stray / 0", "stray / 0", "stray / 0"}},
	"rot, not looked for": {corruptFirst, none, nil},
	"rot":                 {corruptFirst, setDeep, []string{"damaged lab-01/ep-0 1"}},
	"no archive": {func(l *lab, _ []index.Row) {
		appendRows(l, l.data, l.put(indextest.Key("lab-01", "text"), []byte("no archive")))
	}, setDeep, []string{"damaged lab-01/text 4"}},
	"other bytes": {func(l *lab, rows []index.Row) {
		b := l.pack("ep-0", "b")
		fixture.Must(l, os.WriteFile(l.archivePath(rows[0].Key), b, 0o644)) // keeps the attribute
		rows[0].Size = int64(len(b))
		fixture.Must(l, os.WriteFile(filepath.Join(l.data, indextest.IndexName), indextest.EncodeRows(rows...), 0o644))
	}, setDeep, []string{"damaged lab-01/ep-0 1"}},
	"no index": {
		func(l *lab, _ []index.Row) { fixture.Must(l, os.Remove(filepath.Join(l.data, indextest.IndexName))) }, none,
		[]string{"file-without-row lab-01/ep-0 0", "file-without-row lab-01/ep-1 0", "file-without-row lab-01/ep-2 0"},
	},
	"a bad row of a key": {func(l *lab, rows []index.Row) {
		b := indextest.EncodeRows(rows...)
		fixture.Must(l, os.WriteFile(filepath.Join(l.data, indextest.IndexName), slices.Concat(b[:len(b)-2], []byte(`, "skipped": -1}`+"\n")), 0o644))
	}, none, []string{"bad-line lab-01/ep-2 3"}},
	"a partial copy": {func(l *lab, rows []index.Row) {
		fixture.Must(l, os.Remove(l.archivePath(rows[0].Key)))
		fixture.Must(l, os.Truncate(l.archivePath(rows[1].Key), 10))
	}, func(o *fsck.Options) { o.Present = true }, []string{"size-differs lab-01/ep-1 2"}},
	"an empty store": {
		func(l *lab, _ []index.Row) { fixture.Must(l, os.RemoveAll(filepath.Join(l.data, "episodes/lab-01"))) }, none,
		[]string{"row-without-file lab-01/ep-0 1", "row-without-file lab-01/ep-1 2", "row-without-file lab-01/ep-2 3"},
	},
}

func TestVerifyNamesEachFault(t *testing.T) {
	for name, c := range faults {
		for _, batch := range []int{0, 2} {
			l, rows := newLabWith(t, 3)
			c.do(l, rows)
			got := l.verify(c.with, func(o *fsck.Options) { o.Batch = batch })
			if diff := cmp.Diff(append([]string{}, c.want...), got); diff != "" {
				t.Errorf("%s, in batches of %d: %s", name, batch, diff)
			}
		}
	}
}

// corruptFirst flips a bit of the first episode and keeps its attribute.
func corruptFirst(l *lab, rows []index.Row) {
	path := l.archivePath(rows[0].Key)
	b, err := os.ReadFile(path)
	fixture.Must(l, err)
	b[len(b)/2] ^= 1
	fixture.Must(l, os.WriteFile(path, b, 0o644))
}

func TestVerifyChangesNothing(t *testing.T) {
	l, rows := newLabWith(t, 2)
	b := append(indextest.EncodeRows(rows...), "torn"...)
	fixture.Must(t, os.WriteFile(filepath.Join(l.data, indextest.IndexName), b, 0o644))
	l.verify(setDeep)
	after, err := os.ReadFile(filepath.Join(l.data, indextest.IndexName))
	fixture.Must(t, err)
	if diff := cmp.Diff(string(b), string(after)); diff != "" || len(indextest.SavedTails(t, l.data)) > 0 {
		t.Error(diff)
	}
}

func TestVerifyLeavesUploadsAlone(t *testing.T) {
	l, _ := newLabWith(t, 1)
	_, u := l.storeWithoutRow(indextest.Key("lab-01", "on-its-way"), l.pack("on-its-way", "a"), indextest.Arrival)
	defer u.Abandon()
	if found := l.verify(setDeep); len(found) > 0 {
		t.Errorf("found %q", found)
	}
}

func TestVerifyDoesNotJudgeAnUploadThatSettlesMeanwhile(t *testing.T) {
	l, _ := newLabWith(t, 1)
	row, u := l.storeWithoutRow(indextest.Key("lab-01", "on-its-way"), l.pack("on-its-way", "a"), indextest.Arrival)
	settle := sync.OnceFunc(func() { // while the first archive is read, after the index was
		appendRows(t, l.data, row)
		fixture.Must(t, u.MarkIndexed(indextest.Arrival))
	})
	if found := l.verify(setDeep, func(o *fsck.Options) { o.Progress = func(int) { settle() } }); len(found) > 0 {
		t.Errorf("found %q", found)
	}
}

func TestVerifyTakesARowOnItsWayForNoTornTail(t *testing.T) {
	l, rows := newLabWith(t, 2)
	b := indextest.EncodeRows(rows...)
	path := filepath.Join(l.data, indextest.IndexName)
	fixture.Must(t, os.WriteFile(path, b[:len(b)-1], 0o644))
	arrive := sync.OnceFunc(func() { fixture.Must(t, os.WriteFile(path, append(b, `{"the next`...), 0o644)) })
	found := l.verify(setDeep, func(o *fsck.Options) { o.Progress = func(int) { arrive() } })
	// Without its newline it was no row at the first look.
	if slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, string(fsck.TornTail)) }) {
		t.Errorf("found %q", found)
	}
}

func TestVerifyLooksTwiceForAMissingFile(t *testing.T) {
	l, rows := newLabWith(t, 1)
	hidden := l.archivePath(rows[0].Key) + ".away"
	fixture.Must(t, os.Rename(l.archivePath(rows[0].Key), filepath.Join(l.data, filepath.Base(hidden))))
	fixture.Must(t, os.WriteFile(filepath.Join(l.data, indextest.IndexName), append(indextest.EncodeRows(rows...), "bad\n"...), 0o644))
	_, err := fsck.Verify(t.Context(), l.options(), func(f fsck.Finding) {
		if f.Kind != fsck.BadLine {
			t.Errorf("found %+v", f)
			return
		}
		fixture.Must(t, os.Rename(filepath.Join(l.data, filepath.Base(hidden)), l.archivePath(rows[0].Key))) // it is back
	})
	fixture.Must(t, err)
}

func TestVerifyOfOneHostLeavesTheOthers(t *testing.T) {
	l, _ := newLabWith(t, 1)
	l.put(indextest.Key("lab-02", "new"), l.pack("new", "a"))
	gone := indextest.Row(9)
	gone.Key.Host = "lab-03"
	appendRows(t, l.data, gone)
	only := func(host episode.Name) func(*fsck.Options) { return func(o *fsck.Options) { o.Host = host } }
	if found := l.verify(only("lab-01")); len(found) > 0 {
		t.Errorf("found %q", found)
	}
	if found := l.verify(only("lab-02")); len(found) != 1 {
		t.Errorf("found %q", found)
	}
}
