package index_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

const indexName = "index.jsonl"

var arrival = time.Date(2026, 1, 2, 15, 4, 5, 123456000, time.UTC)

func openDir(tb testing.TB, path string) *durable.Dir {
	tb.Helper()
	d, err := durable.Open(path)
	fixture.Must(tb, err)
	tb.Cleanup(func() { d.Close() })
	return d
}

func openLog(tb testing.TB, path string) *index.Log {
	tb.Helper()
	l, err := index.Open(openDir(tb, path), indexName, nil)
	fixture.Must(tb, err)
	tb.Cleanup(func() { l.Close() })
	return l
}

// row returns the n-th row of host lab-01.
func row(n int) index.Row {
	return index.Row{
		ReceivedAt: arrival.Add(time.Duration(n) * time.Millisecond),
		Host:       "lab-01",
		Episode:    episode.Name(fmt.Sprintf("ep-%07d", n)),
		SHA256:     sha256.Sum256(fmt.Append(nil, n)),
		Size:       int64(n),
	}
}

func encodeRows(rows ...index.Row) []byte {
	var b []byte
	for _, r := range rows {
		b = r.Append(b)
	}
	return b
}

// readRows returns the rows of the index in dir, which must be valid to the
// last byte.
func readRows(tb testing.TB, dir string) []index.Row {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, indexName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	fixture.Must(tb, err)
	if len(b) > 0 && b[len(b)-1] != '\n' {
		tb.Errorf("the index ends with %+q", b[max(0, len(b)-40):])
	}
	var rows []index.Row
	for r, err := range index.ReadRows(bytes.NewReader(b)) {
		if err != nil {
			tb.Errorf("the index is not valid: %v", err)
		}
		rows = append(rows, r)
	}
	return rows
}

// wantOneRowPerKey checks that every key has a single row.
func wantOneRowPerKey(tb testing.TB, dir string, want int) {
	tb.Helper()
	seen := map[episode.Key]int{}
	for _, r := range readRows(tb, dir) {
		if seen[r.Key()]++; seen[r.Key()] > 1 {
			tb.Errorf("%s has %d rows", r.Key(), seen[r.Key()])
		}
	}
	if len(seen) != want {
		tb.Errorf("%d keys have a row, want %d", len(seen), want)
	}
}

// savedTails returns the torn tails that were saved.
func savedTails(tb testing.TB, dir string) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "index.torn-*"))
	fixture.Must(tb, err)
	var saved []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		fixture.Must(tb, err)
		saved = append(saved, string(b))
	}
	return saved
}

func key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}
