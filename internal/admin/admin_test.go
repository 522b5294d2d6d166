package admin_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/admin"
	"cis490/internal/config"
	"cis490/internal/fixture"
)

// file is a configuration file with the table of the listener.
type file struct {
	Admin admin.Config `toml:"admin"`
}

func (f file) Validate() error { return errors.Join(f.Admin.Validate()...) }

// load reads a configuration whose default address is listen.
func load(t *testing.T, listen, text string) (admin.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.toml")
	fixture.WriteFile(t, path, text)
	f, err := config.LoadValid(path, file{admin.Default(listen)})
	return f.Admin, err
}

func TestOnlyAddressesOfThisMachineAreAllowed(t *testing.T) {
	for _, c := range []struct{ listen, wrong string }{
		{`"127.0.0.1:9490"`, ""},
		{`"127.1.2.3:0"`, ""},
		{`"[::1]:9490"`, ""},
		{`"localhost:9490"`, ""},
		{`"unix:/run/x/admin.sock"`, ""},
		{`""`, ""},
		{`":9490"`, "allow_remote"},
		{`"0.0.0.0:9490"`, "allow_remote"},
		{`"[::]:9490"`, "allow_remote"},
		{`"10.0.0.1:9490"`, "allow_remote"},
		{`"[::ffff:10.0.0.1]:9490"`, "allow_remote"},
		{`"receiver.lab:9490"`, "allow_remote"},
		{`"127.0.0.1.evil.example:9490"`, "allow_remote"},
		{`"9490"`, "admin.listen"},
		{`"127.0.0.1"`, "admin.listen"},
		{`"127.0.0.1:http"`, "admin.listen"},
		{`"127.0.0.1:70000"`, "admin.listen"},
		{`"unix:admin.sock"`, "absolute"},
		{`9490`, "admin.listen"},
	} {
		_, err := load(t, "127.0.0.1:1", "[admin]\nlisten = "+c.listen+"\n")
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.listen, err, c.wrong)
		}
		if c.wrong == "allow_remote" {
			if _, err := load(t, "127.0.0.1:1", "[admin]\nallow_remote = true\nlisten = "+c.listen+"\n"); err != nil {
				t.Errorf("%s with allow_remote: %v", c.listen, err)
			}
		}
	}
}

// TestOnlyANamedAddressMustBeUsable: the default must not keep a daemon from its work.
func TestOnlyANamedAddressMustBeUsable(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer taken.Close()
	addr := taken.Addr().String()
	var lines bytes.Buffer
	log := slog.New(slog.NewTextHandler(&lines, nil))

	byDefault, err := load(t, addr, "")
	fixture.Must(t, err)
	if ln, err := admin.Listen(byDefault, log); ln != nil || err != nil {
		t.Errorf("a default address that is taken: %v, %v", ln, err)
	}
	if got := lines.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "address already in use") {
		t.Errorf("the log: %s", got)
	}
	if note, err := byDefault.Probe(); err != nil || !strings.Contains(note, "address already in use") {
		t.Errorf("probe: %q, %v", note, err)
	}

	named, err := load(t, "127.0.0.1:1", "[admin]\nlisten = \""+addr+"\"\n")
	fixture.Must(t, err)
	var refused *admin.ListenError
	if _, err := admin.Listen(named, log); !errors.As(err, &refused) || !strings.Contains(err.Error(), "admin.listen") {
		t.Errorf("a named address that is taken: %v", err)
	}
	if _, err := named.Probe(); !errors.As(err, &refused) {
		t.Errorf("probe: %v", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	fixture.WriteFile(t, file, "mine")
	socket, err := load(t, "127.0.0.1:1", "[admin]\nlisten = \"unix:"+file+"\"\n")
	fixture.Must(t, err)
	if _, err := socket.Probe(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("probe of a file: %v", err)
	}

	none, err := load(t, addr, "[admin]\nlisten = \"\"\n")
	fixture.Must(t, err)
	if ln, err := admin.Listen(none, log); ln != nil || err != nil {
		t.Errorf("no address: %v, %v", ln, err)
	}
}

// daemon serves what a test sets.
func daemon() (d admin.Daemon, alive *bool, ready *error) {
	alive, ready = new(bool), new(error)
	*alive = true
	return admin.Daemon{
		Name:    "receiver",
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "m 1\n") }),
		Alive:   func(context.Context) bool { return *alive },
		Ready:   func(context.Context) error { return *ready },
	}, alive, ready
}

// TestRequestsMustNameTheListener: a page in a browser could otherwise read it through a name of its own
// that leads here.
func TestRequestsMustNameTheListener(t *testing.T) {
	d, _, _ := daemon()
	for _, c := range []struct {
		listen, host string
		status       int
	}{
		{"127.0.0.1:9490", "127.0.0.1:9490", 200},
		{"127.0.0.1:9490", "127.0.0.1", 200},
		{"127.0.0.1:9490", "localhost:8000", 200}, // forwarded by ssh
		{"127.0.0.1:9490", "LocalHost", 200},
		{"127.0.0.1:9490", "[::1]:9490", 200},
		{"127.0.0.1:9490", "evil.example:9490", 421},
		{"127.0.0.1:9490", "localhost.evil.example", 421},
		{"127.0.0.1:9490", "127.0.0.1.evil.example", 421},
		{"127.0.0.1:9490", "10.0.0.1:9490", 421},
		{"127.0.0.1:9490", "", 421},
		{"127.0.0.1:9490", "[::1", 200}, // nothing but this machine can be meant
		{"unix:/run/admin.sock", "localhost", 200},
		{"unix:/run/admin.sock", "10.0.0.1", 421},
		{"10.0.0.1:9490", "10.0.0.1:9490", 200},
		{"10.0.0.1:9490", "10.0.0.2:9490", 421},
		{"receiver.lab:9490", "Receiver.lab:9490", 200},
		{"receiver.lab:9490", "evil.example", 421},
		{":9490", "10.0.0.1:9490", 200},
		{"0.0.0.0:9490", "[fd00::1]:9490", 200},
		{":9490", "evil.example", 421},
	} {
		cfg, err := load(t, "127.0.0.1:1", "[admin]\nallow_remote = true\nlisten = \""+c.listen+"\"\n")
		fixture.Must(t, err)
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Host = c.host
		cfg.Handler(d).ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s, Host %q: %d, want %d", c.listen, c.host, w.Code, c.status)
		}
		if w.Code == 421 && strings.Contains(w.Body.String(), "m 1") {
			t.Errorf("%s, Host %q: refused, and answered", c.listen, c.host)
		}
	}
}

func TestOnlyGETAndHEADAreServed(t *testing.T) {
	d, _, _ := daemon()
	h := admin.Default("127.0.0.1:9490").Handler(d)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE"} {
		for _, path := range []string{"/metrics", "/healthz", "/nothing"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(method, path, nil)
			r.Host = "localhost"
			h.ServeHTTP(w, r)
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

func TestHealthIsSaidByStatus(t *testing.T) {
	d, alive, ready := daemon()
	h := admin.Default("127.0.0.1:9490").Handler(d)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = "localhost"
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	check := func(path string, status int, text string) {
		t.Helper()
		if code, body := get(path); code != status || !strings.Contains(body, text) {
			t.Errorf("%s: %d %q, want %d %q", path, code, body, status, text)
		}
	}
	check("/", 200, "/metrics")
	check("/nothing", 404, "")
	check("/healthz", 200, "ok")
	check("/readyz", 200, "ok")
	*alive, *ready = false, errors.New("the disk is full")
	check("/healthz", 503, "makes no progress")
	check("/readyz", 503, "the disk is full")
}

// TestUnixSocketIsForItsDirectory serves over a socket, and ends with its context.
func TestUnixSocketIsForItsDirectory(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	cfg, err := load(t, "127.0.0.1:1", "[admin]\nlisten = \"unix:"+path+"\"\n")
	fixture.Must(t, err)
	ln, err := admin.Listen(cfg, slog.New(slog.DiscardHandler))
	fixture.Must(t, err)
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("it has mode %v", info.Mode())
	}
	ctx, stop := context.WithCancel(t.Context())
	d, _, _ := daemon()
	ended := make(chan error, 1)
	go func() { ended <- cfg.Serve(ctx, ln, d, slog.New(slog.DiscardHandler)) }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := client.Get("http://localhost/metrics")
	fixture.Must(t, err)
	body, err := io.ReadAll(resp.Body)
	fixture.Must(t, errors.Join(err, resp.Body.Close()))
	if string(body) != "m 1\n" {
		t.Errorf("it serves %q", body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestPageOfAnotherSiteCausesNoScrape: such a page cannot read the answer, but could ask for ever.
func TestPageOfAnotherSiteCausesNoScrape(t *testing.T) {
	d, _, _ := daemon()
	h := admin.Default("127.0.0.1:9490").Handler(d)
	for _, c := range []struct {
		site, mode, dest, path string
		status                 int
	}{
		{"", "", "", "/metrics", 200},
		{"none", "navigate", "document", "/metrics", 200},
		{"same-origin", "cors", "empty", "/metrics", 200},
		{"cross-site", "no-cors", "empty", "/metrics", 403},
		{"same-site", "cors", "empty", "/metrics", 403},
		{"cross-site", "navigate", "iframe", "/metrics", 403},
		{"cross-site", "navigate", "document", "/metrics", 403},
		{"cross-site", "navigate", "iframe", "/", 403},
		{"cross-site", "navigate", "document", "/", 200}, // a link
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, c.path, nil)
		r.Host = "localhost"
		for field, value := range map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Sec-Fetch-Dest": c.dest} {
			r.Header.Set(field, value)
		}
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}

// TestOpenRequestsDoNotDelayTheEnd: SIGTERM ends a daemon within five seconds.
func TestOpenRequestsDoNotDelayTheEnd(t *testing.T) {
	cfg, err := load(t, "127.0.0.1:1", "[admin]\nlisten = \"127.0.0.1:0\"\n")
	fixture.Must(t, err)
	ln, err := admin.Listen(cfg, slog.New(slog.DiscardHandler))
	fixture.Must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	scraping, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	d, _, _ := daemon()
	d.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(scraping)
		<-release // a disk that hangs
	})
	ended := make(chan error, 1)
	go func() { ended <- cfg.Serve(ctx, ln, d, slog.New(slog.DiscardHandler)) }()
	silent, err := net.Dial("tcp", ln.Addr().String())
	fixture.Must(t, err)
	defer silent.Close()
	go http.Get("http://" + ln.Addr().String() + "/metrics")
	<-scraping
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// pipeListener accepts connections of a bubble.
type pipeListener struct{ conns chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	conn, open := <-l.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (l pipeListener) Close() error   { return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestSilentConnectionsAreFewAndShort: 16 at a time, for five seconds.
func TestSilentConnectionsAreFewAndShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := pipeListener{make(chan net.Conn)}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		d, _, _ := daemon()
		go func() { ended <- admin.Default("127.0.0.1:1").Serve(ctx, ln, d, slog.New(slog.DiscardHandler)) }()
		accepted := 0
		connect := func() {
			for range 32 {
				client, server := net.Pipe()
				synctest.Wait()
				select {
				case ln.conns <- server:
					t.Cleanup(func() { client.Close() })
					accepted++
				default:
					client.Close()
					server.Close()
					return
				}
			}
		}
		connect()
		if accepted != 16 {
			t.Errorf("%d connections were accepted", accepted)
		}
		time.Sleep(6 * time.Second)
		connect()
		if accepted != 32 {
			t.Errorf("%d connections were accepted after the first ones timed out", accepted)
		}
		stop()
		close(ln.conns)
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// failingListener cannot accept.
type failingListener struct{ net.Listener }

func (failingListener) Accept() (net.Conn, error) { return nil, errors.New("no more memory") }

// TestItsFailureDoesNotEndTheDaemon: uploads matter more.
func TestItsFailureDoesNotEndTheDaemon(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer ln.Close()
	var lines bytes.Buffer
	d, _, _ := daemon()
	if err := admin.Default("127.0.0.1:1").Serve(t.Context(), failingListener{ln}, d, slog.New(slog.NewTextHandler(&lines, nil))); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if !strings.Contains(lines.String(), "no more memory") {
		t.Errorf("the log: %s", lines.String())
	}
}

// TestHangingDiskHoldsOneQuestion: however often clients ask whether the daemon is ready.
func TestHangingDiskHoldsOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		release := make(chan struct{})
		d, _, _ := daemon()
		d.Ready = func(context.Context) error { asked.Add(1); <-release; return nil }
		h := admin.Default("127.0.0.1:9490").Handler(d)
		for range 5 {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodGet, "/readyz", nil)
			r.Host = "localhost"
			h.ServeHTTP(w, r)
			if w.Code != http.StatusServiceUnavailable {
				t.Errorf("status %d", w.Code)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%d questions wait", n)
		}
		close(release)
	})
}

// TestPagesAreServedByTheSameRules: a daemon's own pages hide no metrics, and only who may read those can
// read them.
func TestPagesAreServedByTheSameRules(t *testing.T) {
	d, _, _ := daemon()
	d.Pages = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page "+r.URL.Path) })
	h := admin.Default("127.0.0.1:9490").Handler(d)
	for _, c := range []struct {
		method, host, path string
		status             int
		text               string
	}{
		{"GET", "localhost", "/", 200, "page /"},
		{"GET", "localhost", "/hosts/lab-01", 200, "page /hosts/lab-01"},
		{"GET", "localhost", "/metrics", 200, "m 1"},
		{"GET", "localhost", "/healthz", 200, "ok"},
		{"POST", "localhost", "/", 405, "GET"},
		{"GET", "evil.example", "/", 421, "localhost"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s %s at %s: %d %q", c.method, c.path, c.host, w.Code, w.Body)
		}
	}
}
