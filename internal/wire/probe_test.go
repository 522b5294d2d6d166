package wire_test

import (
	"errors"
	"net/http"
	"testing"

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
