package receiver_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/backendtest"
	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/labtest"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/wire"
)

// accessLab is a receiver with both of its listeners, tokens, a CRL and a clock that the test sets.
type accessLab struct {
	*lab
	clockOffset atomic.Int64 // nanoseconds that the receiver's clock is ahead
	addr        string
	socket      string
}

const (
	victim  = episode.Name("lab-01") // loses access
	witness = episode.Name("lab-02") // keeps it
)

func newAccessLab(t *testing.T) *accessLab {
	t.Helper()
	run, err := os.MkdirTemp("", "doors")
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(run) })
	d := &accessLab{socket: filepath.Join(run, "proxy.sock")}
	tokens := filepath.Join(run, "tokens")
	fixture.Must(t, os.WriteFile(tokens, tokensOf(victim, witness), 0o600))
	d.lab = newLab(t, func(c *receiver.Config) {
		c.Auth.TokensFile = config.Path(tokens)
		c.Proxy.Socket = config.Path(d.socket)
		c.Limits.UploadsPerHost = 2
	})
	d.stop()
	d.cfg.TLS.CRLFile = config.Path(filepath.Join(d.pki, "hosts.crl"))
	trust := d.cfg.TrustConfig()
	trust.Now = func() time.Time { return time.Now().Add(time.Duration(d.clockOffset.Load())) }
	gate, err := gate.Open(trust)
	fixture.Must(t, err)
	r, err := receiver.New(t.Context(), gate, d.cfg, "test", "the lab", slog.New(&d.Stops), nil)
	fixture.Must(t, err)
	d.use(r)
	d.b.Uploads().MaxWait = time.Hour
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	proxy, err := d.r.ListenProxy()
	fixture.Must(t, err)
	d.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- d.r.Serve(ctx, ln, proxy) }()
	t.Cleanup(func() {
		cancel()
		fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, served, "the end"))
	})
	return d
}

func tokensOf(hosts ...episode.Name) []byte {
	var b bytes.Buffer
	for _, host := range hosts {
		fmt.Fprintf(&b, "%s %x\n", host, sha256.Sum256([]byte("token of "+host)))
	}
	return b.Bytes()
}

// visitor sends requests of a host through one of the listeners.
type visitor struct {
	d    *accessLab
	host episode.Name
	cert []byte // in DER; nil at the port
	http *http.Client
}

func (d *accessLab) newVisitor(host episode.Name, door string, valid time.Duration) *visitor {
	d.Helper()
	out := d.TempDir()
	_, err := ca.IssueHost(d.lab.pki, host, out, ca.IssueOptions{Valid: valid})
	fixture.Must(d, err)
	file := func(suffix string) string { return filepath.Join(out, string(host)+suffix) }
	v := &visitor{d: d, host: host}
	transport := &http.Transport{DisableCompression: true, ExpectContinueTimeout: time.Hour}
	switch door {
	case "port":
		papers, err := credentials.Load(credentials.Config{CAFile: filepath.Join(out, "ca.crt"), CertFile: file(".crt"), KeyFile: file(".key")})
		fixture.Must(d, err)
		transport.TLSClientConfig = papers.TLSConfig()
	case "proxy":
		text, err := os.ReadFile(file(".crt"))
		fixture.Must(d, err)
		block, _ := pem.Decode(text)
		v.cert = block.Bytes
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.socket)
		}
	}
	v.http = &http.Client{Transport: transport}
	d.Cleanup(transport.CloseIdleConnections)
	return v
}

// reply is the answer to a request, or its error.
type reply struct {
	status int
	close  bool
	fields http.Header
	doc    struct{ Type, Detail string }
	err    error
}

// request is what a visitor sends. Its body has size bytes, of which a test may hold
// some back.
type request struct {
	method, path string
	fields       map[string]string
	body         io.Reader
	size         int64
}

// send sends a request and returns the channel of its answer.
func (v *visitor) send(q request) <-chan reply {
	v.d.Helper()
	base := "https://" + v.d.addr
	if v.cert != nil {
		base = "http://receiver"
	}
	req, err := http.NewRequestWithContext(v.d.Context(), q.method, base+q.path, q.body)
	fixture.Must(v.d, err)
	req.ContentLength = q.size
	req.Header.Set("Authorization", "Bearer token of "+string(v.host))
	if v.cert != nil {
		req.Header.Set("Client-Cert", ":"+base64.StdEncoding.EncodeToString(v.cert)+":")
	}
	for name, value := range q.fields {
		req.Header.Set(name, value)
	}
	answer := make(chan reply, 1)
	go func() {
		var r reply
		var resp *http.Response
		if resp, r.err = v.http.Do(req); r.err == nil {
			r.status, r.close, r.fields = resp.StatusCode, resp.Close, resp.Header
			json.NewDecoder(resp.Body).Decode(&r.doc)
			resp.Body.Close()
		}
		answer <- r
	}()
	return answer
}

func (v *visitor) do(q request) reply {
	v.d.Helper()
	return fixture.ReceiveWithin(v.d, time.Minute, v.send(q), q.method+" "+q.path)
}

func (v *visitor) ping() reply {
	return v.do(request{method: "POST", path: "/v1/ping", body: http.NoBody})
}

// isRefused reports whether a ping is refused with a status, or its handshake is.
func (v *visitor) isRefused(status int) bool {
	r := v.ping()
	alert, isAlert := errors.AsType[*net.OpError](r.err)
	return r.status == status || isAlert && alert.Op == "remote error"
}

func (v *visitor) path(name string) string { return "/v1/episodes/" + string(v.host) + "/" + name }

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func (v *visitor) put(name string, content []byte, body io.Reader) request {
	return request{"PUT", v.path(name), map[string]string{"Repr-Digest": digestOf(content)}, body, int64(len(content))}
}

func (v *visitor) announcement(name string, content []byte) request {
	return request{"PUT", v.path(name), map[string]string{
		"Repr-Digest": digestOf(content), "Upload-Complete": "?0", "Upload-Length": fmt.Sprint(len(content)),
	}, http.NoBody, 0}
}

// announce returns the path of an upload.
func (v *visitor) announce(name string, content []byte) string {
	v.d.Helper()
	r := v.do(v.announcement(name, content))
	if r.err != nil || r.status != http.StatusCreated {
		v.d.Fatalf("%+v", r)
	}
	return r.fields.Get("Location")
}

func lastPiece(path string, content []byte, body io.Reader) request {
	return request{"PATCH", path, map[string]string{
		"Content-Type": "application/partial-upload", "Upload-Offset": "0", "Upload-Complete": "?1",
	}, body, int64(len(content))}
}

func inventory(name string, content []byte, readBack bool) []byte {
	sum := sha256.Sum256(content)
	return fmt.Appendf(nil, `{"episodes":[{"episode_id":%q,"sha256":"%x"}],"read_back":%v}`, name, sum, readBack)
}

// halfBody returns a body that stops in its middle until the test ends.
func halfBody(t *testing.T, content []byte) io.Reader {
	r, w := io.Pipe()
	go w.Write(content[:len(content)/2])
	t.Cleanup(func() { w.CloseWithError(errors.New("the test has ended")) })
	return r
}

// endless is a disk that returns zeros until it is released.
type endless struct {
	reached chan struct{}
	release chan struct{}
	once    atomic.Bool
}

func (e *endless) Read(p []byte) (int, error) {
	if !e.once.Swap(true) {
		close(e.reached)
	}
	select {
	case <-e.release:
		return 0, io.EOF
	case <-time.After(time.Millisecond): // otherwise it would occupy the processor
	}
	clear(p)
	return len(p), nil
}

func (e *endless) Close() error { return nil }

// stallReadback makes each verification last until release.
func (d *accessLab) stallReadback() (reached <-chan struct{}, release func()) {
	e := &endless{reached: make(chan struct{}), release: make(chan struct{})}
	d.b.Archives().Uncached = func(*durable.Dir, string) (io.ReadCloser, error) { return e, nil }
	return e.reached, func() { close(e.release) }
}

// occupySlots takes all slots of the victim with requests that come through neither listener,
// until release is called.
func (d *accessLab) occupySlots(t *testing.T) (release func()) {
	arrived, open := make(chan struct{}, 2), make(chan struct{})
	done := make(chan error, 2)
	for i := range 2 {
		content := fixture.Noise(1000, byte(i))
		u := uploadOf(key(string(victim), fmt.Sprint("occupied-", i)), content)
		go func() {
			_, err := d.b.Put(context.WithoutCancel(t.Context()), u, backendtest.StopBeforeLast(content, arrived, open))
			done <- err
		}()
		fixture.ReceiveWithin(t, time.Minute, arrived, "the upload that takes the place")
	}
	return func() {
		close(open)
		for range 2 {
			fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, done, "the upload that takes the place"))
		}
	}
}

// waitingRequest is a request that waits for something.
type waitingRequest struct {
	answer  <-chan reply
	release func() // ends what it waits for
	// only means that the answer comes only after release.
	only bool
}

// kinds are the requests that may take long, each for a different reason.
var kinds = map[string]func(t *testing.T, d *accessLab, v *visitor) waitingRequest{
	"put body": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(300_000, 1)
		answer := v.send(v.put("e", content, halfBody(t, content)))
		labtest.Eventually(t, "the upload is under way", func() bool { return d.b.Uploads().ActiveCount() == 1 })
		return waitingRequest{answer: answer}
	},
	"small put body": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(3000, 1)
		answer := v.send(v.put("e", content, halfBody(t, content)))
		labtest.Eventually(t, "the upload is under way", func() bool { return d.b.Uploads().ActiveCount() == 1 })
		return waitingRequest{answer: answer}
	},
	"put in the queue": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		release := d.occupySlots(t)
		content := packNoise(300_000, 1)
		q := v.put("e", content, bytes.NewReader(content))
		q.fields["Expect"] = "100-continue"
		answer := v.send(q)
		labtest.Eventually(t, "the upload waits", func() bool { return d.b.Uploads().QueuedCount() == 1 })
		return waitingRequest{answer: answer, release: release}
	},
	"put waits for its name": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		unlock := d.HoldKey(key(string(victim), "e"))
		content := packNoise(3000, 1)
		answer := v.send(v.put("e", content, bytes.NewReader(content)))
		labtest.Eventually(t, "the upload is under way", func() bool { return d.b.Uploads().ActiveCount() == 2 })
		return waitingRequest{answer: answer, release: unlock}
	},
	"put of what is read back": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(3000, 1)
		d.WantReceipt(key(string(victim), "e"), content, wire.Stored)
		reached, release := d.stallReadback()
		answer := v.send(v.put("e", content, bytes.NewReader(content)))
		fixture.ReceiveWithin(t, time.Minute, reached, "the reading")
		return waitingRequest{answer: answer, release: release}
	},
	"put before its commit": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		reached, release := d.Stops.StopAt(backendtest.BeforeCommit)
		content := fixture.Noise(3000, 1)
		answer := v.send(v.put("e", content, bytes.NewReader(content)))
		fixture.ReceiveWithin(t, time.Minute, reached, "the end of the upload")
		return waitingRequest{answer: answer, release: release, only: true}
	},
	"announcement": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		unlock := d.HoldKey(key(string(victim), "e"))
		answer := v.send(v.announcement("e", packNoise(300_000, 1)))
		labtest.Eventually(t, "the announcement is under way", func() bool { return d.b.Uploads().ActiveCount() == 2 })
		return waitingRequest{answer: answer, release: unlock}
	},
	"announcement of what is read back": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(300_000, 1)
		d.WantReceipt(key(string(victim), "e"), content, wire.Stored)
		reached, release := d.stallReadback()
		answer := v.send(v.announcement("e", content))
		fixture.ReceiveWithin(t, time.Minute, reached, "the reading")
		return waitingRequest{answer: answer, release: release}
	},
	"piece": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(300_000, 1)
		to := v.announce("e", content)
		answer := v.send(lastPiece(to, content, halfBody(t, content)))
		labtest.Eventually(t, "the piece is under way", func() bool { return d.b.Uploads().ActiveCount() == 1 })
		return waitingRequest{answer: answer}
	},
	"piece in the queue": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(3000, 1)
		to := v.announce("e", content)
		release := d.occupySlots(t)
		answer := v.send(lastPiece(to, content, bytes.NewReader(content)))
		labtest.Eventually(t, "the piece waits", func() bool { return d.b.Uploads().QueuedCount() == 1 })
		return waitingRequest{answer: answer, release: release}
	},
	"piece before its commit": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := fixture.Noise(3000, 1)
		to := v.announce("e", content)
		reached, release := d.Stops.StopAt(backendtest.BeforeCommit)
		answer := v.send(lastPiece(to, content, bytes.NewReader(content)))
		fixture.ReceiveWithin(t, time.Minute, reached, "the end of the upload")
		return waitingRequest{answer: answer, release: release, only: true}
	},
	"state of an upload": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		return d.sendDuringPiece(t, v, "HEAD")
	},
	"end of an upload": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		return d.sendDuringPiece(t, v, "DELETE")
	},
	"head of what is read": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		fixture.Must(t, os.MkdirAll(filepath.Dir(d.StoredPath(key(string(victim), "e"))), 0o755))
		fixture.Must(t, os.WriteFile(d.StoredPath(key(string(victim), "e")), packNoise(3000, 1), 0o644))
		reached, release := d.stallReadback()
		answer := v.send(request{method: "HEAD", path: v.path("e")})
		fixture.ReceiveWithin(t, time.Minute, reached, "the reading")
		return waitingRequest{answer: answer, release: release}
	},
	"inventory body": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		body := inventory("e", nil, false)
		answer := v.send(request{"POST", "/v1/inventory", nil, halfBody(t, body), int64(len(body))})
		labtest.Eventually(t, "the inventory is under way", func() bool { return d.r.AdmittedRequests() == 1 })
		return waitingRequest{answer: answer}
	},
	"inventory in the queue": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		release := d.occupySlots(t)
		body := inventory("e", nil, false)
		answer := v.send(request{"POST", "/v1/inventory", nil, bytes.NewReader(body), int64(len(body))})
		labtest.Eventually(t, "the inventory waits", func() bool { return d.b.Uploads().QueuedCount() == 1 })
		return waitingRequest{answer: answer, release: release}
	},
	"inventory that reads back": func(t *testing.T, d *accessLab, v *visitor) waitingRequest {
		content := packNoise(3000, 1)
		d.WantReceipt(key(string(victim), "e"), content, wire.Stored)
		reached, release := d.stallReadback()
		body := inventory("e", content, true)
		answer := v.send(request{"POST", "/v1/inventory", nil, bytes.NewReader(body), int64(len(body))})
		fixture.ReceiveWithin(t, time.Minute, reached, "the reading")
		return waitingRequest{answer: answer, release: release}
	},
}

// waitArrived waits until size bytes of the victim's upload are in staging. What follows all
// of them is the commit.
func (d *accessLab) waitArrived(t *testing.T, size int) {
	t.Helper()
	labtest.Eventually(t, "the bytes have come", func() bool {
		staged, err := filepath.Glob(filepath.Join(d.Data, "staging", string(victim), "*"))
		if err != nil || len(staged) != 1 {
			return false
		}
		info, err := os.Stat(staged[0])
		return err == nil && info.Size() >= int64(size)
	})
}

// sendDuringPiece sends a request about an upload while a piece of it arrives that cannot be
// interrupted.
func (d *accessLab) sendDuringPiece(t *testing.T, v *visitor, method string) waitingRequest {
	content := packNoise(300_000, 1)
	to := v.announce("e", content)
	arrived, open, done := make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		p := wire.Piece{Size: 1000}
		_, _, err := d.b.AppendPiece(context.WithoutCancel(t.Context()), victim, strings.TrimPrefix(to, "/v1/uploads/"), p, backendtest.StopBeforeLast(content[:1000], arrived, open))
		done <- err
	}()
	fixture.ReceiveWithin(t, time.Minute, arrived, "the piece")
	answer := v.send(request{method: method, path: to})
	labtest.Eventually(t, "the request is under way", func() bool { return d.r.AdmittedRequests() == 1 })
	return waitingRequest{answer: answer, release: func() {
		close(open)
		fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, done, "the piece"))
	}}
}

// withdrawals are the ways in which the victim loses access, and the answers it gets.
var withdrawals = map[string]struct {
	status int
	kind   string
	detail string
	do     func(t *testing.T, d *accessLab)
}{
	"revoked": {http.StatusForbidden, "forbidden", "was revoked", func(t *testing.T, d *accessLab) {
		_, err := revocation.RevokeHost(d.lab.pki, victim, time.Time{})
		fixture.Must(t, errors.Join(err, d.r.Reload()))
	}},
	"token removed": {http.StatusUnauthorized, "token-refused", "not the token of host", func(t *testing.T, d *accessLab) {
		fixture.Must(t, os.WriteFile(string(d.cfg.Auth.TokensFile), tokensOf(witness), 0o600))
		fixture.Must(t, d.r.Reload())
	}},
	"expired": {http.StatusForbidden, "forbidden", "expired", func(_ *testing.T, d *accessLab) {
		d.clockOffset.Store(int64(2 * time.Hour))
		d.r.ReviewRequests()
	}},
	"disabled": {http.StatusForbidden, "forbidden", "receiver hosts enable lab-01", func(t *testing.T, d *accessLab) {
		_, err := datadir.HostList{Dir: string(d.cfg.DataDir), Holder: "the test"}.Disable(t.Context(), []episode.Name{victim}, time.Now())
		fixture.Must(t, err)
		d.r.ReviewRequests()
	}},
}

func TestHostThatLosesAccessIsServedNoFurther(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"port", "proxy"} {
		for how := range withdrawals {
			for kind := range kinds {
				t.Run(door+"/"+how+"/"+kind, func(t *testing.T) {
					t.Parallel()
					testWithdrawal(t, door, how, kind)
				})
			}
		}
	}
}

func testWithdrawal(t *testing.T, door, how, kind string) {
	d := newAccessLab(t)
	v := d.newVisitor(victim, door, time.Hour)
	u := kinds[kind](t, d, v)
	rows := d.Rows()
	other := d.newVisitor(witness, door, 24*time.Hour)
	content := fixture.Noise(1000, 9)
	body, last := io.Pipe()
	untouched := other.send(other.put("other", content, body))
	last.Write(content[:999])

	w := withdrawals[how]
	w.do(t, d)
	if u.only {
		labtest.Eventually(t, "a new request is refused", func() bool { return v.isRefused(w.status) })
		u.release()
	}
	got := fixture.ReceiveWithin(t, time.Minute, u.answer, "the answer")
	isHead := strings.HasPrefix(kind, "head") || strings.HasPrefix(kind, "state")
	if got.err != nil || got.status != w.status || !got.close {
		t.Fatalf("the request ends with %+v (%v), want the status %d and the connection's end", got, got.err, w.status)
	}
	if !isHead && (got.doc.Type != "urn:cis490:problem:"+w.kind || !strings.Contains(got.doc.Detail, w.detail)) {
		t.Errorf("the request ends with %+v, want %s: %s", got.doc, w.kind, w.detail)
	}
	if new := v.ping(); new.err == nil && !isHead && new.doc != got.doc || !v.isRefused(w.status) {
		t.Errorf("a new request gets %+v, one under way got %+v", new, got)
	}
	if u.release != nil && !u.only {
		u.release()
	}
	last.Write(content[999:])
	last.Close()
	if r := fixture.ReceiveWithin(t, time.Minute, untouched, "the other host's answer"); r.status != http.StatusCreated {
		t.Errorf("another host's upload ended with %+v", r)
	}
	labtest.Eventually(t, "no request is under way", func() bool { return d.r.AdmittedRequests() == 0 })
	for _, row := range d.Rows()[len(rows):] {
		if row.Key.Host == victim && row.Key.Name == "e" {
			t.Errorf("a row was written: %+v", row)
		}
	}
}
