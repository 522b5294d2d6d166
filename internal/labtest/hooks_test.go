package labtest_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

const hookSecret = "0123456789abcdef0123456789abcdef"

// hookEvent is an event as a recipient sees it.
type hookEvent struct {
	ID, Type string
	Data     struct {
		Host    string `json:"host_id"`
		Episode string `json:"episode_id"`
		SHA256  string
		Stored  string `json:"stored_sha256"`
		Finding string
		Free    *int64 `json:"free_bytes"`
	}
	Dropped int
}

func (e hookEvent) String() string { return strings.TrimSpace(e.Type + " " + e.Data.Episode) }

// hookServer is the recipient of a webhook, with TLS.
type hookServer struct {
	t      *testing.T
	mu     sync.Mutex
	answer http.HandlerFunc // guarded by mu; nil accepts
	events []hookEvent      // guarded by mu; those that were accepted
	tried  int              // guarded by mu; all requests
}

// newHookServer starts a recipient, and returns the options of a receiver that sends to it. The receiver
// trusts its certificate because of SSL_CERT_FILE.
func newHookServer(t *testing.T) (*hookServer, []labtest.Option) {
	t.Helper()
	s := &hookServer{t: t}
	srv := httptest.NewTLSServer(s)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	fixture.WriteFile(t, path("ca.pem"), string(ca))
	fixture.WriteFile(t, path("url"), srv.URL+"/s3cret\n")
	fixture.WriteFile(t, path("secret"), "whsec_"+base64.StdEncoding.EncodeToString([]byte(hookSecret))+"\n")
	t.Setenv("SSL_CERT_FILE", path("ca.pem"))
	return s, []labtest.Option{
		labtest.Set("hooks.url_file", fmt.Sprintf("%q", path("url"))), labtest.Set("hooks.secret_file", fmt.Sprintf("%q", path("secret"))),
	}
}

func (s *hookServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	mac := hmac.New(sha256.New, []byte(hookSecret))
	fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body)
	if err != nil || r.Header.Get("webhook-signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) || r.URL.Path != "/s3cret" {
		s.t.Errorf("%s %s: wrong signature or request: %v", r.Method, r.URL, err)
	}
	var e hookEvent
	if err := json.Unmarshal(body, &e); err != nil || e.ID != r.Header.Get("webhook-id") {
		s.t.Errorf("event %s: %v", body, err)
	}
	s.mu.Lock()
	answer := s.answer
	s.tried++
	if answer == nil {
		s.events = append(s.events, e)
	}
	s.mu.Unlock()
	if answer != nil {
		answer(w, r)
	}
}

// setAnswer sets the answer to requests from now on, and returns how many came before.
func (s *hookServer) setAnswer(answer http.HandlerFunc) (tried int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
	return s.tried
}

func (s *hookServer) wasTried(after int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tried > after
}

// wait waits for these events, which must come in this order, each once.
func (s *hookServer) wait(want ...string) []hookEvent {
	s.t.Helper()
	var got []hookEvent
	labtest.Within(s.t, 3*time.Minute, "events arrive: "+strings.Join(want, ", "), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		got = slices.Clone(s.events)
		return len(got) >= len(want)
	})
	seen := make(map[string]bool)
	var names []string
	for _, e := range got {
		names = append(names, e.String())
		if seen[e.ID] {
			s.t.Errorf("%v came twice", e)
		}
		seen[e.ID] = true
	}
	if !slices.Equal(names, want) {
		s.t.Fatalf("events %q, want %q", names, want)
	}
	return got
}

// TestHooksTellWhatHappened: each kind of event, signed, once and in order.
func TestHooksTellWhatHappened(t *testing.T) {
	server, options := newHookServer(t)
	l, h := newLab(t, append(options, labtest.Set("admin.listen", `"127.0.0.1:0"`))...)
	h.Set("report_interval", `"5m"`)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	got := server.wait("stored run-1")
	row := l.RowOf(t, "lab-01", "run-1")
	if d := got[0].Data; d.Host != "lab-01" || d.SHA256 != row.SHA256 {
		t.Errorf("stored: %+v, want the row %+v", d, row)
	}
	for range 2 { // a host that holds an episode asks again
		if status, body := putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-1", []byte("other bytes")); status != http.StatusConflict {
			t.Fatalf("%d %s, want 409", status, body)
		}
	}
	got = server.wait("stored run-1", "conflict run-1")
	if d := got[1].Data; d.Stored != row.SHA256 || d.SHA256 == row.SHA256 {
		t.Errorf("conflict: %+v", d)
	}
	flipByte(t, l.Archive("lab-01", "run-1"))
	h.Run("verify", "--heal")
	got = server.wait("stored run-1", "conflict run-1", "damage run-1")
	if d := got[2].Data; d.Finding != "damaged" {
		t.Errorf("damage: %+v", d)
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1}) // sent again
	server.wait("stored run-1", "conflict run-1", "damage run-1", "stored run-1")
	waitForMetrics(t, l.Process(), series{
		`cis490_receiver_webhook_attempts_total{result="delivered"}`: 4,
		`cis490_receiver_webhook_attempts_total{result="failed"}`:    0,
		`cis490_receiver_hook_queued_events{queue="webhook"}`:        0,
		`cis490_receiver_hook_dropped_events_total{queue="webhook"}`: 0,
	})
	l.Set("min_free", `"1PiB"`)
	l.Restart()
	ageRecord(t, l, "lab-01", 100*time.Hour) // with the start of the receiver
	got = server.wait("stored run-1", "conflict run-1", "damage run-1", "stored run-1", "host_silent", "low_space")
	if got[4].Data.Host != "lab-01" || got[5].Data.Free == nil {
		t.Errorf("silent: %+v; low space: %+v", got[4].Data, got[5].Data)
	}
	if strings.Contains(l.Process().Output(), "s3cret") {
		t.Error("the log has the URL of the webhook")
	}
}

// TestHooksOutlastTheirServer: uploads are acknowledged whatever the server does, and a killed receiver
// loses nothing that is queued.
func TestHooksOutlastTheirServer(t *testing.T) {
	server, options := newHookServer(t)
	l, h := newLab(t, options...)
	hanging := make(chan struct{})
	release := sync.OnceFunc(func() { close(hanging) })
	t.Cleanup(release)
	tried := server.setAnswer(func(w http.ResponseWriter, _ *http.Request) { <-hanging; w.WriteHeader(http.StatusInternalServerError) })
	var want []string
	ship := func() {
		t.Helper()
		name := fmt.Sprintf("run-%d", len(want))
		h.Episode(name)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		want = append(want, "stored "+name)
	}
	ship()
	labtest.Eventually(t, "the webhook is called", func() bool { return server.wasTried(tried) })
	ship() // while it hangs
	release()
	l.Process().WaitLine(t, "webhook fails")
	for _, code := range []int{http.StatusInternalServerError, http.StatusFound, http.StatusGone} {
		tried = server.setAnswer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
		})
		l.Process().Signal(t, syscall.SIGHUP)
		labtest.Eventually(t, "the webhook is called again", func() bool { return server.wasTried(tried) })
		ship()
	}
	l.Process().WaitLine(t, "webhook is gone")
	listed := l.Receiver("--config", l.Path("receiver.toml"), "hooks", "list").MustExit(t, 0).Stdout
	if !strings.Contains(listed, "paused until a reload: it answered with HTTP 410 Gone") || strings.Contains(listed, "s3cret") {
		t.Errorf("hooks list:\n%s", listed)
	}
	labtest.Eventually(t, "all events are queued", func() bool {
		queued, err := filepath.Glob(l.Path("data", ".hooks", "*-stored.json"))
		return err == nil && len(queued) == len(want)
	})
	l.Kill()
	server.setAnswer(nil)
	l.Start()
	ship()
	server.wait(want...)
	labtest.Eventually(t, "nothing is queued", func() bool {
		queued, err := filepath.Glob(l.Path("data", ".hooks", "*-stored.json"))
		return err == nil && len(queued) == 0
	})
	l.Settled(t)
}

// TestHooksWithoutAQueueDelayNothing: their directories cannot be used, and each costs one line.
func TestHooksWithoutAQueueDelayNothing(t *testing.T) {
	_, options := newHookServer(t)
	l, h := newLab(t, append(options, labtest.Unstarted(), labtest.Set("hooks.queue_dir", `"missing"`))...)
	fixture.Must(t, os.Mkdir(l.Path("data"), 0o750))
	fixture.WriteFile(t, l.Path("data", ".hooks"), "a file")
	p := l.Start()
	for i := range 3 {
		h.Episode(fmt.Sprintf("run-%d", i))
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	p.WaitLine(t, "directory of hooks not created")
	labtest.Eventually(t, "both queues have failed", func() bool { return strings.Count(p.Output(), "event not queued") == 2 })
	l.Stop()
	if n := strings.Count(p.Output(), "event not queued"); n != 2 {
		t.Errorf("%d lines about failures, want one per queue", n)
	}
}

// TestFullDiskOfAQueueDelaysNoUpload: later events say how many are missing.
func TestFullDiskOfAQueueDelaysNoUpload(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Unstarted(), labtest.Set("hooks.queue_dir", `"queue"`))
	queue := l.Path("queue")
	fixture.Must(t, os.Mkdir(queue, 0o750))
	fixture.MountTmpfsAt(t, queue, "size=64k")
	filler := filepath.Join(queue, ".filler")
	fixture.FillDisk(t, filler)
	p := l.Start()
	for i := range 3 {
		h.Episode(fmt.Sprintf("run-%d", i))
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	if line := p.WaitLine(t, "event not queued"); !strings.Contains(line, "no space left") {
		t.Errorf("got %s", line)
	}
	fixture.Must(t, os.Remove(filler))
	h.Episode("run-3")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	p.WaitLine(t, "events are queued again")
	queued, err := filepath.Glob(filepath.Join(queue, "*-stored.json"))
	fixture.Must(t, err)
	if len(queued) != 1 || !strings.HasSuffix(fixture.ReadFile(t, queued[0]), `"dropped":3}`) {
		t.Errorf("queued: %q", queued)
	}
	l.Stop()
}

// TestBothDaemonsSendHeartbeats: the shipper once it has reached its receiver.
func TestBothDaemonsSendHeartbeats(t *testing.T) {
	t.Parallel()
	calls := make(chan string, 100)
	monitor := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls <- strings.TrimPrefix(r.URL.Path, "/") + " " + strings.Split(r.UserAgent(), "/")[0]
	}))
	t.Cleanup(monitor.Close)
	dir := t.TempDir()
	for _, name := range []string{"receiver", "shipper"} {
		fixture.WriteFile(t, filepath.Join(dir, name), monitor.URL+"/"+name+"\n")
	}
	wait := func(want string) {
		t.Helper()
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("called %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no heartbeat %q", want)
		}
	}
	l, h := newLab(t, labtest.Set("heartbeat.url_file", fmt.Sprintf("%q", filepath.Join(dir, "receiver"))))
	wait("receiver cis490-receiver")
	h.Set("heartbeat.url_file", fmt.Sprintf("%q", filepath.Join(dir, "shipper")))
	p := h.Daemon()
	wait("shipper cis490-shipper")
	p.Stop(t)
	l.Stop()
	if len(calls) > 0 {
		t.Errorf("another call: %s", <-calls)
	}
}
