package fsck_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/indextest"

	"cis490/internal/archive"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fsck"
	"cis490/internal/index"
	"cis490/internal/store"
)

// lab is a receiver's data directory.
type lab struct {
	testing.TB
	data  string
	store *store.Store
}

func newLab(tb testing.TB, data string) *lab {
	tb.Helper()
	s, err := store.Open(indextest.OpenDir(tb, data))
	fixture.Must(tb, err)
	tb.Cleanup(func() { s.Close() })
	return &lab{tb, data, s}
}

func (l *lab) options() fsck.Options {
	return fsck.Options{EpisodesRoot: filepath.Join(l.data, "episodes"), Index: filepath.Join(l.data, indextest.IndexName)}
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
		fixture.Must(l, os.Chtimes(filepath.Join(dir, file), indextest.Arrival, indextest.Arrival)) // the same bytes each time
	}
	fixture.Must(l, os.Chtimes(dir, indextest.Arrival, indextest.Arrival))
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
	return index.Row{ReceivedAt: at, Key: key, SHA256: d, Size: n}, u
}

// put stores an archive without a row, as after the loss of the index.
func (l *lab) put(key episode.Key, b []byte) index.Row {
	l.Helper()
	r, u := l.storeWithoutRow(key, b, indextest.Arrival)
	fixture.Must(l, u.MarkIndexed(indextest.Arrival))
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
