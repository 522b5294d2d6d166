package gate_test

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

	"cis490/internal/ca"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

func TestIssuedCertificateIsAcceptedAtOnce(t *testing.T) {
	l := pkitest.New(t, nil)
	l.Issue("lab-01", ca.IssueOptions{}).WantAccess("lab-01 mtls")
}

// wrongCertificates are refused whichever CA signs them.
func wrongCertificates(t *testing.T, ca, foreign pkitest.Authority) map[string]*tls.Certificate {
	good := "spiffe://" + pkitest.Domain + "/host/lab-01"
	signed := func(by pkitest.Authority, change func(*x509.Certificate), uris ...string) *tls.Certificate {
		c := pkitest.HostTemplate(t, uris...)
		if change != nil {
			change(c)
		}
		pair := by.Sign(c, nil)
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
		"two URIs":          signed(ca, nil, good, "spiffe://"+pkitest.Domain+"/host/lab-02"),
		"one URI twice":     signed(ca, nil, good, good),
		"DNS name only":     signed(ca, func(c *x509.Certificate) { c.DNSNames = []string{"lab-01"} }),
		"other domain":      signed(ca, nil, "spiffe://other.lab/host/lab-01"),
		"subdomain":         signed(ca, nil, "spiffe://x."+pkitest.Domain+"/host/lab-01"),
		"dots":              signed(ca, nil, "spiffe://"+pkitest.Domain+"/host/.."),
		"escaped":           signed(ca, nil, "spiffe://"+pkitest.Domain+"/host/lab%2d01"),
		"deeper":            signed(ca, nil, good+"/x"),
		"no host":           signed(ca, nil, "spiffe://"+pkitest.Domain+"/host/"),
		"other path":        signed(ca, nil, "spiffe://"+pkitest.Domain+"/user/lab-01"),
		"query":             signed(ca, nil, good+"?a"),
		"empty query":       signed(ca, nil, good+"?"),
		"fragment":          signed(ca, nil, good+"#a"),
		"empty fragment":    signed(ca, nil, good+"#"),
		"upper-case scheme": signed(ca, nil, "SPIFFE://"+pkitest.Domain+"/host/lab-01"),
		"other scheme":      signed(ca, nil, "https://"+pkitest.Domain+"/host/lab-01"),
		"port":              signed(ca, nil, "spiffe://"+pkitest.Domain+":1/host/lab-01"),
		"user":              signed(ca, nil, "spiffe://a@"+pkitest.Domain+"/host/lab-01"),
	}
}

// A CA without name constraints shows that the receiver checks the identity, and does not rely
// on the constraint of the hosts' CA.
func TestWrongCertificatesAreRefused(t *testing.T) {
	plain := pkitest.NewAuthority(t)
	file := filepath.Join(t.TempDir(), "plain.crt")
	pkitest.WriteFile(t, file, pkitest.EncodeCertificate(plain.Cert))
	l := pkitest.New(t, func(c *gate.Config) { c.ClientCAFile, c.CRLFile = file, "" })

	right := plain.Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil)
	l.NewCaller(l.ClientTLS(&right)).WantAccess("lab-01 mtls")
	served := l.Served.Load()
	for name, certificate := range wrongCertificates(t, plain, pkitest.NewAuthority(t)) {
		t.Run(name, func(t *testing.T) {
			if r := l.NewCaller(l.ClientTLS(certificate)).Call(); r.Err == nil {
				t.Errorf("handshake: got %d %q; want it refused", r.Status, r.Body)
			}
			state := &tls.ConnectionState{}
			if certificate != nil {
				state.PeerCertificates = []*x509.Certificate{certificate.Leaf}
			}
			got, err := l.Gate.IdentifyCaller(&http.Request{TLS: state})
			if !errors.Is(err, gate.ErrIdentity) {
				t.Errorf("request: got %+v, %v; want ErrIdentity", got, err)
			}
		})
	}
	if n := l.Served.Load() - served; n != 0 {
		t.Errorf("%d requests reached the handler; want 0", n)
	}
}

func TestRequestWithoutTLSIsRefused(t *testing.T) {
	l := pkitest.New(t, nil)
	if got, err := l.Gate.IdentifyCaller(&http.Request{}); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("got %+v, %v; want ErrIdentity", got, err)
	}
}

// Even the holder of the hosts' CA cannot name a host of another trust domain.
func TestHostsCAIsConstrainedToItsTrustDomain(t *testing.T) {
	l := pkitest.New(t, nil)
	ca := pkitest.LoadAuthority(t, l.Dir, "hosts-ca")
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	for uri, want := range map[string]bool{
		"spiffe://" + pkitest.Domain + "/host/lab-01": true,
		"spiffe://other.lab/host/lab-01":              false,
	} {
		leaf := ca.Sign(pkitest.HostTemplate(t, uri), nil).Leaf
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != want {
			t.Errorf("%s: got %v; want accepted %v", uri, err, want)
		}
	}
}

// The receiver's CA signs for servers only, and a host's certificate is not valid for servers.
func TestReceiverCADoesNotVouchForHosts(t *testing.T) {
	l := pkitest.New(t, nil)
	pair := pkitest.LoadAuthority(t, l.Dir, "ca").Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil)
	if r := l.NewCaller(l.ClientTLS(&pair)).Call(); r.Err == nil {
		t.Errorf("got %d %q; want it refused", r.Status, r.Body)
	}
}

func TestExpiryEndsKeptConnection(t *testing.T) {
	l := pkitest.New(t, nil)
	c := l.Issue("lab-01", ca.IssueOptions{Valid: time.Hour})
	c.WantAccess("lab-01 mtls")
	if r := c.WantAccess("lab-01 mtls"); !r.Reused {
		t.Fatal("the connection was not kept; the test would show nothing")
	}
	l.Late.Store(int64(time.Hour + time.Minute))
	c.WantRefusedOnSameConnection(http.StatusForbidden)
	l.Late.Store(int64(-2 * time.Hour)) // a clock that was set back: not valid yet
	c.WantRefusedOnSameConnection(http.StatusForbidden)
	l.Late.Store(0)
	c.WantAccess("lab-01 mtls")
}

func TestCAExpiryEndsKeptConnection(t *testing.T) {
	ca := pkitest.NewAuthority(t) // ends in an hour
	file := filepath.Join(t.TempDir(), "ca.crt")
	pkitest.WriteFile(t, file, pkitest.EncodeCertificate(ca.Cert))
	l := pkitest.New(t, func(c *gate.Config) { c.ClientCAFile, c.CRLFile = file, "" })
	long := pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01")
	long.NotAfter = time.Now().Add(24 * time.Hour)
	pair := ca.Sign(long, nil)
	c := l.NewCaller(l.ClientTLS(&pair))
	c.WantAccess("lab-01 mtls")
	l.Late.Store(int64(2 * time.Hour))
	c.WantRefusedOnSameConnection(http.StatusForbidden)
}

func TestRevocationEndsKeptConnection(t *testing.T) {
	l := pkitest.New(t, nil)
	c, other := l.Issue("lab-01", ca.IssueOptions{}), l.Issue("lab-02", ca.IssueOptions{})
	c.WantAccess("lab-01 mtls")
	if _, err := revocation.RevokeHost(l.Dir, "lab-01", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	c.WantRefusedOnSameConnection(http.StatusForbidden)
	c.HangUp()
	if r := c.Call(); r.Err == nil {
		t.Errorf("new connection: got %d %q; want it refused", r.Status, r.Body)
	}
	other.WantAccess("lab-02 mtls")
	l.Issue("lab-01", ca.IssueOptions{}).WantAccess("lab-01 mtls") // a new certificate of a revoked host
}

func TestSwappedCAEndsKeptConnection(t *testing.T) {
	l := pkitest.New(t, func(c *gate.Config) { c.CRLFile = "" })
	c := l.Issue("lab-01", ca.IssueOptions{})
	c.WantAccess("lab-01 mtls")
	pkitest.WriteFile(t, l.Path("hosts-ca.crt"), pkitest.EncodeCertificate(pkitest.NewAuthority(t).Cert))
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	c.WantRefusedOnSameConnection(http.StatusForbidden)
}

func TestNewCertificateOfReceiverIsShownAfterReload(t *testing.T) {
	l := pkitest.New(t, nil)
	c := l.Issue("lab-01", ca.IssueOptions{})
	c.WantAccess("lab-01 mtls")
	before := l.Gate.Trust().NotAfter()
	ends, err := ca.RenewServer(l.Dir, ca.RenewOptions{LeafValid: 2 * pki.DefaultLeafValid})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := l.Gate.Trust().NotAfter(); !got.Equal(ends) || !got.After(before) {
		t.Errorf("got %v; want %v, after %v", got, ends, before)
	}
	c.HangUp()
	c.WantAccess("lab-01 mtls") // the names were carried over
}

func TestReloadOfBrokenFilesKeepsLastGoodState(t *testing.T) {
	foreign := t.TempDir()
	if err := ca.Init(foreign, ca.InitOptions{Names: []string{"x"}, TrustDomain: "other.lab"}); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	pkitest.WriteFile(t, tokens, []byte(tokenLine("lab-01", "secret")))
	l := pkitest.New(t, func(c *gate.Config) { c.TokensFile = tokens })
	c := l.Issue("lab-01", ca.IssueOptions{})
	c.Token = "secret"
	l.Issue("lab-02", ca.IssueOptions{})
	if _, err := revocation.RevokeHost(l.Dir, "lab-02", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	hostsCA := pkitest.ReadFile(t, l.Path("hosts-ca.crt"))
	for name, broken := range map[string]struct {
		path string
		data []byte
	}{
		"empty CA":        {l.Config.ClientCAFile, nil},
		"no CA":           {l.Config.ClientCAFile, pkitest.ReadFile(t, l.Path("server.crt"))},
		"key for CA":      {l.Config.ClientCAFile, append(hostsCA[:len(hostsCA):len(hostsCA)], pkitest.ReadFile(t, l.Path("hosts-ca.key"))...)},
		"half a CA":       {l.Config.ClientCAFile, append(hostsCA[:len(hostsCA):len(hostsCA)], hostsCA[:200]...)},
		"other domain":    {l.Config.ClientCAFile, pkitest.ReadFile(t, filepath.Join(foreign, "hosts-ca.crt"))},
		"empty CRL":       {l.Config.CRLFile, nil},
		"foreign CRL":     {l.Config.CRLFile, pkitest.ReadFile(t, filepath.Join(foreign, "hosts.crl"))},
		"cut CRL":         {l.Config.CRLFile, pkitest.ReadFile(t, l.Config.CRLFile)[:150]},
		"key of another":  {l.Config.KeyFile, pkitest.ReadFile(t, filepath.Join(foreign, "server.key"))},
		"cut certificate": {l.Config.CertFile, pkitest.ReadFile(t, l.Config.CertFile)[:100]},
		"bad tokens":      {tokens, []byte("lab-01 secret\n")},
		"too large":       {tokens, []byte(strings.Repeat("# much\n", 1<<20))},
	} {
		t.Run(name, func(t *testing.T) {
			good := pkitest.ReadFile(t, broken.path)
			pkitest.WriteFile(t, broken.path, broken.data)
			defer pkitest.WriteFile(t, broken.path, good)
			before := l.Gate.Trust()
			err := l.Gate.Reload()
			if err == nil || !strings.Contains(err.Error(), broken.path) {
				t.Errorf("got %v; want an error that names %s", err, broken.path)
			}
			if l.Gate.Trust() != before {
				t.Error("the broken state was taken")
			}
			c.HangUp()
			c.WantAccess("lab-01 mtls+token")
		})
	}
}

func TestOpenNeedsAllFiles(t *testing.T) {
	l := pkitest.New(t, nil)
	missing := filepath.Join(t.TempDir(), "missing")
	for name, change := range map[string]func(*gate.Config){
		"certificate":  func(c *gate.Config) { c.CertFile = missing },
		"key":          func(c *gate.Config) { c.KeyFile = missing },
		"CA":           func(c *gate.Config) { c.ClientCAFile = missing },
		"CRL":          func(c *gate.Config) { c.CRLFile = missing },
		"tokens":       func(c *gate.Config) { c.TokensFile = missing },
		"trust domain": func(c *gate.Config) { c.TrustDomain = "" },
		"other domain": func(c *gate.Config) { c.TrustDomain = "other.lab" },
	} {
		c := l.Config
		change(&c)
		if _, err := gate.Open(c); err == nil {
			t.Errorf("%s: opened without it", name)
		}
	}
}

func TestSessionsAreNotResumed(t *testing.T) {
	l := pkitest.New(t, nil)
	out := t.TempDir()
	if _, err := ca.IssueHost(l.Dir, "lab-01", out, ca.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(out, "lab-01.crt"), filepath.Join(out, "lab-01.key"))
	if err != nil {
		t.Fatal(err)
	}
	config := l.ClientTLS(&pair)
	config.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 3 {
		conn, err := tls.Dial("tcp", l.Addr, config)
		if err != nil {
			t.Fatal(err)
		}
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
	l := pkitest.New(t, nil)
	pair := pkitest.LoadAuthority(t, l.Dir, "hosts-ca").Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil)
	config := l.ClientTLS(&pair)
	l.NewCaller(config).WantAccess("lab-01 mtls")
	old := l.ClientTLS(&pair)
	old.MaxVersion = tls.VersionTLS12
	if r := l.NewCaller(old).Call(); r.Err == nil {
		t.Errorf("got %d over TLS 1.2; want it refused", r.Status)
	}
}

// Signatures are checked once per leaf: a request costs far less than a check.
func BenchmarkCaller(b *testing.B) {
	l := pkitest.New(b, nil)
	leaf := pkitest.LoadAuthority(b, l.Dir, "hosts-ca").Sign(pkitest.HostTemplate(b, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil).Leaf
	r := &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	for b.Loop() {
		if _, err := l.Gate.IdentifyCaller(r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSignaturesAreCheckedOnceForALeaf(t *testing.T) {
	l := pkitest.New(t, nil)
	leaf := pkitest.LoadAuthority(t, l.Dir, "hosts-ca").Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil).Leaf
	r := &http.Request{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	cost := testing.AllocsPerRun(20, func() {
		if _, err := l.Gate.IdentifyCaller(r); err != nil {
			t.Fatal(err)
		}
	})
	whole := testing.AllocsPerRun(20, func() {
		if err := l.Gate.Reload(); err != nil { // a new Trust has checked nothing yet
			t.Fatal(err)
		}
		if _, err := l.Gate.IdentifyCaller(r); err != nil {
			t.Fatal(err)
		}
	}) - testing.AllocsPerRun(20, func() { _ = l.Gate.Reload() })
	if cost > whole/2 {
		t.Errorf("got %v allocations for a known leaf; want far less than the %v of a new one", cost, whole)
	}
}

// Everything on the port demands a certificate, except a hello that offers joining and nothing
// else while an invitation is open.
func TestOnlyJoiningNeedsNoCertificate(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	for _, open := range []bool{false, true} {
		j.Open.Store(open)
		for _, protocols := range [][]string{
			nil,
			{"http/1.1"},
			{pkitest.JoinProtocol, "http/1.1"},
			{"http/1.1", pkitest.JoinProtocol},
			{pkitest.JoinProtocol, pkitest.JoinProtocol},
			{pkitest.JoinProtocol, "x"},
			{"cis490-join/2"},
			{"CIS490-JOIN/1"},
			{pkitest.JoinProtocol + " "},
			{"h2"},
		} {
			if got, err := j.Handshake(protocols...); err == nil || got == pkitest.JoinProtocol {
				t.Errorf("open %v, %q: got %q, %v; want a refusal", open, protocols, got, err)
			}
		}
		conn, err := j.Dial(time.Now())
		if (err == nil) != open {
			t.Errorf("open %v: joining: %v", open, err)
		}
		if err == nil {
			conn.Close()
		} else if !strings.Contains(err.Error(), "has no open invitation") {
			t.Errorf("got %v, want it to say that it has no open invitation", err)
		}
	}
	if n := j.Served.Load(); n > 0 {
		t.Errorf("%d requests reached the handler", n)
	}
	j.Join("lab-01", false, time.Now()).WantAccess("lab-01 mtls") // also while the door is open
}
