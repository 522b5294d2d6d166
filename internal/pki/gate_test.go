package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

func TestIssuedCertificateIsAcceptedAtOnce(t *testing.T) {
	l := newLab(t, nil)
	l.issue("lab-01", pki.IssueOptions{}).wantAccess("lab-01 mtls")
}

// wrongCertificates are refused whichever CA signs them.
func wrongCertificates(t *testing.T, ca, foreign authority) map[string]*tls.Certificate {
	good := "spiffe://" + domain + "/host/lab-01"
	signed := func(by authority, change func(*x509.Certificate), uris ...string) *tls.Certificate {
		c := template(t, uris...)
		if change != nil {
			change(c)
		}
		pair := by.signCertificate(c, nil)
		return &pair
	}
	return map[string]*tls.Certificate{
		"none":    nil,
		"foreign": signed(foreign, nil, good),
		"expired": signed(ca, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Second)
		}, good),
		"not yet valid": signed(ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, good),
		"for servers": signed(ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, good),
		"no URI":            signed(ca, nil),
		"two URIs":          signed(ca, nil, good, "spiffe://"+domain+"/host/lab-02"),
		"one URI twice":     signed(ca, nil, good, good),
		"DNS name only":     signed(ca, func(c *x509.Certificate) { c.DNSNames = []string{"lab-01"} }),
		"other domain":      signed(ca, nil, "spiffe://other.lab/host/lab-01"),
		"subdomain":         signed(ca, nil, "spiffe://x."+domain+"/host/lab-01"),
		"dots":              signed(ca, nil, "spiffe://"+domain+"/host/.."),
		"escaped":           signed(ca, nil, "spiffe://"+domain+"/host/lab%2d01"),
		"deeper":            signed(ca, nil, good+"/x"),
		"no host":           signed(ca, nil, "spiffe://"+domain+"/host/"),
		"other path":        signed(ca, nil, "spiffe://"+domain+"/user/lab-01"),
		"query":             signed(ca, nil, good+"?a"),
		"empty query":       signed(ca, nil, good+"?"),
		"fragment":          signed(ca, nil, good+"#a"),
		"empty fragment":    signed(ca, nil, good+"#"),
		"upper-case scheme": signed(ca, nil, "SPIFFE://"+domain+"/host/lab-01"),
		"other scheme":      signed(ca, nil, "https://"+domain+"/host/lab-01"),
		"port":              signed(ca, nil, "spiffe://"+domain+":1/host/lab-01"),
		"user":              signed(ca, nil, "spiffe://a@"+domain+"/host/lab-01"),
	}
}

// A CA without name constraints shows that the identity is checked by us and
// not only by the constraint of our own CA.
func TestWrongCertificatesAreRefused(t *testing.T) {
	plain := newAuthority(t)
	file := filepath.Join(t.TempDir(), "plain.crt")
	writeFile(t, file, encodeCertificate(plain.cert))
	l := newLab(t, func(c *pki.Config) { c.ClientCAFile, c.CRLFile = file, "" })

	right := plain.signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil)
	l.newCaller(l.clientTLS(&right)).wantAccess("lab-01 mtls")
	served := l.served.Load()
	for name, certificate := range wrongCertificates(t, plain, newAuthority(t)) {
		t.Run(name, func(t *testing.T) {
			if r := l.newCaller(l.clientTLS(certificate)).call(); r.err == nil {
				t.Errorf("handshake: got %d %q; want it refused", r.status, r.body)
			}
			state := &tls.ConnectionState{}
			if certificate != nil {
				state.PeerCertificates = []*x509.Certificate{certificate.Leaf}
			}
			got, err := l.gate.IdentifyCaller(&http.Request{TLS: state})
			if !errors.Is(err, pki.ErrIdentity) {
				t.Errorf("request: got %+v, %v; want ErrIdentity", got, err)
			}
		})
	}
	if n := l.served.Load() - served; n != 0 {
		t.Errorf("%d requests reached the handler; want 0", n)
	}
}

func TestRequestWithoutTLSIsRefused(t *testing.T) {
	l := newLab(t, nil)
	if got, err := l.gate.IdentifyCaller(&http.Request{}); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("got %+v, %v; want ErrIdentity", got, err)
	}
}

// Even who holds the hosts' CA cannot name a host of another trust domain.
func TestHostsCAIsConstrainedToItsTrustDomain(t *testing.T) {
	l := newLab(t, nil)
	ca := loadAuthority(t, l.dir, "hosts-ca")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	for uri, want := range map[string]bool{
		"spiffe://" + domain + "/host/lab-01": true,
		"spiffe://other.lab/host/lab-01":      false,
	} {
		leaf := ca.signCertificate(template(t, uri), nil).Leaf
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != want {
			t.Errorf("%s: got %v; want accepted %v", uri, err, want)
		}
	}
}

// The receiver's CA signs for servers only, and a host's certificate is no
// server's.
func TestReceiverCADoesNotVouchForHosts(t *testing.T) {
	l := newLab(t, nil)
	pair := loadAuthority(t, l.dir, "ca").signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil)
	if r := l.newCaller(l.clientTLS(&pair)).call(); r.err == nil {
		t.Errorf("got %d %q; want it refused", r.status, r.body)
	}
}

func TestExpiryEndsKeptConnection(t *testing.T) {
	l := newLab(t, nil)
	c := l.issue("lab-01", pki.IssueOptions{Valid: time.Hour})
	c.wantAccess("lab-01 mtls")
	if r := c.wantAccess("lab-01 mtls"); !r.reused {
		t.Fatal("the connection was not kept; the test would show nothing")
	}
	l.late.Store(int64(time.Hour + time.Minute))
	c.wantRefusedOnSameConnection(http.StatusForbidden)
	l.late.Store(int64(-2 * time.Hour)) // a clock that fell back: not valid yet
	c.wantRefusedOnSameConnection(http.StatusForbidden)
	l.late.Store(0)
	c.wantAccess("lab-01 mtls")
}

func TestCAExpiryEndsKeptConnection(t *testing.T) {
	ca := newAuthority(t) // ends in an hour
	file := filepath.Join(t.TempDir(), "ca.crt")
	writeFile(t, file, encodeCertificate(ca.cert))
	l := newLab(t, func(c *pki.Config) { c.ClientCAFile, c.CRLFile = file, "" })
	long := template(t, "spiffe://"+domain+"/host/lab-01")
	long.NotAfter = time.Now().Add(24 * time.Hour)
	pair := ca.signCertificate(long, nil)
	c := l.newCaller(l.clientTLS(&pair))
	c.wantAccess("lab-01 mtls")
	l.late.Store(int64(2 * time.Hour))
	c.wantRefusedOnSameConnection(http.StatusForbidden)
}

func TestRevocationEndsKeptConnection(t *testing.T) {
	l := newLab(t, nil)
	c, other := l.issue("lab-01", pki.IssueOptions{}), l.issue("lab-02", pki.IssueOptions{})
	c.wantAccess("lab-01 mtls")
	if _, err := pki.RevokeHost(l.dir, "lab-01", time.Now()); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.gate.Reload())
	c.wantRefusedOnSameConnection(http.StatusForbidden)
	c.hangUp()
	if r := c.call(); r.err == nil {
		t.Errorf("new connection: got %d %q; want it refused", r.status, r.body)
	}
	other.wantAccess("lab-02 mtls")
	l.issue("lab-01", pki.IssueOptions{}).wantAccess("lab-01 mtls") // a new certificate of a revoked host
}

func TestSwappedCAEndsKeptConnection(t *testing.T) {
	l := newLab(t, func(c *pki.Config) { c.CRLFile = "" })
	c := l.issue("lab-01", pki.IssueOptions{})
	c.wantAccess("lab-01 mtls")
	writeFile(t, l.path("hosts-ca.crt"), encodeCertificate(newAuthority(t).cert))
	fixture.Must(t, l.gate.Reload())
	c.wantRefusedOnSameConnection(http.StatusForbidden)
}

func TestNewCertificateOfReceiverIsShownAfterReload(t *testing.T) {
	l := newLab(t, nil)
	c := l.issue("lab-01", pki.IssueOptions{})
	c.wantAccess("lab-01 mtls")
	before := l.gate.Trust().NotAfter()
	ends, err := pki.RenewServer(l.dir, pki.RenewOptions{LeafValid: 2 * pki.DefaultLeafValid})
	fixture.Must(t, err)
	fixture.Must(t, l.gate.Reload())
	if got := l.gate.Trust().NotAfter(); !got.Equal(ends) || !got.After(before) {
		t.Errorf("got %v; want %v, after %v", got, ends, before)
	}
	c.hangUp()
	c.wantAccess("lab-01 mtls") // the names were carried over
}

func TestReloadOfBrokenFilesKeepsLastGoodState(t *testing.T) {
	foreign := t.TempDir()
	fixture.Must(t, pki.InitCA(foreign, pki.InitOptions{Names: []string{"x"}, TrustDomain: "other.lab"}))
	tokens := filepath.Join(t.TempDir(), "tokens")
	writeFile(t, tokens, []byte(tokenLine("lab-01", "secret")))
	l := newLab(t, func(c *pki.Config) { c.TokensFile = tokens })
	c := l.issue("lab-01", pki.IssueOptions{})
	c.token = "secret"
	l.issue("lab-02", pki.IssueOptions{})
	if _, err := pki.RevokeHost(l.dir, "lab-02", time.Now()); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.gate.Reload())
	hostsCA := readFile(t, l.path("hosts-ca.crt"))
	for name, broken := range map[string]struct {
		path string
		data []byte
	}{
		"empty CA":        {l.config.ClientCAFile, nil},
		"no CA":           {l.config.ClientCAFile, readFile(t, l.path("server.crt"))},
		"key for CA":      {l.config.ClientCAFile, append(hostsCA[:len(hostsCA):len(hostsCA)], readFile(t, l.path("hosts-ca.key"))...)},
		"half a CA":       {l.config.ClientCAFile, append(hostsCA[:len(hostsCA):len(hostsCA)], hostsCA[:200]...)},
		"other domain":    {l.config.ClientCAFile, readFile(t, filepath.Join(foreign, "hosts-ca.crt"))},
		"empty CRL":       {l.config.CRLFile, nil},
		"foreign CRL":     {l.config.CRLFile, readFile(t, filepath.Join(foreign, "hosts.crl"))},
		"cut CRL":         {l.config.CRLFile, readFile(t, l.config.CRLFile)[:150]},
		"key of another":  {l.config.KeyFile, readFile(t, filepath.Join(foreign, "server.key"))},
		"cut certificate": {l.config.CertFile, readFile(t, l.config.CertFile)[:100]},
		"bad tokens":      {tokens, []byte("lab-01 secret\n")},
		"too large":       {tokens, []byte(strings.Repeat("# much\n", 1<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			good := readFile(t, broken.path)
			writeFile(t, broken.path, broken.data)
			defer writeFile(t, broken.path, good)
			before := l.gate.Trust()
			err := l.gate.Reload()
			if err == nil || !strings.Contains(err.Error(), broken.path) {
				t.Errorf("got %v; want an error that names %s", err, broken.path)
			}
			if l.gate.Trust() != before {
				t.Error("the broken state was taken")
			}
			c.hangUp()
			c.wantAccess("lab-01 mtls+token")
		})
	}
}

func TestOpenNeedsAllFiles(t *testing.T) {
	l := newLab(t, nil)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, change := range map[string]func(*pki.Config){
		"certificate":  func(c *pki.Config) { c.CertFile = missing },
		"key":          func(c *pki.Config) { c.KeyFile = missing },
		"CA":           func(c *pki.Config) { c.ClientCAFile = missing },
		"CRL":          func(c *pki.Config) { c.CRLFile = missing },
		"tokens":       func(c *pki.Config) { c.TokensFile = missing },
		"trust domain": func(c *pki.Config) { c.TrustDomain = "" },
		"other domain": func(c *pki.Config) { c.TrustDomain = "other.lab" },
	} {
		c := l.config
		change(&c)
		if _, err := pki.Open(c); err == nil {
			t.Errorf("%s: opened without it", name)
		}
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	l := newLab(t, nil)
	out := t.TempDir()
	if _, err := pki.IssueHost(l.dir, "lab-01", out, pki.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(out, "lab-01.crt"), filepath.Join(out, "lab-01.key"))
	fixture.Must(t, err)
	config := l.clientTLS(&pair)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 3 {
		conn, err := tls.Dial("tcp", l.addr, config)
		fixture.Must(t, err)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		answer, err := io.ReadAll(conn) // a ticket would come along here
		state := conn.ConnectionState()
		conn.Close()
		if err != nil || !strings.Contains(string(answer), "lab-01 mtls") {
			t.Fatalf("got %q, %v, want %q in it", answer, err, "lab-01 mtls")
		}
		if state.DidResume || state.Version != tls.VersionTLS13 {
			t.Fatalf("resumed %v, version %x; want a full handshake of TLS 1.3", state.DidResume, state.Version)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	l := newLab(t, nil)
	pair := loadAuthority(t, l.dir, "hosts-ca").signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil)
	config := l.clientTLS(&pair)
	l.newCaller(config).wantAccess("lab-01 mtls")
	old := l.clientTLS(&pair)
	old.MaxVersion = tls.VersionTLS12
	if r := l.newCaller(old).call(); r.err == nil {
		t.Errorf("got %d over TLS 1.2; want it refused", r.status)
	}
}

// Signatures are checked once for a leaf: a request costs far less than one.
func BenchmarkCaller(b *testing.B) {
	l := newLab(b, nil)
	leaf := loadAuthority(b, l.dir, "hosts-ca").signCertificate(template(b, "spiffe://"+domain+"/host/lab-01"), nil).Leaf
	r := &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	for b.Loop() {
		if _, err := l.gate.IdentifyCaller(r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSignaturesAreCheckedOnceForALeaf(t *testing.T) {
	l := newLab(t, nil)
	leaf := loadAuthority(t, l.dir, "hosts-ca").signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil).Leaf
	r := &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	cost := testing.AllocsPerRun(20, func() {
		if _, err := l.gate.IdentifyCaller(r); err != nil {
			t.Fatal(err)
		}
	})
	whole := testing.AllocsPerRun(20, func() {
		if err := l.gate.Reload(); err != nil { // a new Trust has checked nothing yet
			t.Fatal(err)
		}
		if _, err := l.gate.IdentifyCaller(r); err != nil {
			t.Fatal(err)
		}
	}) - testing.AllocsPerRun(20, func() { _ = l.gate.Reload() })
	if cost > whole/2 {
		t.Errorf("got %v allocations for a known leaf; want far less than the %v of a new one", cost, whole)
	}
}
