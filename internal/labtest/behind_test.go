package labtest_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// The invariants of a receiver behind a real proxy.

// pingResponse is the receiver's answer to a ping.
type pingResponse struct {
	Status int    `json:"-"`
	Kind   string `json:"-"` // of the answer's content
	Host   string `json:"host_id"`
	Auth   struct {
		Method string `json:"method"`
	} `json:"auth"`
}

// sendPing pings with some values of the field Client-Cert.
func sendPing(t *testing.T, c *http.Client, url string, values ...string) (pingResponse, error) {
	t.Helper()
	var p pingResponse
	req, err := http.NewRequest(http.MethodPost, url, nil)
	fixture.Must(t, err)
	for _, v := range values {
		req.Header.Add("Client-Cert", v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return p, err
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, &p); err != nil {
			t.Errorf("got the answer %q to a ping: %v", b, err)
		}
	}
	p.Status, p.Kind = resp.StatusCode, resp.Header.Get("Content-Type")
	return p, nil
}

// clientCertFields returns a host's certificate as each proxy writes it.
func clientCertFields(t *testing.T, l *labtest.Lab, host string) []string {
	t.Helper()
	text := fixture.ReadFile(t, l.Path(host, "pki", host+".crt"))
	b, _ := pem.Decode([]byte(text))
	return []string{":" + base64.StdEncoding.EncodeToString(b.Bytes) + ":", url.PathEscape(text)}
}

// reloadReceiver makes the receiver reload its lists.
func reloadReceiver(t *testing.T, l *labtest.Lab) {
	t.Helper()
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "reloaded certificates and lists")
}

func TestBehindAProxyEpisodesArrive(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, _ *frontProxy) {
		r := h.Run("--ping").MustExit(t, 0)
		mustContain(t, "ping", r.Stdout, `lab-01 by "proxy"`)
		h.Episode("small")
		makeLargeEpisode(t, h, "bulky", 20<<20)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
		if row := l.RowOf(t, "lab-01", "bulky"); row.Size < 20<<20 {
			t.Errorf("the row of 20 MB says %d", row.Size)
		}
		l.Settled(t)
		first := l.RowOf(t, "lab-01", "small")
		fixture.Must(t, os.Rename(h.Shipped("small"), h.Episodes("small")))
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
		if again := l.RowOf(t, "lab-01", "small"); again != first {
			t.Errorf("the row changed from %+v to %+v", first, again)
		}
		l.Settled(t)
	})
}

func TestBehindAProxyAConflictIsHeld(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, _ *frontProxy) {
		h.Episode("run-1")
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		stored := fixture.ReadFile(t, l.Archive("lab-01", "run-1"))
		h.Episode("run-1", labtest.File{Name: "other", Body: "bytes"})
		h.Once().Must(t, 3, labtest.Tally{Scanned: 1, Conflicts: 1})
		if reason, _ := readHold(t, h, "run-1"); reason != "conflict" {
			t.Errorf("held for the reason %q, want conflict", reason)
		}
		if fixture.ReadFile(t, l.Archive("lab-01", "run-1")) != stored {
			t.Error("the conflict changed what is stored")
		}
		l.Check(t)
	})
}

func TestBehindAProxyNoClientNamesItsOwnCertificate(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		c := h.Client(t)
		others := clientCertFields(t, l, "lab-02")
		for _, values := range append([][]string{{others[0]}, {others[1]}, {""}}, others) {
			p, err := sendPing(t, c, f.url("/v1/ping"), values...)
			if err != nil || p.Host != "lab-01" || p.Auth.Method != "proxy" {
				t.Errorf("lab-01 that sends %.20q is %+v, %v", values, p, err)
			}
		}
		before := l.DataTree(t)
		for _, spelling := range []string{"Client-Cert", "client-cert", "Client_Cert"} {
			req, err := http.NewRequest(http.MethodPut, f.url("/v1/episodes/lab-02/run-1"), strings.NewReader("x"))
			fixture.Must(t, err)
			req.Header[spelling] = others[:1]
			req.Header.Set("Repr-Digest", "sha-256=:LXEWQrcmsEQBYnyp++6wy9chTD7GQPMTbAiWHF5IaSM=:")
			resp, err := c.Do(req)
			fixture.Must(t, err)
			resp.Body.Close()
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("PUT for lab-02 with its certificate in %s: %d, want 403", spelling, resp.StatusCode)
			}
		}
		if after := l.DataTree(t); after.String() != before.String() {
			t.Errorf("the data directory changed from\n%sto\n%s", before, after)
		}
	})
}

func TestBehindAProxyACertificateIsRequired(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, _ *labtest.Host, f *frontProxy) {
		for _, values := range [][]string{nil, clientCertFields(t, l, "lab-01")[:1], clientCertFields(t, l, "lab-01")[1:]} {
			if p, err := sendPing(t, l.Stranger(t), f.url("/v1/ping"), values...); err == nil && p.Status != http.StatusBadRequest {
				t.Errorf("a stranger that sends %.20q is answered %+v", values, p)
			}
		}
	})
}

// A proxy that admits everyone, by mistake or through a hole, gives no access: the receiver
// itself refuses.
func TestBehindAProxyTheReceiverVerifiesItself(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		for _, values := range [][]string{nil, clientCertFields(t, l, "lab-01")[:1], clientCertFields(t, l, "lab-01")[1:]} {
			p, err := sendPing(t, l.Stranger(t), f.url("/v1/ping"), values...)
			wantForbidden(t, fmt.Sprintf("a stranger that sends %.20q", values), p, err)
		}
		l.Receiver("pki", "init", "--dir", l.Path("foreign"), "--name", "127.0.0.1").MustExit(t, 0)
		makeCertificate(t, l.Path("foreign"), h.Path("pki"), func(*x509.Certificate) {})
		p, err := sendPing(t, h.Client(t), f.url("/v1/ping"))
		wantForbidden(t, "a certificate of a foreign CA", p, err)
		h.Episode("run-1")
		wantHostRefused(t, l, h)
		makeCertificate(t, l.Path("pki"), h.Path("pki"), func(*x509.Certificate) {})
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		l.Settled(t)
	}, "ssl_verify_client on", "ssl_verify_client optional_no_ca", "mode require_and_verify", "mode request",
		"trusted_ca_cert_file /etc/cis490-proxy/hosts-ca.crt", "")
}

// wantForbidden checks that a 403 comes from the receiver, not from the proxy.
func wantForbidden(t *testing.T, who string, p pingResponse, err error) {
	t.Helper()
	if err != nil || p.Status != http.StatusForbidden || p.Kind != "application/problem+json" {
		t.Errorf("%s: %+v, %v, want 403 by the receiver", who, p, err)
	}
}

func TestBehindAProxyARevokedHostIsRefused(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		c := h.Client(t)
		if p, err := sendPing(t, c, f.url("/v1/ping")); err != nil || p.Status != http.StatusOK {
			t.Fatalf("got %+v, %v, want Status %d", p, err, http.StatusOK)
		}
		l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
		reloadReceiver(t, l)
		p, err := sendPing(t, c, f.url("/v1/ping"))
		wantForbidden(t, "the revoked host on its connection", p, err)
		h.Episode("run-1")
		wantHostRefused(t, l, h)
		l.Receiver("pki", "issue", "lab-01", "--dir", l.Path("pki"), "--out", h.Path("pki"), "--force").MustExit(t, 0)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		l.Settled(t)
	})
}

func TestBehindAProxyItsFaultsJudgeNoEpisode(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		h.Episode("run-1")
		makeLargeEpisode(t, h, "bulky", 1<<20)
		transient := func(state string) {
			t.Helper()
			if r := h.Run("--ping"); r.Code != 4 {
				t.Errorf("%s: ping: exit code %d, want 4", state, r.Code)
			}
			h.Once().Must(t, 4, labtest.Tally{Scanned: 2, Transient: 2})
			wantNoHolds(t, h)
			l.Check(t)
		}
		l.Stop() // and its socket is gone
		if p, err := sendPing(t, h.Client(t), f.url("/v1/ping")); err != nil || p.Status != http.StatusBadGateway {
			t.Errorf("without a receiver: %+v, %v, want 502", p, err)
		}
		transient("the receiver has stopped")
		l.Start()
		l.Kill() // and its socket is left
		transient("the receiver was killed")
		l.Start()
		f.stop()
		transient("the proxy is down")
		f.start(t)
		h.Set("receiver.url", fmt.Sprintf("%q", "https://"+f.addr))
		h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
		l.Settled(t)
	})
}

// The proxy or the receiver ends while an archive is in flight: the lab's own proxy, in front
// of the real one, delays it.
func TestBehindAProxyACutUploadIsSentAgain(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		h.Set("receiver.url", fmt.Sprintf("%q", "https://"+l.Proxy.Addr()))
		makeLargeEpisode(t, h, "run-1", 2<<20)
		for what, fault := range map[string]func(){"the receiver": l.Kill, "the proxy": f.stop} {
			l.Proxy.Forward(f.addr)
			l.Proxy.Always(labtest.Fault{StallAfter: 1 << 20})
			p := h.Launch("--once", "--json")
			labtest.Eventually(t, "an upload is under way", func() bool { return len(l.Staged()) > 0 })
			fault()
			l.Proxy.Always(labtest.Fault{Refuse: true})
			// Nothing reads what is sent to a dead proxy. Caddy waits for the body of a request
			// even if its receiver is gone.
			l.Proxy.Sever()
			if code := p.Wait(t); code != 4 {
				t.Errorf("%s went: exit code %d, want 4", what, code)
			}
			wantNoHolds(t, h)
			l.Check(t)
			if !l.Process().Running() {
				l.Start()
			}
			if f.isEnded() {
				f.start(t)
			}
		}
		l.Proxy.Always(labtest.Fault{})
		l.Proxy.Forward(f.addr)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		l.Settled(t)
	})
}

// unixClient returns a client that uses the socket as a proxy does.
func unixClient(t *testing.T, path string) *http.Client {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestSocketWantsOneCertificateAndThePortNone(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("proxy.socket", `"proxy.sock"`))
	l.Host("lab-02")
	c := unixClient(t, l.Path("proxy.sock"))
	own, others := clientCertFields(t, l, "lab-01"), clientCertFields(t, l, "lab-02")
	for _, value := range own {
		if p, err := sendPing(t, c, "http://receiver/v1/ping", value); err != nil || p.Host != "lab-01" || p.Auth.Method != "proxy" {
			t.Errorf("the certificate as %.20q: %+v, %v", value, p, err)
		}
	}
	for what, values := range map[string][]string{
		"none":          nil,
		"an empty one":  {""},
		"an empty DER":  {"::"}, // Caddy's, without a certificate
		"one twice":     {own[0], own[0]},
		"two":           {others[0], own[0]},
		"two in a list": {others[0] + ", " + own[0]},
		"both forms":    {own[0], own[1]},
		"an empty more": {"", own[0]},
	} {
		p, err := sendPing(t, c, "http://receiver/v1/ping", values...)
		wantForbidden(t, "on the socket, "+what, p, err)
	}
	for _, values := range [][]string{others[:1], others[1:], others} {
		if p, err := sendPing(t, h.Client(t), l.URL("/v1/ping"), values...); err != nil || p.Host != "lab-01" || p.Auth.Method != "mtls" {
			t.Errorf("on the port with lab-02's certificate in %d fields: %+v, %v", len(values), p, err)
		}
		if p, err := sendPing(t, l.Stranger(t), l.URL("/v1/ping"), values...); err == nil {
			t.Errorf("on the port, a stranger with lab-02's certificate in %d fields: %+v", len(values), p)
		}
	}
}

func TestSocketIsForOwnerAndGroupAndIsReplaced(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t, labtest.Set("proxy.socket", `"front/proxy.sock"`), labtest.Unstarted())
	path := l.Path("front", "proxy.sock")
	fixture.Must(t, os.Mkdir(filepath.Dir(path), 0o755))
	value := clientCertFields(t, l, "lab-01")[0]
	for _, before := range []string{"none", "a killed receiver's", "a stopped receiver's"} {
		l.Start()
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|0o660 {
			t.Errorf("after %s socket: %v, %v, want one of mode 0660", before, info.Mode(), err)
		}
		if p, err := sendPing(t, unixClient(t, path), "http://receiver/v1/ping", value); err != nil || p.Status != http.StatusOK {
			t.Errorf("after %s socket: %+v, %v", before, p, err)
		}
		if before != "none" {
			l.Stop()
			continue
		}
		l.Kill()
		if !fixture.Exists(path) {
			t.Error("a kill takes the socket away: there is nothing to replace")
		}
	}

	// A file that is not a socket belongs to another program.
	fixture.WriteFile(t, path, "precious")
	p := l.StartUnready()
	if code := p.Wait(t); code != 1 || fixture.ReadFile(t, path) != "precious" {
		t.Errorf("exit code %d, want 1, and there is %q", code, fixture.ReadFile(t, path))
	}
	mustContain(t, "the receiver", p.Output(), "proxy.socket", path)
}

// TestBehindAProxyOneHostLeavesTheReceiverToOthers: a compromised host sends 150 inventories of
// a megabyte at the same time, which the proxy passes on.
func TestBehindAProxyOneHostLeavesTheReceiverToOthers(t *testing.T) {
	forEachProxy(t, func(t *testing.T, l *labtest.Lab, h *labtest.Host, f *frontProxy) {
		m := newAttacker(t, l)
		m.addr = f.addr
		ended := make(chan struct{}, 150)
		padding := strings.Repeat(" ", 1<<10)
		for range 150 {
			conn := m.send(t, "POST /v1/inventory HTTP/1.1\r\nHost: r\r\nContent-Length: 1000000\r\n\r\n"+`{"x":[`)
			go func() {
				for range 900 { // never all of it
					if _, err := io.WriteString(conn, padding+"1,"); err != nil {
						break
					}
				}
			}()
			go func() {
				conn.Read(make([]byte, 1)) // 429, or 502 of a proxy that could not pass the body on
				ended <- struct{}{}
			}()
		}
		for range 100 { // 16 are read and 16 wait
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				t.Fatal("the receiver does not refuse most of them")
			}
		}
		port := l.Host("lab-03")
		for i := range 3 {
			for _, host := range []*labtest.Host{h, port} {
				host.Episode(fmt.Sprint("run-", i))
				host.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
			}
		}
		if n := countDescriptors(t, l.Process().Pid()); n > 80+64 {
			t.Errorf("the receiver has %d descriptors", n)
		}
		wantSmallMemory(t, "the receiver", l.Process())
	})
}
