package index_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/indextest"

	"cis490/internal/fixture"
	"cis490/internal/index"
)

// openWithNotices opens an index, and returns it with its notices.
func openWithNotices(tb testing.TB, dir string) (*index.Log, *[]index.TailNotice) {
	tb.Helper()
	var all []index.TailNotice
	l, err := index.Open(indextest.OpenDir(tb, dir), indextest.IndexName, func(n index.TailNotice) { all = append(all, n) })
	fixture.Must(tb, err)
	tb.Cleanup(func() { l.Close() })
	return l, &all
}

func TestLastRowGetsItsNewline(t *testing.T) {
	newer := []byte(`{"schema_version": 2, "sha512": "x"}`)
	for name, b := range map[string][]byte{
		"one row":          bytes.TrimSuffix(indextest.EncodeRows(indextest.Row(0)), []byte("\n")),
		"the last of two":  bytes.TrimSuffix(indextest.EncodeRows(indextest.Row(0), indextest.Row(1)), []byte("\n")),
		"behind a bad one": append([]byte("garbage\n"), bytes.TrimSuffix(indextest.EncodeRows(indextest.Row(0)), []byte("\n"))...),
		"a newer schema's": append(indextest.EncodeRows(indextest.Row(0)), newer...),
	} {
		dir := fixture.MemoryDir(t)
		path := filepath.Join(dir, indextest.IndexName)
		fixture.Must(t, os.WriteFile(path, b, 0o644))
		_, said := openWithNotices(t, dir)
		after, err := os.ReadFile(path)
		fixture.Must(t, err)
		if want := string(b) + "\n"; string(after) != want || len(indextest.SavedTails(t, dir)) > 0 {
			t.Errorf("%s: it became %q, saved %q", name, after, indextest.SavedTails(t, dir))
		}
		if len(*said) != 1 || (*said)[0].Kind != index.Completed {
			t.Errorf("%s: it said %v", name, *said)
		}
	}
}

func TestEveryCutNamesTheSavedFile(t *testing.T) {
	dir := fixture.MemoryDir(t)
	fixture.Must(t, os.WriteFile(filepath.Join(dir, indextest.IndexName), append(indextest.EncodeRows(indextest.Row(0)), "half a row"...), 0o644))
	_, said := openWithNotices(t, dir)
	if len(*said) != 1 || (*said)[0].Kind != index.TailCut || (*said)[0].Bytes != 10 {
		t.Fatalf("it said %v", *said)
	}
	if b, err := os.ReadFile((*said)[0].Saved); err != nil || string(b) != "half a row" {
		t.Errorf("%s has %q, %v", (*said)[0].Saved, b, err)
	}
	tails, err := index.ReadTornTails(indextest.OpenDir(t, dir), indextest.IndexName)
	if err != nil || tails.Count != 1 || filepath.Join(dir, tails.Last) != (*said)[0].Saved {
		t.Errorf("there are %+v, %v", tails, err)
	}
}

// An index that is truncated while the receiver runs, as by copytruncate of logrotate.
func TestTruncationIsNoticedBeforeTheNextRow(t *testing.T) {
	dir := fixture.MemoryDir(t)
	path := filepath.Join(dir, indextest.IndexName)
	l, said := openWithNotices(t, dir)
	for n := range 3 {
		_, err := l.Append(t.Context(), indextest.Row(n))
		fixture.Must(t, err)
	}
	if len(*said) > 0 {
		t.Fatalf("it said %v", *said)
	}
	info, err := os.Stat(path)
	fixture.Must(t, err)
	fixture.Must(t, os.Truncate(path, 0))
	_, err = l.Append(t.Context(), indextest.Row(3))
	fixture.Must(t, err)
	if len(*said) != 1 || (*said)[0].Kind != index.Shortened || (*said)[0].Bytes != info.Size() || !strings.Contains((*said)[0].Hint(), "receiver index backfill") {
		t.Errorf("it said %v", *said)
	}
	if rows := indextest.ReadRows(t, dir); len(rows) != 1 || rows[0].Key.Name != indextest.Row(3).Key.Name {
		t.Errorf("the rows are %v", rows)
	}
}

// TestTruncationIsNoticedByAQuestion: hosts ask before they send.
func TestTruncationIsNoticedByAQuestion(t *testing.T) {
	dir := fixture.MemoryDir(t)
	said := make(chan index.TailNotice, 10)
	l, err := index.Open(indextest.OpenDir(t, dir), indextest.IndexName, func(n index.TailNotice) { said <- n })
	fixture.Must(t, err)
	defer l.Close()
	for n := range 3 {
		_, err := l.Append(t.Context(), indextest.Row(n))
		fixture.Must(t, err)
	}
	whole := l.DurableBytes()
	fixture.Must(t, os.Truncate(filepath.Join(dir, indextest.IndexName), 10))
	if tail, err := l.TailHash(whole); tail != "" || err != nil {
		t.Errorf("its end is %q, %v", tail, err)
	}
	if n := <-said; n.Kind != index.Shortened || n.Bytes != whole-10 {
		t.Errorf("it said %v", n)
	}
	fixture.Must(t, l.Close())
	if l.DurableBytes() > 10 {
		t.Errorf("%d bytes are durable", l.DurableBytes())
	}
}
