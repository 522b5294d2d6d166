package wire_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/wire"
)

// TestRefusalOfAnUnreadBodyClosesTheConnection at each door: whatever follows on the connection
// may be the rest of the body, or a request that an attacker hid in it. It must not be handled
// as the next request.
func TestRefusalOfAnUnreadBodyClosesTheConnection(t *testing.T) {
	const hidden = "POST /v1/ping HTTP/1.1\r\nHost: r\r\n\r\n"
	bodies := map[string]string{
		"chunked":                    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked and a length":       "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunked without an end":     "Transfer-Encoding: chunked\r\n\r\n1\r\n",
		"too large to be read":       fmt.Sprintf("Content-Length: %d\r\n\r\n", 3*wire.MinAnnounced),
		"not asked for":              fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(hidden)),
		"chunked, not asked for":     "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
		"both lengths not asked for": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
	}
	doors := map[string]string{
		"put":               "PUT /v1/episodes/lab-01/run-7",
		"head":              "HEAD /v1/episodes/lab-01/run-7",
		"options":           "OPTIONS /v1/episodes/lab-01/run-7",
		"another method":    "GET /v1/episodes/lab-01/run-7",
		"another host":      "PUT /v1/episodes/lab-02/run-7",
		"no name":           "PUT /v1/episodes/lab-01/..",
		"no path":           "PUT /v1/nothing",
		"ping":              "POST /v1/ping",
		"ping, by get":      "GET /v1/ping",
		"inventory":         "POST /v1/inventory",
		"inventory, by put": "PUT /v1/inventory",
		"piece":             "PATCH /v1/uploads/X",
		"how far":           "HEAD /v1/uploads/X",
		"give up":           "DELETE /v1/uploads/X",
		"another verb":      "PUT /v1/uploads/X",
	}
	for _, forbidden := range []bool{false, true} {
		d := &fakeBackend{tb: t}
		h := newHandler(d)
		if forbidden {
			h.Identify = func(*http.Request) (wire.Caller, error) { return wire.Caller{}, wire.Refuse(wire.Forbidden, "no") }
		}
		s := serve(t, h)
		for door, line := range doors {
			for what, body := range bodies {
				if door == "inventory" && what == "not asked for" && !forbidden {
					continue // it asks for it
				}
				text := line + " HTTP/1.1\r\nHost: r\r\n" + body + hidden
				if n, closed := s.countAnswers(t, text); n != 1 || !closed {
					t.Fatalf("%s, %s, forbidden %v: %d answers, closed %v", door, what, forbidden, n, closed)
				}
			}
		}
		if n, u := d.putCalls(); n > 0 {
			t.Errorf("the backend got %+v", u)
		}
	}
}

// A refusal of a body that was read leaves the connection to the next request.
func TestRefusalOfAReadBodyKeepsTheConnection(t *testing.T) {
	s := serve(t, newHandler(&fakeBackend{tb: t}))
	text := "PUT /v1/episodes/lab-01/run-7 HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\nbytes" +
		"GET /v1/nothing HTTP/1.1\r\nHost: r\r\n\r\n" + "GET /v1/nothing HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
	if n, _ := s.countAnswers(t, text); n != 3 {
		t.Errorf("%d answers, want 3", n)
	}
}

// countAnswers sends text, and returns how many answers come before the connection ends, and
// whether the last one has Connection: close.
func (s *server) countAnswers(tb testing.TB, text string) (n int, closed bool) {
	tb.Helper()
	conn, err := s.dial(tb.Context(), "tcp", s.Listener.Addr().String())
	fixture.Must(tb, err)
	defer conn.Close()
	fixture.Must(tb, conn.SetDeadline(time.Now().Add(20*time.Second)))
	go io.WriteString(conn, text) // the server may answer before it has read all
	in := bufio.NewReader(conn)
	method, _, _ := strings.Cut(text, " ")
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return n, closed
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, false // it waits for the next request
		}
		fixture.Must(tb, err)
		n++
		closed = resp.Close
		if _, err := io.Copy(io.Discard, resp.Body); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			tb.Fatal(err)
		}
	}
}
