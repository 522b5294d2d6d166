package labtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// makeCertificate makes a host's certificate and key in dir, signed by the hosts'
// CA in pki, and lets spoil change what is signed.
func makeCertificate(t *testing.T, pki, dir string, spoil func(*x509.Certificate)) {
	t.Helper()
	ca, err := x509.ParseCertificate(readPEM(t, filepath.Join(pki, "hosts-ca.crt")))
	fixture.Must(t, err)
	caKey, err := x509.ParsePKCS8PrivateKey(readPEM(t, filepath.Join(pki, "hosts-ca.key")))
	fixture.Must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "lab-01"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "spiffe", Host: "cis490.lab", Path: "/host/lab-01"}},
	}
	spoil(c)
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	fixture.Must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	fixture.Must(t, err)
	fixture.WriteFile(t, filepath.Join(dir, "lab-01.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	path := filepath.Join(dir, "lab-01.key")
	fixture.WriteFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	fixture.Must(t, os.Chmod(path, 0o600))
}

func readPEM(t *testing.T, path string) []byte {
	t.Helper()
	b, _ := pem.Decode([]byte(fixture.ReadFile(t, path)))
	if b == nil {
		t.Fatalf("%s holds no PEM", path)
	}
	return b.Bytes
}

func TestWrongCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	cases := map[string]func(*x509.Certificate){
		"expired":        func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not yet valid":  func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) },
		"another host":   func(c *x509.Certificate) { c.URIs[0].Path = "/host/lab-02" },
		"another domain": func(c *x509.Certificate) { c.URIs[0].Host = "evil.lab" },
		"no host":        func(c *x509.Certificate) { c.URIs = nil },
		"two hosts": func(c *x509.Certificate) {
			c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "cis490.lab", Path: "/host/lab-02"})
		},
		"a server's purpose": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			makeCertificate(t, l.Path("pki"), h.Path("pki"), spoil)
			wantHostRefused(t, l, h)
		})
	}
	t.Run("foreign", func(t *testing.T) {
		l.Receiver("pki", "init", "--dir", l.Path("foreign"), "--name", "127.0.0.1").MustExit(t, 0)
		makeCertificate(t, l.Path("foreign"), h.Path("pki"), func(*x509.Certificate) {})
		wantHostRefused(t, l, h)
	})
	t.Run("missing", func(t *testing.T) {
		if resp, err := l.Stranger(t).Post(l.URL("/v1/ping"), "", nil); err == nil {
			t.Errorf("a stranger's ping was answered with %d", resp.StatusCode)
		}
	})
	t.Run("right", func(t *testing.T) {
		makeCertificate(t, l.Path("pki"), h.Path("pki"), func(*x509.Certificate) {})
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	})
	l.Settled(t)
}

// wantHostRefused checks that the host is refused and nothing is stored.
func wantHostRefused(t *testing.T, l *labtest.Lab, h *labtest.Host) {
	t.Helper()
	if r := h.Run("--ping"); r.Code != 4 || r.Stderr == "" {
		t.Errorf("ping: exit code %d, want 4: %s", r.Code, r.Stderr)
	}
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	wantNoHolds(t, h)
	l.Check(t)
}

func TestReceiverOfAnotherCAIsNotTrusted(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	l.Receiver("pki", "init", "--dir", l.Path("foreign"), "--name", "127.0.0.1").MustExit(t, 0)
	former := fixture.ReadFile(t, h.Path("pki", "ca.crt"))
	fixture.WriteFile(t, h.Path("pki", "ca.crt"), fixture.ReadFile(t, l.Path("foreign", "ca.crt")))
	p := h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	mustContain(t, "shipper", p.Stderr, "receiver.ca_file")
	fixture.WriteFile(t, h.Path("pki", "ca.crt"), former)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestRevokedHostIsRefusedOnItsKeptAliveConnection(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	c := h.Client(t)
	ping := func() (status int, reused bool) {
		req, err := http.NewRequest(http.MethodPost, l.URL("/v1/ping"), nil)
		fixture.Must(t, err)
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
		resp, err := c.Do(req.WithContext(httptrace.WithClientTrace(t.Context(), trace)))
		fixture.Must(t, err)
		defer resp.Body.Close()
		resp.Body.Read(make([]byte, 4096))
		return resp.StatusCode, reused
	}
	if status, _ := ping(); status != http.StatusOK {
		t.Fatalf("ping: %d", status)
	}
	if status, reused := ping(); status != http.StatusOK || !reused {
		t.Fatalf("ping: %d, on the same connection: %t", status, reused)
	}
	l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "reloaded certificates and lists")
	if status, reused := ping(); status != http.StatusForbidden || !reused {
		t.Errorf("ping after the revocation: %d, on the same connection: %t; want 403 on the same", status, reused)
	}
	h.Episode("run-1")
	h.Once().Must(t, 4, labtest.Tally{Scanned: 1, Transient: 1})
	wantNoHolds(t, h)
	l.Check(t)

	// A certificate that is issued afterwards is accepted at once.
	l.Receiver("pki", "issue", "lab-01", "--dir", l.Path("pki"), "--out", h.Path("pki"), "--force").MustExit(t, 0)
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestBadReloadKeepsTheLastGoodState(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	good := fixture.ReadFile(t, l.Path("pki", "hosts.crl"))
	fixture.WriteFile(t, l.Path("pki", "hosts.crl"), "no list at all")
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "certificates and lists not reloaded")
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	fixture.WriteFile(t, l.Path("pki", "hosts.crl"), good)
	l.Settled(t)
}

func TestShipperReloadsItsCertificate(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	d := h.Daemon()
	h.Episode("run-1")
	h.WaitShipped("run-1")
	l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
	l.Receiver("pki", "issue", "lab-01", "--dir", l.Path("pki"), "--out", h.Path("pki"), "--force").MustExit(t, 0)
	l.Process().Signal(t, syscall.SIGHUP)
	l.Process().WaitLine(t, "reloaded certificates and lists")
	d.Signal(t, syscall.SIGHUP)
	d.WaitLine(t, "reloaded certificates and lists")
	h.Episode("run-2")
	h.WaitShipped("run-2")
	h.WaitEmpty()
	d.Stop(t)
	l.Settled(t)
}
