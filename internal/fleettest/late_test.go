package fleettest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// holder is a proxy from a receiver to the engine that can hold a request, or the answer to one, and
// deliver it minutes later, as networks and gateways do.
type holder struct {
	t    testing.TB
	to   string // the engine's URL
	addr string
	pass *httputil.ReverseProxy

	mu    sync.Mutex // guards the fields below
	armed *trap
	held  []*heldRequest
	sent  map[string]int // what happened to those that were released
	age   time.Duration  // the longest time that one was held
}

// trap says which request is held next, and how.
type trap struct {
	objects string // the beginning of its object's name
	answer  bool   // the engine gets it at once, and the answer is held; otherwise the request is
	cut     bool   // the receiver loses its connection at once; otherwise it waits
	round   int    // the first one in which it may be released
	minTime time.Duration
	caught  chan struct{} // closed once it is held
}

// heldRequest is a request that is held.
type heldRequest struct {
	*trap
	request   *http.Request
	body      []byte
	since     time.Time
	response  *httptest.ResponseRecorder // nil until the engine has got the request
	answered  chan struct{}              // closed once the receiver may have the response
	abandoned chan struct{}              // closed when the receiver waits no longer
}

func newHolder(t testing.TB, to string) *holder {
	t.Helper()
	h := &holder{t: t, to: to, sent: make(map[string]int)}
	target, err := url.Parse("http://" + to)
	fixture.Must(t, err)
	h.pass = &httputil.ReverseProxy{
		Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(h)
	h.addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return h
}

// ServeHTTP passes a request on, or holds it.
func (h *holder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	trap := h.takeTrap(r)
	if trap == nil {
		h.pass.ServeHTTP(w, r)
		return
	}
	held := h.hold(trap, r)
	if held == nil || trap.cut {
		panic(http.ErrAbortHandler)
	}
	select {
	case <-held.answered:
		maps.Copy(w.Header(), held.response.Header())
		w.WriteHeader(held.response.Code)
		_, _ = w.Write(held.response.Body.Bytes()) // the receiver may be gone
		return
	case <-r.Context().Done():
		close(held.abandoned)
	case <-h.t.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

// takeTrap returns the trap for a request, or nil if it is not to be held.
func (h *holder) takeTrap(r *http.Request) *trap {
	h.mu.Lock()
	defer h.mu.Unlock()
	trap := h.armed
	switch {
	case trap == nil, !strings.HasPrefix(r.URL.Path, "/"+bucketName+"/"+trap.objects):
		return nil
	case !trap.answer && r.Method != http.MethodPut && r.Method != http.MethodPost: // it changes nothing
		return nil
	}
	h.armed = nil
	return trap
}

// hold reads a request, and lets the engine answer it if only the answer is held. It returns nil if the
// connection fails meanwhile.
func (h *holder) hold(trap *trap, r *http.Request) *heldRequest {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil
	}
	held := &heldRequest{
		trap: trap, request: r.Clone(context.Background()), body: body, since: time.Now(),
		answered: make(chan struct{}), abandoned: make(chan struct{}),
	}
	if trap.answer {
		h.deliver(held)
	}
	if trap.cut {
		close(held.abandoned)
	}
	h.mu.Lock()
	h.held = append(h.held, held)
	h.mu.Unlock()
	close(trap.caught)
	return held
}

// deliver sends a request to the engine.
func (h *holder) deliver(held *heldRequest) {
	r := held.request.Clone(context.Background())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(held.body)), int64(len(held.body))
	held.response = httptest.NewRecorder()
	defer func() {
		if reason := recover(); reason != nil { // the engine is down
			held.response = httptest.NewRecorder()
			held.response.WriteHeader(http.StatusBadGateway)
		}
	}()
	h.pass.ServeHTTP(held.response, r)
}

// arm sets what is held next.
func (h *holder) arm(t *trap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = t
}

// release delivers what is due in a round, or everything that is held.
func (h *holder) release(round int, all bool) {
	h.mu.Lock()
	var due, kept []*heldRequest
	for _, held := range h.held {
		if all || round >= held.round && time.Since(held.since) >= held.minTime {
			due = append(due, held)
		} else {
			kept = append(kept, held)
		}
	}
	h.held = kept
	h.mu.Unlock()
	for _, held := range due {
		what, reader := "request", "it is awaited"
		if held.answer {
			what = "answer"
		} else {
			h.deliver(held)
		}
		if held.isAbandoned() {
			reader = "its receiver gave up"
		}
		close(held.answered)
		h.mu.Lock()
		h.sent[fmt.Sprintf("%s, %s %s: %d, %s", what, held.request.Method, strings.TrimSuffix(held.objects, "/"), held.response.Code, reader)]++
		h.age = max(h.age, time.Since(held.since))
		h.mu.Unlock()
	}
}

func (r *heldRequest) isAbandoned() bool {
	select {
	case <-r.abandoned:
		return true
	default:
		return false
	}
}

// awaited returns a request that its receiver waits for, or nil.
func (h *holder) awaited() *heldRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range h.held {
		if !held.isAbandoned() {
			return held
		}
	}
	return nil
}

// addHolders adds a holder between each receiver and the engine.
func (f *fleet) addHolders(t testing.TB) {
	t.Helper()
	for i, link := range f.links {
		h := newHolder(t, f.engine.addrs[i%len(f.engine.addrs)])
		f.holders = append(f.holders, h)
		link.Forward(h.addr)
		link.Sever() // connections that do not lead through it
	}
	t.Cleanup(f.background.Wait)
}

// logHeld says what happened to everything that was held.
func (f *fleet) logHeld(t testing.TB) {
	sent, total, age := map[string]int{}, 0, time.Duration(0)
	for _, h := range f.holders {
		for what, n := range h.sent {
			sent[what] += n
			total += n
		}
		age = max(age, h.age)
	}
	t.Logf("%d held, for up to %v: %v", total, age.Round(time.Second), sent)
}

const (
	// maxCatch is how long a request to hold is waited for.
	maxCatch = 5 * time.Second
	// hostPatience is how long a host waits for a receiver that waits for the engine.
	hostPatience = 3 * time.Second
)

// holdOne holds the next request of a receiver, or its answer, which is delivered in a later round. The
// receiver loses the connection, is killed, or waits until it gives up; hosts go elsewhere meanwhile.
func (f *fleet) holdOne(t testing.TB, n int, random *rand.Rand, ended <-chan struct{}) string {
	i := random.IntN(len(f.receivers))
	h, answer, what := f.holders[i], random.IntN(4) == 0, "request held"
	if answer {
		what = "answer held"
	}
	objects := []string{"commits/", "log/", "commits/", "log/", "episodes/", "uploads/"}[random.IntN(6)]
	how, later, wait := random.IntN(4), 1+random.IntN(12), time.Duration(10+random.IntN(80))*time.Second
	for _, other := range f.holders { // two that wait would leave too few for the hosts
		if how == 3 && other.awaited() != nil {
			how = 2
		}
	}
	trap := &trap{objects: objects, answer: answer, cut: how < 2 && !answer, round: n + later, caught: make(chan struct{})}
	if how == 3 {
		trap.round, trap.minTime = n+1, wait
	}
	h.arm(trap)
	defer h.arm(nil)
	select {
	case <-trap.caught:
	case <-ended:
		return "nothing to hold"
	case <-time.After(maxCatch):
		return "nothing to hold"
	}
	switch {
	case trap.cut:
		return what + ", connection cut"
	case how < 3:
		f.receivers[i].Kill()
		f.start(i)
		return what + ", receiver killed"
	}
	f.background.Go(func() { f.letHostsGo(t.Context(), i) })
	return what + ", receiver waits"
}

// letHostsGo cuts the connections of hosts that wait for a receiver while that waits for the engine.
func (f *fleet) letHostsGo(ctx context.Context, i int) {
	for f.holders[i].awaited() != nil {
		select {
		case <-time.After(hostPatience):
			f.receivers[i].Proxy.Sever()
		case <-ctx.Done():
			return
		}
	}
}

// release delivers what is due in a round, or everything that is held.
func (f *fleet) release(round int, all bool) {
	for _, h := range f.holders {
		h.release(round, all)
	}
}

// A holder must not change what it passes on, and must deliver what it holds once.
func TestHeldRequestIsDeliveredOnce(t *testing.T) {
	type seen struct{ method, path, host, body, signed string }
	got := make(chan seen, 10)
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Method, r.URL.RequestURI(), r.Host, string(body), r.Header.Get("Authorization")}
		w.WriteHeader(http.StatusPreconditionFailed)
	}))
	t.Cleanup(engine.Close)
	h := newHolder(t, engine.Listener.Addr().String())
	put := func(object string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+h.addr+"/"+bucketName+"/"+object+"?x=1", strings.NewReader("row"))
		fixture.Must(t, err)
		req.Header.Set("Authorization", "signature")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	want := func(object string) seen {
		return seen{http.MethodPut, "/lab/" + object + "?x=1", h.addr, "row", "signature"}
	}

	cut := &trap{objects: "log/", cut: true, round: 2, caught: make(chan struct{})}
	h.arm(cut)
	if code, err := put("commits/a"); err != nil || code != http.StatusPreconditionFailed || <-got != want("commits/a") {
		t.Errorf("passed on: got %d, %v", code, err)
	}
	if code, err := put("log/1"); err == nil {
		t.Errorf("a request that is held: got %d, want an error", code)
	}
	<-cut.caught
	h.release(1, false)
	if len(got) != 0 {
		t.Errorf("released early: got %+v", <-got)
	}
	h.release(2, false)
	h.release(3, true)
	if s := <-got; s != want("log/1") || len(got) != 0 {
		t.Errorf("released: got %+v and %d more, want %+v once", s, len(got), want("log/1"))
	}

	waits := &trap{objects: "log/", answer: true, round: 4, caught: make(chan struct{})}
	h.arm(waits)
	answer := make(chan int)
	go func() {
		code, _ := put("log/2")
		answer <- code
	}()
	<-waits.caught
	if s := <-got; s != want("log/2") || h.awaited() == nil {
		t.Errorf("a held answer: the engine got %+v, want %+v", s, want("log/2"))
	}
	h.release(3, true)
	if code := <-answer; code != http.StatusPreconditionFailed || len(got) != 0 {
		t.Errorf("a held answer: got %d and %d more requests, want %d and none", code, len(got), http.StatusPreconditionFailed)
	}
}
