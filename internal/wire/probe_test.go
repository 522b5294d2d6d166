package wire_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

func TestProbeIsReadAndDiscarded(t *testing.T) {
	d := &fakeBackend{tb: t}
	c := serve(t, newHandler(d)).newClient(t)
	for _, size := range []int64{1, wire.MaxProbe} {
		if took, err := c.Probe(t.Context(), size); err != nil || took <= 0 {
			t.Errorf("%d bytes: %v after %v", size, err, took)
		}
	}
	if d.puts != 0 || len(d.stored) != 0 || d.inventories != 0 {
		t.Errorf("%d archives were put, %d are stored, %d requests are still admitted", d.puts, len(d.stored), d.inventories)
	}
	if _, err := c.Probe(t.Context(), wire.MaxProbe+1); !errors.Is(err, wire.TooLarge) {
		t.Errorf("too large: got %v, want %v", err, wire.TooLarge)
	}
}

// slowAdmission is a backend that has no slot for a while.
type slowAdmission struct{ *fakeBackend }

func (s slowAdmission) Admit(ctx context.Context, host episode.Name) (func(), error) {
	time.Sleep(time.Minute)
	return s.fakeBackend.Admit(ctx, host)
}

// slowBody is a body whose bytes come after a while.
type slowBody struct{ io.Reader }

func (b slowBody) Read(p []byte) (int, error) {
	time.Sleep(time.Second)
	return b.Reader.Read(p)
}

// TestReceiverTimesABodyFromItsAdmission: the wait for a slot says nothing about the connection.
func TestReceiverTimesABodyFromItsAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(&fakeBackend{tb: t})
		h.Backend = slowAdmission{&fakeBackend{tb: t}}
		r := httptest.NewRequest(http.MethodPost, "/v1/probe", slowBody{strings.NewReader("12345")})
		r.ContentLength = 5
		r.Header.Set("Content-Length", "5")
		w := deadlineRecorder{httptest.NewRecorder()}
		h.ServeHTTP(w, r)
		if got := strings.TrimSpace(w.Body.String()); got != `{"status":"ok","size_bytes":5,"seconds":1}` {
			t.Errorf("status %d, got %s", w.Code, got)
		}
	})
}

// TestProbeTakesTheTimeOfTheReceiver, which is shorter than that of the whole request.
func TestProbeTakesTheTimeOfTheReceiver(t *testing.T) {
	other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"status":"ok","size_bytes":%d,"seconds":1e-9}`, n)
	})
	if took, err := serve(t, other).newClient(t).Probe(t.Context(), 1<<10); err != nil || took != time.Nanosecond {
		t.Errorf("took %v, %v", took, err)
	}
}

// TestProbeIsTimedHereIfTheReceiverDoesNot, or says what cannot be.
func TestProbeIsTimedHereIfTheReceiverDoesNot(t *testing.T) {
	for _, seconds := range []string{"", `,"seconds":0`, `,"seconds":-1`, `,"seconds":1e300`} {
		other := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, `{"status":"ok","size_bytes":%d%s}`, n, seconds)
		})
		if took, err := serve(t, other).newClient(t).Probe(t.Context(), 1<<10); err != nil || took <= 0 || took > time.Minute {
			t.Errorf("%q: %v, %v", seconds, took, err)
		}
	}
}

// TestProbeTakesThePlaceOfAnUpload, so that probes cannot displace other hosts.
func TestProbeTakesThePlaceOfAnUpload(t *testing.T) {
	d := &fakeBackend{tb: t, full: wire.Refuse(wire.HostBusy, "16 uploads")}
	if _, err := serve(t, newHandler(d)).newClient(t).Probe(t.Context(), 1<<20); !errors.Is(err, wire.HostBusy) {
		t.Errorf("got %v, want %v", err, wire.HostBusy)
	}
}

func TestOlderReceiverAnswersProbesWithNotFound(t *testing.T) {
	old := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/v1/unknown"
		newHandler(&fakeBackend{tb: t}).ServeHTTP(w, r)
	})
	if _, err := serve(t, old).newClient(t).Probe(t.Context(), 1<<20); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %v, want %v", err, wire.NotFound)
	}
}

// TestAnswerMustNameTheSizeOfTheProbe: something else may answer with 200.
func TestAnswerMustNameTheSizeOfTheProbe(t *testing.T) {
	other := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"status":"ok"}`)) })
	_, err := serve(t, other).newClient(t).Probe(t.Context(), 1)
	if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); !ok {
		t.Errorf("got %v, want an UnexpectedResponseError", err)
	}
}

// TestDetailOfARefusalIsBounded: the other end chooses it.
func TestDetailOfARefusalIsBounded(t *testing.T) {
	s := serve(t, respondWith(400, "application/problem+json", `{"type":"urn:cis490:problem:bad-name","status":400,"detail":"`+strings.Repeat("x", 5000)+`"}`))
	if _, err := s.newClient(t).Probe(t.Context(), 1); !errors.Is(err, wire.BadName) || len(err.Error()) > 400 {
		t.Errorf("got %v", err)
	}
}

func TestHostileProbesAreRefused(t *testing.T) {
	const path = " /v1/probe HTTP/1.1\r\nHost: receiver\r\n"
	for name, test := range map[string]struct {
		request string
		want    int
	}{
		"GET":       {"GET" + path + "\r\n", http.StatusMethodNotAllowed},
		"chunked":   {"POST" + path + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", http.StatusLengthRequired},
		"encoded":   {"POST" + path + "Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", http.StatusUnsupportedMediaType},
		"too large": {"POST" + path + "Content-Length: 16777217\r\n\r\n", http.StatusRequestEntityTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			resp := serve(t, newHandler(&fakeBackend{tb: t})).sendRaw(t, test.request)
			if resp.StatusCode != test.want {
				t.Errorf("got %s, want %d", resp.Status, test.want)
			}
			fixture.Must(t, resp.Body.Close())
		})
	}
}
