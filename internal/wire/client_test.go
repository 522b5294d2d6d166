package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"cis490/internal/digest"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func TestPutStoresOnce(t *testing.T) {
	for _, size := range []int{0, 1, wire.MinAnnounced, wire.MinAnnounced + 1, 3 << 20} {
		s := serve(t, newHandler(&fakeBackend{tb: t}))
		c := s.newClient(t)
		content := fixture.Noise(size, 1)
		u := uploadOf(content)
		u.Skipped = 2
		for _, want := range []wire.Status{wire.Stored, wire.AlreadyPresent} {
			r, err := c.Put(t.Context(), u, bytes.NewReader(content))
			fixture.Must(t, err)
			if r.Status != want || r.Covers(u) != nil || !r.ReceivedAt.Equal(received) {
				t.Errorf("%d bytes: %+v, want %s", size, r, want)
			}
		}
		d, n, err := c.Stat(t.Context(), key.Name)
		if d != u.Digest || n != u.Size || err != nil {
			t.Errorf("Stat: %s, %d, %v", d, n, err)
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%d bytes: %d connections for three requests", size, n)
		}
	}
}

func TestStatOfNothingIsNotFound(t *testing.T) {
	s := serve(t, newHandler(&fakeBackend{tb: t}))
	if _, _, err := s.newClient(t).Stat(t.Context(), "none"); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %v, want %v", err, wire.NotFound)
	}
}

func TestPingTellsWhoAndHow(t *testing.T) {
	s := serve(t, newHandler(&fakeBackend{tb: t}))
	p, err := s.newClient(t).Ping(t.Context())
	fixture.Must(t, err)
	if p.Host != thisHost || p.Auth.Method != "mtls" || p.Limits.Uploads != 64 || p.Storage.FreeBytes != 7 || !p.Storage.Accepting ||
		p.Time.IsZero() || p.Receiver.Version != "test" {
		t.Errorf("%+v", p)
	}
}

// TestRefusalAboveTheLimitCostsNoByte: a sender that waits for 100 Continue keeps its bytes,
// and loses its connection.
func TestRefusalAboveTheLimitCostsNoByte(t *testing.T) {
	s := serve(t, newHandler(&fakeBackend{tb: t, refuse: wire.Refuse(wire.Conflict, "no")}))
	content := fixture.Noise(wire.MinAnnounced+1, 1)
	in := &countedReader{ReaderAt: bytes.NewReader(content)}
	if _, err := s.newClient(t).Put(t.Context(), uploadOf(content), in); !errors.Is(err, wire.Conflict) {
		t.Fatal(err)
	}
	if n := in.n.Load(); n != 0 {
		t.Errorf("%d bytes were read for a refused upload", n)
	}
}

type countedReader struct {
	io.ReaderAt
	n atomic.Int64
}

func (c *countedReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n.Add(int64(n))
	return n, err
}

func TestConnectionSurvivesASmallRefusedBody(t *testing.T) {
	d := &fakeBackend{tb: t, refuse: wire.Refuse(wire.Conflict, "no")}
	s := serve(t, newHandler(d))
	c := s.newClient(t)
	content := fixture.Noise(wire.MinAnnounced-1, 1)
	for range 3 {
		if _, err := c.Put(t.Context(), uploadOf(content), bytes.NewReader(content)); !errors.Is(err, wire.Conflict) {
			t.Fatal(err)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for three refusals", n)
	}
}

func TestTokenIsAskedForEachRequest(t *testing.T) {
	h := newHandler(&fakeBackend{tb: t})
	var seen []string
	h.Identify = func(r *http.Request) (wire.Caller, error) {
		seen = append(seen, r.Header.Get("Authorization"))
		return wire.Caller{Host: thisHost}, nil
	}
	s := serve(t, h)
	n := 0
	c, err := wire.NewClient(wire.ClientConfig{URL: s.URL, Host: thisHost, DialTLS: s.dial, Token: func() string { n++; return fmt.Sprint("t", n) }})
	fixture.Must(t, err)
	defer c.CloseIdle()
	for range 2 {
		_, err := c.Ping(t.Context())
		fixture.Must(t, err)
	}
	if fmt.Sprint(seen) != "[Bearer t1 Bearer t2]" {
		t.Errorf("got %v, want %q", seen, "[Bearer t1 Bearer t2]")
	}
}

func TestOnlyAnHTTPSAddressIsOne(t *testing.T) {
	for _, url := range []string{"", "receiver.lab:8443", "http://receiver.lab", "https://", "https://r/path", "https://u:p@r", "https://r?x=1", "https://r\x7f"} {
		if c, err := wire.NewClient(wire.ClientConfig{URL: url}); err == nil {
			t.Errorf("%q is an address: %v", url, c)
		}
	}
	if _, err := wire.NewClient(wire.ClientConfig{URL: "https://receiver.lab:8443/"}); err != nil {
		t.Error(err)
	}
}

// TestAnswersThatAreNoReceiversAreFaultsOfThePath is the core of custody: a proxy's empty 200
// must never retire an episode.
func TestAnswersThatAreNoReceiversAreFaultsOfThePath(t *testing.T) {
	content := []byte("x")
	u := uploadOf(content)
	good := `{"status":"stored","host_id":"lab-01","episode_id":"run-7","sha256":"` + u.Digest.String() + `","size_bytes":1,"received_at_wall":"2026-11-23T07:17:41.000001+00:00"}`
	const js = "application/json"
	for _, c := range []struct {
		what, body string
		status     int
		kind       string
	}{
		{"empty 200", "", 200, ""},
		{"empty 201", "", 201, js},
		{"204", "", 204, ""},
		{"202 with a receipt", good, 202, js},
		{"login page", "<html>welcome</html>", 200, "text/html"},
		{"HTML 502", "<html>bad gateway</html>", 502, "text/html"},
		{"plain 404", "404 page not found", 404, "text/plain"},
		{"plain 409", "conflict", 409, "text/plain"},
		{"JSON 409", `{"status":409}`, 409, js},
		{"redirect", "", 307, ""},
		{"cut receipt", good[:len(good)-1], 201, js},
		{"null", "null", 200, js},
		{"no members", "{}", 200, js},
		{"list", "[" + good + "]", 200, js},
		{"another host", strings.Replace(good, "lab-01", "lab-02", 1), 201, js},
		{"another episode", strings.Replace(good, "run-7", "run-8", 1), 201, js},
		{"another digest", strings.Replace(good, u.Digest.String(), digest.Digest{1}.String(), 1), 201, js},
		{"another size", strings.Replace(good, `"size_bytes":1`, `"size_bytes":2`, 1), 201, js},
		{"another status", strings.Replace(good, "stored", "queued", 1), 200, js},
		{"no digest", strings.Replace(good, `"sha256":"`+u.Digest.String()+`",`, "", 1), 200, js},
		{"a problem of another status", `{"type":"urn:cis490:problem:busy","status":503}`, 500, "application/problem+json"},
		{"a problem that is none", "busy", 503, "application/problem+json"},
		{"an endless page", strings.Repeat(" ", 1<<20) + good, 200, js},
	} {
		t.Run(c.what, func(t *testing.T) {
			var followed atomic.Bool
			s := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					followed.Store(true)
				}
				w.Header().Set("Location", "/elsewhere")
				respondWith(c.status, c.kind, c.body)(w, r)
			}))
			r, err := s.newClient(t).Put(t.Context(), u, bytes.NewReader(content))
			path, ok := errors.AsType[*wire.UnexpectedResponseError](err)
			if !ok || path.Status != c.status || r != (wire.Receipt{}) {
				t.Errorf("%+v, %v", r, err)
			}
			if _, ok := errors.AsType[*wire.Problem](err); ok {
				t.Errorf("taken for a refusal: %v", err)
			}
			if followed.Load() {
				t.Error("a redirect was followed")
			}
			if _, err := s.newClient(t).Ping(t.Context()); err == nil {
				t.Error("taken for a ping's answer")
			}
			if _, _, err := s.newClient(t).Stat(t.Context(), key.Name); err == nil {
				t.Error("taken for an answer to HEAD")
			}
		})
	}
}

// TestPingOfAnotherHostIsAFaultOfThePath guards against a mixed-up address.
func TestPingOfAnotherHostIsAFaultOfThePath(t *testing.T) {
	s := serve(t, respondWith(200, "application/json", `{"status":"ok","host_id":"lab-02"}`))
	if _, err := s.newClient(t).Ping(t.Context()); !isPath(err) {
		t.Errorf("%v", err)
	}
}

func isPath(err error) bool {
	_, ok := errors.AsType[*wire.UnexpectedResponseError](err)
	return ok
}

// TestDeadConnectionIsReplaced: the receiver closed an idle connection, and we have not seen it
// yet. The body was lost and must be sent again.
func TestDeadConnectionIsReplaced(t *testing.T) {
	s := serve(t, newHandler(&fakeBackend{tb: t}))
	var dialed []*deadWriteConn
	c := newClientWith(t, s.URL, func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		m := &deadWriteConn{Conn: conn}
		dialed = append(dialed, m)
		return m, nil
	})
	content := fixture.Noise(100_000, 1)
	for range 2 {
		_, err := c.Put(t.Context(), uploadOf(content), bytes.NewReader(content))
		fixture.Must(t, err)
		dialed[0].dead.Store(true)
	}
	if len(dialed) != 2 {
		t.Errorf("%d connections, want 2", len(dialed))
	}
}

// deadWriteConn is a connection whose peer vanishes: writes fail, and reads do not notice.
type deadWriteConn struct {
	net.Conn
	dead atomic.Bool
}

func (m *deadWriteConn) Write(p []byte) (int, error) {
	if m.dead.Load() {
		return 0, errors.New("broken pipe")
	}
	return m.Conn.Write(p)
}
