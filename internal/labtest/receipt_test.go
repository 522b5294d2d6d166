package labtest_test

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"testing"

	"cis490/internal/labtest"
)

// TestRetireNeedsReceipt replaces the receiver by servers that answer with success or
// otherwise, and have no store.
func TestRetireNeedsReceipt(t *testing.T) {
	t.Parallel()
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	const json = "application/json"
	// receipt answers like the receiver, except for what spoil changes.
	receipt := func(spoil func(string) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			text := fmt.Sprintf(`{"status":"stored","host_id":"lab-01","episode_id":%q,"sha256":%q,"size_bytes":%d,"received_at_wall":"2026-11-23T07:17:41.000001+00:00"}`,
				path.Base(r.URL.Path), digestOf(r), n)
			w.Header().Set("Content-Type", json)
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, spoil(text))
		}
	}
	replace := func(from, to string) func(string) string {
		return func(s string) string { return strings.Replace(s, from, to, 1) }
	}
	cases := map[string]http.HandlerFunc{
		"empty 200":           answer(200, "text/plain", ""),
		"empty 201":           answer(201, json, ""),
		"200 with other JSON": answer(200, json, "{}"),
		"204":                 answer(204, json, ""),
		"202 with a receipt":  func(w http.ResponseWriter, r *http.Request) { answerAccepted(w, r, receipt(replace("", ""))) },
		"301": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
		},
		"307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"502 of a proxy":       answer(502, "text/html", "<html><h1>Bad Gateway</h1></html>"),
		"409 of a proxy":       answer(409, "text/html", "<html>Conflict</html>"),
		"400 of a proxy":       answer(400, "text/html", "<html>Bad Request</html>"),
		"413 of a proxy":       answer(413, "text/html", "<html>Too Large</html>"),
		"400, empty":           answer(400, "application/problem+json", ""),
		"problem of another":   answer(200, "application/problem+json", `{"type":"about:blank","status":409}`),
		"truncated receipt":    receipt(func(s string) string { return s[:len(s)/2] }),
		"receipt of a host":    receipt(replace("lab-01", "lab-02")),
		"receipt of a run":     receipt(replace("run-1", "run-2")),
		"receipt of bytes":     receipt(replace(`"sha256":"`, `"sha256":"0123456789abcdef`)),
		"receipt of a size":    receipt(replace(`"size_bytes":`, `"size_bytes":1`)),
		"receipt of no status": receipt(replace(`"status":"stored"`, `"status":"fine"`)),
		"receipt of no sha256": receipt(replace(`"sha256"`, `"sha"`)),
	}
	l, h := newLab(t)
	h.Episode("run-1")
	for name, handler := range cases {
		t.Run(name, func(t *testing.T) {
			restore := l.Fake(t, handler)
			defer restore()
			h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
			wantNoHolds(t, h)
			l.Check(t)
		})
	}
	// The receipts were spoiled in one field only: the correct one is accepted.
	t.Run("a true receipt", func(t *testing.T) {
		defer l.Fake(t, receipt(replace("", "")))()
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		h.Forget("run-1") // the receiver never had it
	})
}

// digestOf returns the hex digest that a request states.
func digestOf(r *http.Request) string {
	field := r.Header.Get("Repr-Digest")
	field = strings.TrimSuffix(strings.TrimPrefix(field, "sha-256=:"), ":")
	return hexOf(field)
}

// answerAccepted calls h, and changes the status of its answer to 202.
func answerAccepted(w http.ResponseWriter, r *http.Request, h http.HandlerFunc) {
	h(&always202{w}, r)
}

type always202 struct{ http.ResponseWriter }

func (a *always202) WriteHeader(int) { a.ResponseWriter.WriteHeader(http.StatusAccepted) }

// TestAnswersOfThePathJudgeNoEpisode answers a shipper before TLS does.
func TestAnswersOfThePathJudgeNoEpisode(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	for name, f := range map[string]labtest.Fault{
		"refused":    {Refuse: true},
		"plain 200":  {Say: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"plain HTML": {Say: "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>"},
		"garbage":    {Say: "\x16\x03\x03\xff\xffgarbage"},
	} {
		l.Proxy.Always(f)
		p := h.Once()
		if p.Code != 4 || p.Transient != 1 {
			t.Errorf("%s: exit code %d, %+v", name, p.Code, p.Tally)
		}
		wantNoHolds(t, h)
		l.Check(t)
	}
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

// TestRefusalsOfTheReceiverJudgeAsTheirCodesSay gives the shipper each kind of
// problem document.
func TestRefusalsOfTheReceiverJudgeAsTheirCodesSay(t *testing.T) {
	t.Parallel()
	cases := []struct {
		status int
		kind   string
		code   int
		want   labtest.Tally
	}{
		{400, "bad-request", 3, labtest.Tally{Scanned: 1, Held: 1}},
		{413, "too-large", 3, labtest.Tally{Scanned: 1, Held: 1}},
		{415, "unsupported-encoding", 3, labtest.Tally{Scanned: 1, Held: 1}},
		{409, "episode-conflict", 3, labtest.Tally{Scanned: 1, Conflicts: 1}},
		{401, "token-refused", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{403, "forbidden", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{408, "stalled", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{429, "host-busy", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{500, "internal-server-error", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{503, "busy", 4, labtest.Tally{Scanned: 1, Transient: 1}},
		{507, "insufficient-storage", 4, labtest.Tally{Scanned: 1, Transient: 1}},
	}
	l, h := newLab(t)
	h.Episode("run-1")
	for _, c := range cases {
		t.Run(c.kind, func(t *testing.T) {
			defer l.Fake(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(c.status)
				fmt.Fprintf(w, `{"type":"urn:cis490:problem:%s","title":"a refusal","status":%d}`, c.kind, c.status)
			}))()
			h.Once().Must(t, c.code, c.want)
			l.Check(t)
			if c.code == 3 {
				h.Run("retry", "run-1").MustExit(t, 0)
			}
			wantNoHolds(t, h)
		})
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}
