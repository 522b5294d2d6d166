package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

const thisHost = episode.Name("lab-01")

var key = episode.Key{Host: thisHost, Name: "run-7"}

// fakeBackend implements the contract of [wire.Backend], and fails the test if the handler
// breaks its own.
type fakeBackend struct {
	tb     testing.TB
	refuse error // before the body
	full   error // refuses inventories before their bodies
	// unnamed makes the backend fail to name its store.
	unnamed error
	// take replaces the handling of the body.
	take func(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error)

	mu     sync.Mutex // guards the fields below
	puts   int
	upload wire.Upload
	stored map[episode.Key]wire.Receipt

	announced int
	asked     []string // ids of uploads

	inventories int // admitted and not released
	parts       map[string]*part
}

func (d *fakeBackend) Put(ctx context.Context, u wire.Upload, body io.Reader) (wire.Receipt, error) {
	d.mu.Lock()
	d.puts++
	d.upload = u
	d.mu.Unlock()
	if u.Key.Host != thisHost || u.Size < 0 || u.Digest.IsZero() || u.Skipped < 0 {
		d.tb.Errorf("the handler let %+v through", u)
	}
	if _, err := episode.ParseName(string(u.Key.Name)); err != nil {
		d.tb.Errorf("the handler let a bad name through: %v", err)
	}
	if d.refuse != nil {
		return wire.Receipt{}, d.refuse
	}
	if d.take != nil {
		return d.take(ctx, u, body)
	}
	return d.storeBody(u, body)
}

// storeBody reads the body and stores it.
func (d *fakeBackend) storeBody(u wire.Upload, body io.Reader) (wire.Receipt, error) {
	b, err := io.ReadAll(body)
	if err != nil {
		return wire.Receipt{}, err
	}
	if int64(len(b)) != u.Size {
		d.tb.Errorf("the body has %d bytes, want %d", len(b), u.Size)
	}
	if sha256.Sum256(b) != u.Digest {
		return wire.Receipt{}, wire.Refuse(wire.DigestMismatch, "nothing was stored")
	}
	r := receiptOf(u)
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, found := d.stored[u.Key]; found {
		old.Status = wire.AlreadyPresent
		return old, nil
	}
	if d.stored == nil {
		d.stored = make(map[episode.Key]wire.Receipt)
	}
	d.stored[u.Key] = r
	return r, nil
}

func (d *fakeBackend) Stat(_ context.Context, k episode.Key) (wire.Receipt, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return wire.Receipt{}, d.refuse
	}
	r, found := d.stored[k]
	if !found {
		return r, wire.Refuse(wire.NotFound, "none")
	}
	return r, nil
}

func (d *fakeBackend) Storage(context.Context, episode.Name) (wire.Storage, error) {
	return wire.Storage{FreeBytes: 7, Accepting: true}, d.refuse
}

// store is the identity of the store of [fakeBackend].
var store = wire.Store{ID: "STORE1", IndexBytes: 300, IndexTail: "abcd", Replaces: []string{"STORE0"}}

// Store implements the contract: the index has the rows of what is stored.
func (d *fakeBackend) Store() (wire.Store, error) { return store, d.unnamed }

// HasStore knows that store alone.
func (d *fakeBackend) HasStore(known wire.Store) (bool, error) {
	return store.Follows(known.ID) && (known.ID != store.ID || known.IndexBytes <= store.IndexBytes), d.unnamed
}

// putCalls returns how often the handler called Put, and the last upload.
func (d *fakeBackend) putCalls() (int, wire.Upload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.puts, d.upload
}

// announcements returns the number of announcements, and the uploads that requests named.
func (d *fakeBackend) announcements() (announced int, ids []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.announced, d.asked
}

var received = time.Date(2026, 11, 23, 7, 17, 41, 1000, time.UTC)

func receiptOf(u wire.Upload) wire.Receipt {
	return wire.Receipt{Status: wire.Stored, Host: u.Key.Host, Episode: u.Key.Name, Digest: u.Digest, Size: u.Size, ReceivedAt: wire.Timestamp{Time: received}}
}

func uploadOf(content []byte) wire.Upload {
	return wire.Upload{Key: key, Digest: sha256.Sum256(content), Size: int64(len(content))}
}

func formatDigest(content []byte) string {
	d := sha256.Sum256(content)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(d[:]) + ":"
}

func newHandler(d wire.Backend) *wire.Handler {
	return &wire.Handler{
		Backend: d,
		Identify: func(*http.Request) (wire.Caller, error) {
			return wire.Caller{Host: thisHost, Auth: wire.Auth{Method: "mtls"}}, nil
		},
		StallLimits: wire.StallLimits{Idle: 30 * time.Second, MinRate: 8 << 10, Window: time.Minute},
		Limits:      wire.Limits{MaxSize: 1 << 40, Uploads: 64, UploadsPerHost: 8, UnfinishedAge: 7 * 24 * time.Hour},
		About:       wire.ServerInfo{Version: "test", Protocol: []string{"v1"}},
		Log:         slog.New(slog.DiscardHandler),
	}
}

// server is a real TLS server on loopback with the limits of the receiver's.
type server struct {
	*httptest.Server
	conns atomic.Int64 // connections that were accepted
}

func serve(tb testing.TB, h http.Handler) *server {
	tb.Helper()
	s := &server{Server: httptest.NewUnstartedServer(h)}
	s.Config.MaxHeaderBytes = 16 << 10
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.StartTLS()
	tb.Cleanup(s.Close)
	return s
}

func (s *server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := wire.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(conn, s.clientTLS())
	return c, c.HandshakeContext(ctx)
}

func (s *server) clientTLS() *tls.Config {
	config := s.Server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.ServerName = "example.com"
	return config
}

// newClient returns a shipper's client.
func (s *server) newClient(tb testing.TB) *wire.Client {
	tb.Helper()
	return newClientWith(tb, s.URL, s.dial)
}

func newClientWith(tb testing.TB, url string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *wire.Client {
	tb.Helper()
	c, err := wire.NewClient(wire.ClientConfig{URL: url, Host: thisHost, DialTLS: dial, Version: "test", Conns: 2})
	fixture.Must(tb, err)
	tb.Cleanup(c.CloseIdle)
	return c
}

// sendRaw sends bytes on a connection of their own and returns the one answer.
func (s *server) sendRaw(tb testing.TB, request string) *http.Response {
	tb.Helper()
	conn, err := s.dial(tb.Context(), "tcp", s.Listener.Addr().String())
	fixture.Must(tb, err)
	tb.Cleanup(func() { conn.Close() })
	fixture.Must(tb, conn.SetDeadline(time.Now().Add(20*time.Second)))
	go io.WriteString(conn, request) // the server may answer before it has read all
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	fixture.Must(tb, err)
	b, err := io.ReadAll(resp.Body)
	fixture.Must(tb, err)
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp
}

// putRequest returns the text of a PUT of content, with more fields.
func putRequest(content string, fields ...string) string {
	return "PUT /v1/episodes/lab-01/run-7 HTTP/1.1\r\nHost: receiver\r\n" +
		strings.Join(append(fields, ""), "\r\n") + "\r\n" + content
}

// problem is a problem document as any client reads it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Stored string `json:"stored_sha256"`
}

func readProblem(tb testing.TB, resp *http.Response) problem {
	tb.Helper()
	var p problem
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("%s: content type %q", resp.Status, got)
		return p
	}
	fixture.Must(tb, json.NewDecoder(resp.Body).Decode(&p))
	if p.Status != resp.StatusCode || p.Title == "" {
		tb.Errorf("got the document %+v with status %s, want the same status and a title", p, resp.Status)
	}
	return p
}
