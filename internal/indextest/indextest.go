// Package indextest provides rows and indexes for the tests of the packages that read or
// write them.
//
// Invariant: it judges an index by its bytes and [index.ReadRows] alone.
package indextest

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

// IndexName is the name of the index in its directory.
const IndexName = "index.jsonl"

// Arrival is when row 0 arrived.
var Arrival = time.Date(2026, 1, 2, 15, 4, 5, 123456000, time.UTC)

// OpenDir opens a directory for the time of the test.
func OpenDir(tb testing.TB, path string) *durable.Dir {
	tb.Helper()
	d, err := durable.Open(path)
	fixture.Must(tb, err)
	tb.Cleanup(func() { d.Close() })
	return d
}

// OpenLog opens the index in the directory path for the time of the test.
func OpenLog(tb testing.TB, path string) *index.Log {
	tb.Helper()
	l, err := index.Open(OpenDir(tb, path), IndexName, nil)
	fixture.Must(tb, err)
	tb.Cleanup(func() { l.Close() })
	return l
}

// Row returns the n-th row of host lab-01.
func Row(n int) index.Row {
	return index.Row{
		ReceivedAt: Arrival.Add(time.Duration(n) * time.Millisecond),
		Key:        Key("lab-01", fmt.Sprintf("ep-%07d", n)),
		SHA256:     sha256.Sum256(fmt.Append(nil, n)),
		Size:       int64(n),
	}
}

// EncodeRows returns rows as they are in an index.
func EncodeRows(rows ...index.Row) []byte {
	var b []byte
	for _, r := range rows {
		b = r.Append(b)
	}
	return b
}

// ReadRows returns the rows of the index in dir, which must be valid to the
// last byte.
func ReadRows(tb testing.TB, dir string) []index.Row {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, IndexName))
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

// WantOneRowPerKey checks that every key has a single row.
func WantOneRowPerKey(tb testing.TB, dir string, want int) {
	tb.Helper()
	seen := map[episode.Key]int{}
	for _, r := range ReadRows(tb, dir) {
		seen[r.Key]++
		if seen[r.Key] > 1 {
			tb.Errorf("%s has %d rows", r.Key, seen[r.Key])
		}
	}
	if len(seen) != want {
		tb.Errorf("%d keys have a row, want %d", len(seen), want)
	}
}

// SavedTails returns the torn tails that were saved.
func SavedTails(tb testing.TB, dir string) []string {
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

// Key returns the key of an episode.
func Key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}
