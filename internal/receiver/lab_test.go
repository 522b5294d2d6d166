package receiver_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/receiver"
	"cis490/internal/store"
	"cis490/internal/wire"
)

// lab is a receiver with its CA and its data directory.
type lab struct {
	testing.TB
	pki, data string
	cfg       receiver.Config
	log       slog.Handler // of the next start; nil is stops
	stops     fixture.StoppingLog
	r         *receiver.Receiver
	b         *receiver.Backend
}

// What the receiver logs while it stores an archive, for [fixture.StoppingLog.StopAt].
const (
	beforeCommit = "no meta.json"  // all bytes have arrived, and are no archive
	afterRow     = "upload stored" // the lock of the key is still held
)

// newLab opens a receiver on a data directory, which change may replace.
func newLab(tb testing.TB, change func(*receiver.Config)) *lab {
	tb.Helper()
	l := &lab{TB: tb, pki: tb.TempDir(), data: fixture.MemoryDir(tb)}
	fixture.Must(tb, ca.Init(l.pki, ca.InitOptions{Names: []string{"127.0.0.1"}}))
	l.cfg = receiver.DefaultConfig()
	l.cfg.MinFree = 0
	l.cfg.DataDir = config.Path(l.data)
	l.cfg.TLS = receiver.TLSConfig{
		CertFile:     config.Path(filepath.Join(l.pki, "server.crt")),
		KeyFile:      config.Path(filepath.Join(l.pki, "server.key")),
		ClientCAFile: config.Path(filepath.Join(l.pki, "hosts-ca.crt")),
	}
	if change != nil {
		change(&l.cfg)
		l.data = string(l.cfg.DataDir)
	}
	l.start()
	tb.Cleanup(l.stop)
	return l
}

func (l *lab) start() {
	l.Helper()
	log := l.log
	if log == nil {
		log = &l.stops
	}
	r, err := receiver.OpenGateAndNew(l.Context(), l.cfg, "test", "the lab", slog.New(log))
	fixture.Must(l, err)
	l.r, l.b = r, r.Backend()
}

func (l *lab) stop() {
	if l.r != nil {
		l.r.Close()
		l.r = nil
	}
}

// restart ends the receiver, changes what is on the disk and starts it again.
func (l *lab) restart(meanwhile func()) {
	l.Helper()
	l.stop()
	meanwhile()
	l.start()
}

func key(host, name string) episode.Key {
	return episode.Key{Host: episode.Name(host), Name: episode.Name(name)}
}

func uploadOf(k episode.Key, content []byte) wire.Upload {
	return wire.Upload{Key: k, Digest: sha256.Sum256(content), Size: int64(len(content))}
}

// packNoise returns an archive of n bytes of noise.
func packNoise(n int, seed byte) []byte {
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

func (l *lab) put(k episode.Key, content []byte) (wire.Receipt, error) {
	return l.b.Put(l.Context(), uploadOf(k, content), bytes.NewReader(content))
}

// wantReceipt stores content, and checks that the receipt covers it and has a status.
func (l *lab) wantReceipt(k episode.Key, content []byte, want wire.Status) wire.Receipt {
	l.Helper()
	r, err := l.put(k, content)
	fixture.Must(l, err)
	if err := r.Covers(uploadOf(k, content)); err != nil || r.Status != want {
		l.Fatalf("%s: %+v, %v, want %s", k, r, err, want)
	}
	return r
}

// wantRefusal sends content, and checks that a problem with a code refuses it.
func (l *lab) wantRefusal(k episode.Key, content []byte, want wire.Code) *wire.Problem {
	l.Helper()
	r, err := l.put(k, content)
	p, ok := errors.AsType[*wire.Problem](err)
	if !ok || p.Code != want {
		l.Fatalf("%s: %+v, %v, want %s", k, r, err, want)
	}
	return p
}

// holdKey stores an archive, and holds the lock of its key until release is called.
func (l *lab) holdKey(k episode.Key) (release func()) {
	l.Helper()
	content, done := packNoise(100, 1), make(chan error, 1)
	reached, resume := l.stops.StopAt(afterRow)
	go func() {
		_, err := l.b.Put(context.WithoutCancel(l.Context()), uploadOf(k, content), bytes.NewReader(content))
		done <- err
	}()
	receiveWithin(l, time.Minute, reached, "the upload that holds the key")
	return func() {
		resume()
		fixture.Must(l, receiveWithin(l, time.Minute, done, "the upload that holds the key"))
	}
}

func (l *lab) storedPath(k episode.Key) string {
	return filepath.Join(l.data, "episodes", string(k.Host), string(k.Name)+store.Suffix)
}

func (l *lab) stagedPath(k episode.Key) string {
	return filepath.Join(l.data, "staging", string(k.Host), string(k.Name)+"~CRASH")
}

// rows returns the index, which must be valid to the last byte.
func (l *lab) rows() []index.Row {
	l.Helper()
	b, err := os.ReadFile(filepath.Join(l.data, datadir.IndexFile))
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

// row returns the only row of a key.
func (l *lab) row(k episode.Key) index.Row {
	l.Helper()
	var found []index.Row
	for _, r := range l.rows() {
		if r.Key == k {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		l.Fatalf("%s has %d rows, want 1", k, len(found))
	}
	return found[0]
}

// wantConsistent checks the invariants while no upload is in flight: one row for each archive
// and one archive for each row, the same digests, and an empty staging.
func (l *lab) wantConsistent(archives int) {
	l.Helper()
	rows := map[episode.Key]index.Row{}
	for _, r := range l.rows() {
		if _, twice := rows[r.Key]; twice {
			l.Errorf("%s has two rows", r.Key)
		}
		rows[r.Key] = r
	}
	paths, err := filepath.Glob(filepath.Join(l.data, "episodes", "*", "*"))
	fixture.Must(l, err)
	if len(paths) != archives || len(rows) != archives {
		l.Errorf("%d archives and %d rows, want %d", len(paths), len(rows), archives)
	}
	for _, path := range paths {
		k := key(filepath.Base(filepath.Dir(path)), strings.TrimSuffix(filepath.Base(path), store.Suffix))
		b, err := os.ReadFile(path)
		fixture.Must(l, err)
		if r := rows[k]; r.SHA256 != sha256.Sum256(b) || r.Size != int64(len(b)) {
			l.Errorf("%s has the row %+v", k, r)
		}
	}
	l.wantStaged(0)
}

func (l *lab) wantStaged(want int) {
	l.Helper()
	staged, err := filepath.Glob(filepath.Join(l.data, "staging", "*", "*"))
	fixture.Must(l, err)
	if len(staged) != want {
		l.Errorf("staging has %q, want %d", staged, want)
	}
}

// gated is a body that stops before its last byte until the test opens it, and reports when it
// has stopped.
type gated struct {
	content []byte
	arrived chan<- struct{}
	open    <-chan struct{}
}

func (g *gated) Read(p []byte) (int, error) {
	switch len(g.content) {
	case 0:
		return 0, io.EOF
	case 1:
		g.arrived <- struct{}{}
		<-g.open
	}
	n := copy(p, g.content[:max(1, len(g.content)-1)])
	g.content = g.content[n:]
	return n, nil
}

// listen serves the receiver and returns its address and what Serve returns.
func (l *lab) listen(ctx context.Context) (addr string, served <-chan error) {
	l.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(l, err)
	done := make(chan error, 1)
	go func() { done <- l.r.Serve(ctx, ln, nil) }()
	return ln.Addr().String(), done
}

// issueCredentials issues a new certificate to a host.
func (l *lab) issueCredentials(host episode.Name) *credentials.Client {
	l.Helper()
	out := l.TempDir()
	_, err := ca.IssueHost(l.pki, host, out, ca.IssueOptions{})
	fixture.Must(l, err)
	creds, err := credentials.Load(credentials.Config{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, string(host)+".crt"), KeyFile: filepath.Join(out, string(host)+".key"),
	})
	fixture.Must(l, err)
	return creds
}

// newClient returns a shipper's client with a new certificate.
func (l *lab) newClient(addr string, host episode.Name) *wire.Client {
	l.Helper()
	return l.newClientWith(addr, host, l.issueCredentials(host))
}

func (l *lab) newClientWith(addr string, host episode.Name, creds *credentials.Client) *wire.Client {
	l.Helper()
	c, err := wire.NewClient(wire.ClientConfig{URL: "https://" + addr, Host: host, DialTLS: creds.DialTLS(wire.Dial), Conns: 8})
	fixture.Must(l, err)
	l.Cleanup(c.CloseIdle)
	return c
}

// receiveWithin receives a value, or fails the test after limit.
func receiveWithin[T any](tb testing.TB, limit time.Duration, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		tb.Fatalf("%s did not come within %v", what, limit)
		panic("unreachable")
	}
}
