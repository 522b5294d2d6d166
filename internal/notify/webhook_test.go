package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/notify"
	"cis490/internal/printable"
)

// hookFiles writes the files of a URL and a secret.
func hookFiles(t *testing.T, url string) (urlFile, secretFile string) {
	t.Helper()
	dir := t.TempDir()
	urlFile, secretFile = filepath.Join(dir, "url"), filepath.Join(dir, "secret")
	fixture.Must(t, errors.Join(
		os.WriteFile(urlFile, []byte(url+"\n"), 0o600),
		os.WriteFile(secretFile, []byte("whsec_"+base64.StdEncoding.EncodeToString([]byte(testSecret))+"\n"), 0o600)))
	return urlFile, secretFile
}

const testSecret = "0123456789abcdef01234567"

// TestSignatureFollowsTheSpecification, by the example of the Standard Webhooks reference implementations.
func TestSignatureFollowsTheSpecification(t *testing.T) {
	secret, err := notify.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	fixture.Must(t, err)
	got := notify.Sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRefusedSecretsAndURLs(t *testing.T) {
	encode := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for text, ok := range map[string]bool{
		encode(24): true, encode(64): true, encode(23): false, encode(65): false, "": false, "whsec_": false,
		strings.TrimPrefix(encode(32), "whsec_"): false, "whsec_not base64!": false,
	} {
		if _, err := notify.ParseSecret(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, public := range map[string]string{
		"https://hooks.example/s3cret?key=s3cret": "https://hooks.example", "https://u:s3cret@hooks.example:8443/x": "https://hooks.example:8443",
		"http://127.0.0.1:80/s3cret": "http://127.0.0.1:80", "http://[::1]/s3cret": "http://[::1]", "http://localhost:1/s3cret": "http://localhost:1",
		"http://hooks.example/s3cret": "", "http://127.0.0.1.example/s3cret": "", "ftp://hooks.example/s3cret": "", "s3cret": "", "": "",
		"https:///s3cret": "", "https://hooks.example/s3cret\nhttps://x": "", "file:///s3cret": "",
	} {
		got, err := notify.CheckEndpoint(text)
		if got != public || (err == nil) != (public != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, public)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: the error repeats it: %v", text, err)
		}
	}
}

// request is what a webhook received.
type request struct {
	at     time.Time
	id     string
	event  notify.Event
	signed bool
}

// fakeServer answers requests of a webhook.
type fakeServer struct {
	mu     sync.Mutex
	got    []request
	answer func(n int) (*http.Response, error) // of request n, from 0
}

func (f *fakeServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, []byte(testSecret))
	fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
	signed := r.Header.Get("webhook-signature") == "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil))
	var e notify.Event
	_ = json.Unmarshal(body, &e)
	f.mu.Lock()
	n := len(f.got)
	f.got = append(f.got, request{time.Now(), r.Header.Get("webhook-id"), e, signed})
	f.mu.Unlock()
	if f.answer == nil {
		return respond(http.StatusNoContent, "")
	}
	return f.answer(n)
}

func (f *fakeServer) requests() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]request(nil), f.got...)
}

func respond(code int, retryAfter string) (*http.Response, error) {
	h := http.Header{}
	if retryAfter != "" {
		h.Set("Retry-After", retryAfter)
	}
	return &http.Response{StatusCode: code, Header: h, Body: http.NoBody}, nil
}

// startWebhook runs a webhook with a fake server until the test ends.
func startWebhook(t *testing.T, f *fakeServer, log *fixture.Log) (*notify.Queue, *notify.Webhook, string) {
	t.Helper()
	dir := t.TempDir()
	q, w := startWebhookIn(t, dir, f, log)
	return q, w, dir
}

// startWebhookIn is startWebhook with the directory of the queue.
func startWebhookIn(t *testing.T, dir string, f *fakeServer, log *fixture.Log) (*notify.Queue, *notify.Webhook) {
	t.Helper()
	urlFile, secretFile := hookFiles(t, "https://hooks.example/s3cret?k=s3cret")
	q := notify.OpenQueue(dir, silent)
	q.KeepStateFiles()
	w := notify.OpenWebhook(urlFile, secretFile, q, f, log.Logger())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); w.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; q.Close() })
	return q, w
}

func TestEventsArriveInOrderSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f fakeServer
		var log fixture.Log
		q, _, dir := startWebhook(t, &f, &log)
		for n := range 20 {
			q.Add(stored(n))
		}
		synctest.Wait()
		got := f.requests()
		if len(got) != 20 {
			t.Fatalf("%d requests, want 20", len(got))
		}
		for n, r := range got {
			if !r.signed || r.id != r.event.ID || r.event.Data.Episode != episode.Name(fmt.Sprintf("run-%d", n)) {
				t.Errorf("request %d: %+v", n, r)
			}
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left: %v, %v", entries, err)
		}
	})
}

// TestFailuresAreRetriedForever: with the same id, first after seconds and at most after about an hour.
func TestFailuresAreRetriedForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failures = 24
		f := fakeServer{answer: func(n int) (*http.Response, error) {
			switch {
			case n >= failures:
				return respond(http.StatusOK, "")
			case n%3 == 0:
				return nil, errors.New("connection refused")
			case n%3 == 1:
				return respond(http.StatusFound, "")
			}
			return respond(http.StatusInternalServerError, "")
		}}
		var log fixture.Log
		q, _, dir := startWebhook(t, &f, &log)
		q.Add(stored(0))
		q.Add(stored(1))
		time.Sleep(time.Minute)
		var d notify.Delivery
		fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, filepath.Join(dir, ".delivery"))), &d))
		if d.FailingSince.IsZero() || d.NextAttempt.Before(time.Now()) || d.Error == "" {
			t.Errorf("saved %+v", d)
		}
		time.Sleep(48 * time.Hour)
		got := f.requests()
		if len(got) != failures+2 {
			t.Fatalf("%d requests, want %d", len(got), failures+2)
		}
		for n := range failures {
			wait := got[n+1].at.Sub(got[n].at)
			if got[n].id != got[0].id || wait < 3*time.Second || wait > 76*time.Minute || n == 0 && wait > 7*time.Second || n > 12 && wait < 44*time.Minute {
				t.Errorf("attempt %d came after %v with id %s", n+1, wait, got[n].id)
			}
		}
		if got[failures+1].event.Data.Episode != "run-1" {
			t.Errorf("last: %+v", got[failures+1])
		}
		for text, want := range map[string]int{"webhook fails": 1, "webhook works again": 1, "s3cret": 0} {
			if n := strings.Count(log.String(), text); n != want {
				t.Errorf("%d lines with %q, want %d:\n%s", n, text, want, log.String())
			}
		}
		if d := readDelivery(t, dir); d != (notify.Delivery{}) {
			t.Errorf("saved %+v after it works again", d)
		}
	})
}

// TestRecoveredWebhookIsNotShownAsFailing: by a state that an earlier process has saved.
func TestRecoveredWebhookIsNotShownAsFailing(t *testing.T) {
	for name, saved := range map[string]string{
		"failing": `{"failing_since":"2000-01-01T00:00:00Z","next_attempt":"2000-01-01T01:00:00Z","error":"x"}`,
		"paused":  `{"failing_since":"2000-01-01T00:00:00Z","error":"x","paused":true}`,
		"damaged": `{"failing_since":`,
	} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			fixture.WriteFile(t, filepath.Join(dir, ".delivery"), saved)
			var f fakeServer
			var log fixture.Log
			q, _ := startWebhookIn(t, dir, &f, &log)
			synctest.Wait()
			if d := readDelivery(t, dir); name != "damaged" && (d.Paused || !d.NextAttempt.IsZero() || d.Error != "x") {
				t.Errorf("%s: saved %+v after the start", name, d)
			}
			q.Add(stored(0))
			synctest.Wait()
			if d := readDelivery(t, dir); d != (notify.Delivery{}) || len(f.requests()) != 1 {
				t.Errorf("%s: saved %+v after %d requests", name, d, len(f.requests()))
			}
		})
	}
}

// TestReloadEndsAPauseAtOnce: also while nothing is queued.
func TestReloadEndsAPauseAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeServer{answer: func(int) (*http.Response, error) { return respond(http.StatusGone, "") }}
		var log fixture.Log
		q, w, dir := startWebhook(t, &f, &log)
		q.Add(stored(0))
		synctest.Wait()
		entry, _, err := q.Oldest()
		fixture.Must(t, err)
		q.Remove(entry)
		if !readDelivery(t, dir).Paused {
			t.Error("not paused")
		}
		w.Reload()
		synctest.Wait()
		if d := readDelivery(t, dir); d.Paused || d.FailingSince.IsZero() {
			t.Errorf("saved %+v after the reload", d)
		}
	})
}

func readDelivery(t *testing.T, dir string) (d notify.Delivery) {
	t.Helper()
	if text := fixture.ReadFile(t, filepath.Join(dir, ".delivery")); json.Unmarshal([]byte(text), &d) != nil {
		t.Logf("it cannot be read: %q", text)
	}
	return d
}

func TestRetryAfterIsHonouredUpToAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeServer{answer: func(n int) (*http.Response, error) {
			switch n {
			case 0:
				return respond(http.StatusTooManyRequests, "600")
			case 1:
				return respond(http.StatusServiceUnavailable, "864000")
			}
			return respond(http.StatusOK, "")
		}}
		var log fixture.Log
		q, _, _ := startWebhook(t, &f, &log)
		q.Add(stored(0))
		time.Sleep(3 * time.Hour)
		got := f.requests()
		if len(got) != 3 {
			t.Fatalf("%d requests, want 3", len(got))
		}
		if first, second := got[1].at.Sub(got[0].at), got[2].at.Sub(got[1].at); first != 10*time.Minute || second != time.Hour {
			t.Errorf("waited %v and %v, want 10m and 1h", first, second)
		}
	})
}

// TestGoneWebhookWaitsForAReload: 410 means that the URL was given up.
func TestGoneWebhookWaitsForAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeServer{answer: func(n int) (*http.Response, error) {
			if n == 0 {
				return respond(http.StatusGone, "")
			}
			return respond(http.StatusOK, "")
		}}
		var log fixture.Log
		q, w, _ := startWebhook(t, &f, &log)
		q.Add(stored(0))
		time.Sleep(1000 * time.Hour)
		q.Add(stored(1))
		time.Sleep(time.Hour)
		if n := len(f.requests()); n != 1 {
			t.Fatalf("%d requests before the reload, want 1", n)
		}
		w.Reload()
		synctest.Wait()
		if n := len(f.requests()); n != 3 {
			t.Errorf("%d requests after the reload, want 3", n)
		}
		if n := strings.Count(log.String(), "webhook is gone"); n != 1 {
			t.Errorf("logged %d times that it is gone:\n%s", n, log.String())
		}
	})
}

// TestChangedFilesAreReadAfterAFailure: a corrected URL needs no restart.
func TestChangedFilesAreReadAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		urlFile, secretFile := hookFiles(t, "not a URL with s3cret")
		var f fakeServer
		var log fixture.Log
		q := notify.OpenQueue(t.TempDir(), silent)
		defer q.Close()
		w := notify.OpenWebhook(urlFile, secretFile, q, &f, log.Logger())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		synctest.Wait()
		if !strings.Contains(log.String(), "webhook cannot be used") {
			t.Errorf("no warning at the start:\n%s", log.String())
		}
		q.Add(stored(0))
		synctest.Wait()
		fixture.Must(t, os.WriteFile(urlFile, []byte("https://hooks.example/"), 0o600))
		time.Sleep(time.Minute)
		if n := len(f.requests()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
		if strings.Contains(log.String(), "s3cret") {
			t.Errorf("logged the URL:\n%s", log.String())
		}
	})
}

// TestRealServers: over sockets, where package net/http adds the URL to its errors.
func TestRealServers(t *testing.T) {
	hanging := make(chan struct{})
	defer close(hanging)
	handlers := map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere/s3cret", http.StatusFound)
		},
		"elsewhere": func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") },
		"location": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://[::1"+r.URL.Path)
			w.WriteHeader(http.StatusFound)
		},
		"malformed": func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s?%s %s\x1b %s\r\n\r\n", r.URL.Path, r.URL.RawQuery, "token-s3cret", strings.Repeat("\\", 10_000))
		},
		"large":  func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 10<<20)) },
		"abort":  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"refuse": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "s3cret", http.StatusForbidden) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers[strings.Split(r.URL.Path, "/")[1]](w, r)
	}))
	defer srv.Close()
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler()) // its certificate is of an unknown CA
	defer tlsServer.Close()
	tlsServer.Config.ErrorLog = nil
	for _, c := range []struct{ url, want string }{
		{srv.URL + "/redirect/s3cret", "redirect"},
		{srv.URL + "/location/s3cret", "redirect"},
		{srv.URL + "/malformed/token-s3cret?k=s3cret", "status code"},
		{srv.URL + "/large/s3cret", ""},
		{srv.URL + "/abort/s3cret", "EOF"},
		{srv.URL + "/refuse/s3cret", "HTTP 403 Forbidden"},
		{tlsServer.URL + "/s3cret", "certificate"},
		{"https://127.0.0.1:1/s3cret", "refused"},
	} {
		urlFile, secretFile := hookFiles(t, c.url)
		_, err := notify.SendTest(t.Context(), notify.Config{URLFile: config.Path(urlFile), SecretFile: config.Path(secretFile)}, "test", notify.NewTest(time.Now()))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.url, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error has the URL: %v", err)
		}
		if err != nil && (len(err.Error()) > 350 || printable.Text(err.Error()) != err.Error()) {
			t.Errorf("%s: the error is long, or not plain: %q", c.url, err)
		}
	}
}

func TestHeartbeatStopsWhileTheDaemonCannotWork(t *testing.T) {
	dir := t.TempDir()
	urlFile := filepath.Join(dir, "url")
	calls := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { calls <- r.Method + " " + r.URL.Path }))
	defer srv.Close()
	fixture.Must(t, os.WriteFile(urlFile, []byte(srv.URL+"/uuid\n"), 0o600))
	var mu sync.Mutex
	ready := error(nil)
	asked := make(chan struct{}, 1000)
	h := &notify.Heartbeat{
		Config: notify.HeartbeatConfig{URLFile: config.Path(urlFile), Interval: config.Duration(5 * time.Millisecond)}, Agent: "test", Log: silent,
		Ready: func(context.Context) error {
			asked <- struct{}{}
			mu.Lock()
			defer mu.Unlock()
			return ready
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	if got := <-calls; got != "GET /uuid" {
		t.Errorf("got %s", got)
	}
	<-calls
	if h.LastSuccess().IsZero() {
		t.Error("no last success")
	}
	mu.Lock()
	ready = errors.New("disk full")
	mu.Unlock()
	for range len(asked) + 1 { // one of them may have begun before
		<-asked
	}
	<-asked
	for len(calls) > 0 {
		<-calls
	}
	for range 10 {
		<-asked
	}
	if len(calls) > 0 {
		t.Errorf("called %d times while it could not work", len(calls))
	}
	cancel()
	<-ended
}

func TestHeartbeatLogsOneLinePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log fixture.Log
		h := &notify.Heartbeat{
			Config: notify.HeartbeatConfig{URLFile: "/nowhere", Interval: config.Duration(time.Minute)}, Log: log.Logger(),
			Ready: func(context.Context) error { return nil },
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		h.Run(ctx)
		if n := strings.Count(log.String(), "heartbeat fails"); n != 1 || !h.LastSuccess().IsZero() {
			t.Errorf("logged %d failures:\n%s", n, log.String())
		}
	})
}
