package fsck_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/index"
	"cis490/internal/store"
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

// lab is a receiver's data directory.
type lab struct {
	testing.TB
	data  string
	store *store.Store
}

func newLab(tb testing.TB, data string) *lab {
	tb.Helper()
	s, err := store.Open(openDir(tb, data))
	fixture.Must(tb, err)
	tb.Cleanup(func() { s.Close() })
	return &lab{tb, data, s}
}

func (l *lab) options() fsck.Options {
	return fsck.Options{EpisodesRoot: filepath.Join(l.data, "episodes"), Index: filepath.Join(l.data, indexName)}
}

// pack returns the archive of an episode whose commit is 40 times c.
func (l *lab) pack(name episode.Name, c string) []byte {
	l.Helper()
	root := l.TempDir()
	dir := filepath.Join(root, string(name))
	fixture.Must(l, os.Mkdir(dir, 0o755))
	meta := fmt.Sprintf(`{"code_version": {"commit": %q}}`, strings.Repeat(c, 40))
	for file, content := range map[string]string{"meta.json": meta, "telemetry.jsonl": strings.Repeat(string(name), 100), "done.marker": ""} {
		fixture.Must(l, os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644))
		fixture.Must(l, os.Chtimes(filepath.Join(dir, file), arrival, arrival)) // the same bytes each time
	}
	fixture.Must(l, os.Chtimes(dir, arrival, arrival))
	parent, err := os.Open(root)
	fixture.Must(l, err)
	defer parent.Close()
	tree, err := archive.OpenTree(parent, string(name), name, archive.Limits{})
	fixture.Must(l, err)
	defer tree.Close()
	survey, err := tree.Survey(l.Context())
	fixture.Must(l, err)
	var b bytes.Buffer
	fixture.Must(l, archive.NewPacker().Pack(l.Context(), &b, tree, survey))
	return b.Bytes()
}

// storeWithoutRow stores an archive as the receiver does and returns its row, which is
// not written. settle ends the upload.
func (l *lab) storeWithoutRow(key episode.Key, b []byte, at time.Time) (index.Row, *store.Upload) {
	l.Helper()
	d, n, err := digest.Of(bytes.NewReader(b))
	fixture.Must(l, err)
	u, err := l.store.CreateUpload(key)
	fixture.Must(l, err)
	_, err = u.Write(b)
	fixture.Must(l, err)
	fixture.Must(l, u.Commit(d, at))
	return index.Row{ReceivedAt: at, Host: key.Host, Episode: key.Name, SHA256: d, Size: n}, u
}

// put stores an archive without a row, as after the loss of the index.
func (l *lab) put(key episode.Key, b []byte) index.Row {
	l.Helper()
	r, u := l.storeWithoutRow(key, b, arrival)
	fixture.Must(l, u.MarkIndexed(r.SHA256, arrival))
	return r
}

// archivePath returns the path of a stored archive.
func (l *lab) archivePath(key episode.Key) string {
	return filepath.Join(l.data, "episodes", string(key.Host), string(key.Name)+store.Suffix)
}

// copyByHand puts a file into the tree by hand.
func (l *lab) copyByHand(name string, b []byte) string {
	l.Helper()
	path := filepath.Join(l.data, "episodes", name)
	fixture.Must(l, os.MkdirAll(filepath.Dir(path), 0o755))
	fixture.Must(l, os.WriteFile(path, b, 0o644))
	return path
}

func key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}
