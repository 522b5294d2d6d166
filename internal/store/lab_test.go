package store_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"cis490/internal/digest"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/store"
)

// arrival has nanoseconds, as time.Now returns.
var arrival = time.Date(2026, 1, 2, 15, 4, 5, 123456789, time.UTC)

func key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}

// lab is a data directory with a store.
type lab struct {
	testing.TB
	data string
	*store.Store
}

func newLab(tb testing.TB) *lab { return openLab(tb, tb.TempDir()) }

func openLab(tb testing.TB, data string) *lab {
	tb.Helper()
	d, err := durable.Open(data)
	fixture.Must(tb, err)
	tb.Cleanup(func() { d.Close() })
	s, err := store.Open(d)
	fixture.Must(tb, err)
	tb.Cleanup(func() { s.Close() })
	return &lab{tb, data, s}
}

func sum(content string) digest.Digest { return sha256.Sum256([]byte(content)) }

// upload writes content in staging.
func (l *lab) upload(k episode.Key, content string) *store.Upload {
	l.Helper()
	u, err := l.CreateUpload(k)
	fixture.Must(l, err)
	_, err = u.Write([]byte(content))
	fixture.Must(l, err)
	return u
}

// commitWithoutRow stores content and keeps the staging name, as before its row is written.
func (l *lab) commitWithoutRow(k episode.Key, content string) {
	l.Helper()
	u := l.upload(k, content)
	fixture.Must(l, u.Commit(sum(content), arrival))
	fixture.Must(l, u.Abandon())
}

// put stores content, and removes its staging name.
func (l *lab) put(k episode.Key, content string) {
	l.Helper()
	u := l.upload(k, content)
	fixture.Must(l, u.Commit(sum(content), arrival))
	fixture.Must(l, u.MarkIndexed(arrival))
}

func (l *lab) storedPath(k episode.Key) string {
	return filepath.Join(l.data, "episodes", string(k.Host), string(k.Name)+store.Suffix)
}

func (l *lab) stagedPath(host, name string) string {
	return filepath.Join(l.data, "staging", host, name)
}

// listFiles returns all files below the data directory, without their nonces.
func (l *lab) listFiles() string {
	l.Helper()
	var names []string
	fixture.Must(l, filepath.Walk(l.data, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		rel, err := filepath.Rel(l.data, path)
		if i := strings.Index(rel, "~"); i >= 0 {
			rel = rel[:i+1]
		}
		names = append(names, rel)
		return err
	}))
	sort.Strings(names)
	return strings.Join(names, " ")
}

func (l *lab) wantFiles(want string) {
	l.Helper()
	if got := l.listFiles(); got != want {
		l.Errorf("the store has  %s\n            want %s", got, want)
	}
}

func (l *lab) wantContent(path, want string) {
	l.Helper()
	b, err := os.ReadFile(path)
	fixture.Must(l, err)
	if !bytes.Equal(b, []byte(want)) {
		l.Errorf("%s holds %.40q, want %.40q", path, b, want)
	}
}

// writeFile writes a file anywhere, as an operator would.
func (l *lab) writeFile(path, content string) {
	l.Helper()
	fixture.Must(l, os.MkdirAll(filepath.Dir(path), 0o750))
	fixture.Must(l, os.WriteFile(path, []byte(content), 0o640))
}

// leftovers returns the uploads in staging, which must have no strays.
func (l *lab) leftovers() []store.Staged {
	l.Helper()
	var all []store.Staged
	for st, err := range l.AllStaged() {
		fixture.Must(l, err)
		all = append(all, st)
	}
	return all
}

// recoverLeftover recovers the only leftover as the receiver does, and returns its state.
func (l *lab) recoverLeftover() (published bool, damaged bool) {
	l.Helper()
	count := 0
	for st, err := range l.AllStaged() {
		fixture.Must(l, err)
		count++
		_, published, err = st.Linked(l.Context(), nil)
		damaged = errors.Is(err, store.ErrCorrupt)
		if damaged {
			fixture.Must(l, st.QuarantineStored())
			continue
		}
		fixture.Must(l, err)
		fixture.Must(l, st.Unlink())
	}
	if count != 1 {
		l.Fatalf("%d leftovers, want 1", count)
	}
	return published, damaged
}
