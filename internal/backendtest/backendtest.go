// Package backendtest stores archives through a backend, and checks what that left in its data
// directory. It is for the tests of a backend and of the server of one.
//
// Invariant: it looks at files, and never asks the backend what it has stored.
package backendtest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// Lab is a data directory with its backend.
type Lab struct {
	testing.TB
	Backend wire.Backend // as of the last start
	Data    string       // the data directory
	// Stops is the log of the backend, for [Lab.HoldKey].
	Stops fixture.StoppingLog
}

// What a backend logs while it stores an archive, for [fixture.StoppingLog.StopAt].
const (
	BeforeCommit = "no meta.json"  // all bytes have arrived, and are no archive
	AfterRow     = "upload stored" // the lock of the key is still held
)

// Key returns the key of an archive.
func Key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}

// UploadOf returns what a sender announces of content.
func UploadOf(k episode.Key, content []byte) wire.Upload {
	return wire.Upload{Key: k, Digest: sha256.Sum256(content), Size: int64(len(content))}
}

// PackNoise returns an archive of n bytes of noise.
func PackNoise(n int, seed byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: int64(n)})
	if err == nil {
		_, err = w.Write(fixture.Noise(n, seed))
	}
	enc, zerr := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err := errors.Join(err, w.Close(), zerr); err != nil {
		panic(err)
	}
	return enc.EncodeAll(b.Bytes(), nil)
}

// Put stores content.
func (l *Lab) Put(k episode.Key, content []byte) (wire.Receipt, error) {
	return l.Backend.Put(l.Context(), UploadOf(k, content), bytes.NewReader(content))
}

// WantReceipt stores content, and checks that the receipt covers it and has a status.
func (l *Lab) WantReceipt(k episode.Key, content []byte, want wire.Status) wire.Receipt {
	l.Helper()
	r, err := l.Put(k, content)
	fixture.Must(l, err)
	if err := r.Covers(UploadOf(k, content)); err != nil || r.Status != want {
		l.Fatalf("%s: %+v, %v, want %s", k, r, err, want)
	}
	return r
}

// WantRefusal sends content, and checks that a problem with a code refuses it.
func (l *Lab) WantRefusal(k episode.Key, content []byte, want wire.Code) *wire.Problem {
	l.Helper()
	r, err := l.Put(k, content)
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok || p.Code != want {
		l.Fatalf("%s: %+v, %v, want %s", k, r, err, want)
	}
	return p
}

// HoldKey stores an archive, and holds the lock of its key until release is called. The backend
// must log to Stops.
func (l *Lab) HoldKey(k episode.Key) (release func()) {
	l.Helper()
	content, done := PackNoise(100, 1), make(chan error, 1)
	reached, resume := l.Stops.StopAt(AfterRow)
	go func() {
		_, err := l.Backend.Put(context.WithoutCancel(l.Context()), UploadOf(k, content), bytes.NewReader(content))
		done <- err
	}()
	fixture.ReceiveWithin(l, time.Minute, reached, "the upload that holds the key")
	return func() {
		resume()
		fixture.Must(l, fixture.ReceiveWithin(l, time.Minute, done, "the upload that holds the key"))
	}
}

// StopBeforeLast returns content as a body that stops before its last byte. It sends to arrived
// when it has stopped, and continues once open is closed.
func StopBeforeLast(content []byte, arrived chan<- struct{}, open <-chan struct{}) io.Reader {
	return &stoppingBody{content, arrived, open}
}

type stoppingBody struct {
	content []byte
	arrived chan<- struct{}
	open    <-chan struct{}
}

func (s *stoppingBody) Read(p []byte) (int, error) {
	switch len(s.content) {
	case 0:
		return 0, io.EOF
	case 1:
		s.arrived <- struct{}{}
		<-s.open
	}
	n := copy(p, s.content[:max(1, len(s.content)-1)])
	s.content = s.content[n:]
	return n, nil
}

// StoredPath returns where an archive is stored.
func (l *Lab) StoredPath(k episode.Key) string {
	return filepath.Join(l.Data, "episodes", string(k.Host), string(k.Name)+store.Suffix)
}

// CorruptStored changes one byte of a stored file and leaves its times as they were.
func (l *Lab) CorruptStored(k episode.Key) {
	l.Helper()
	path := l.StoredPath(k)
	info, err := os.Stat(path)
	fixture.Must(l, err)
	b, err := os.ReadFile(path)
	fixture.Must(l, err)
	b[len(b)/2] ^= 1
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	fixture.Must(l, err)
	_, err = f.Write(b)
	fixture.Must(l, errors.Join(err, f.Sync(), f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())))
}

// Rows returns the index, which must be valid to the last byte.
func (l *Lab) Rows() []index.Row {
	l.Helper()
	b, err := os.ReadFile(filepath.Join(l.Data, datadir.IndexFile))
	fixture.Must(l, err)
	if len(b) > 0 && b[len(b)-1] != '\n' {
		l.Errorf("the index ends with %+q", b[max(0, len(b)-40):])
	}
	var rows []index.Row
	for r, err := range index.ReadRows(bytes.NewReader(b)) {
		fixture.Must(l, err)
		rows = append(rows, r)
	}
	return rows
}

// WantConsistent checks the invariants while no upload is in flight: one row for each archive
// and one archive for each row, the same digests, and an empty staging.
func (l *Lab) WantConsistent(archives int) {
	l.Helper()
	rows := map[episode.Key]index.Row{}
	for _, r := range l.Rows() {
		if _, twice := rows[r.Key]; twice {
			l.Errorf("%s has two rows", r.Key)
		}
		rows[r.Key] = r
	}
	paths, err := filepath.Glob(filepath.Join(l.Data, "episodes", "*", "*"))
	fixture.Must(l, err)
	if len(paths) != archives || len(rows) != archives {
		l.Errorf("%d archives and %d rows, want %d", len(paths), len(rows), archives)
	}
	for _, path := range paths {
		k := Key(filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), store.Suffix))
		b, err := os.ReadFile(path)
		fixture.Must(l, err)
		if r := rows[k]; r.SHA256 != sha256.Sum256(b) || r.Size != int64(len(b)) {
			l.Errorf("%s has the row %+v", k, r)
		}
	}
	l.WantStaged(0)
}

// WantStaged checks how many uploads are in staging.
func (l *Lab) WantStaged(want int) {
	l.Helper()
	staged, err := filepath.Glob(filepath.Join(l.Data, "staging", "*", "*"))
	fixture.Must(l, err)
	if len(staged) != want {
		l.Errorf("staging has %q, want %d", staged, want)
	}
}

// Moves returns ways to move the store away from its path, by description.
func (l *Lab) Moves() map[string]func() {
	away := func(path string) func() { return func() { ReplaceDir(l, path) } }
	cover := func(path string) func() { return func() { fixture.MountTmpfsAt(l, path, "") } }
	return map[string]func(){
		"data_dir moved":        away(l.Data),
		"data_dir moved, alone": func() { fixture.Must(l, os.Rename(l.Data, l.Data+".x")) },
		"episodes moved":        away(filepath.Join(l.Data, "episodes")),
		"staging moved":         away(filepath.Join(l.Data, "staging")),
		"quarantine moved":      away(filepath.Join(l.Data, "quarantine")),
		"a disk over data_dir":  cover(l.Data),
		"a disk over episodes":  cover(filepath.Join(l.Data, "episodes")),
	}
}

// ReplaceDir moves the directory at path away and makes an empty one in its place.
func ReplaceDir(tb testing.TB, path string) {
	tb.Helper()
	fixture.Must(tb, os.Rename(path, path+".x"))
	fixture.Must(tb, os.Mkdir(path, 0o750))
	tb.Cleanup(func() { os.RemoveAll(path + ".x") })
}
