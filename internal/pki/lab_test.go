package pki_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
)

const domain = pki.DefaultTrustDomain

// A lab is a CA directory and a receiver that believes in it, with a clock that
// the test moves.
type lab struct {
	t      testing.TB
	dir    string
	config pki.Config
	gate   *pki.Gate
	url    string
	addr   string
	late   atomic.Int64 // nanoseconds that the receiver's clock is ahead
	served atomic.Int64 // requests that reached the handler
}

// newLab starts a receiver; change may alter its configuration before.
func newLab(t testing.TB, change func(*pki.Config)) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	fixture.Must(t, pki.InitCA(l.dir, pki.InitOptions{Names: []string{"localhost", "127.0.0.1"}}))
	l.config = pki.Config{
		CertFile: l.path("server.crt"), KeyFile: l.path("server.key"),
		ClientCAFile: l.path("hosts-ca.crt"), CRLFile: l.path("hosts.crl"), TrustDomain: domain,
		Now: func() time.Time { return time.Now().Add(time.Duration(l.late.Load())) },
	}
	if change != nil {
		change(&l.config)
	}
	gate, err := pki.Open(l.config)
	fixture.Must(t, err)
	l.gate = gate
	l.serve()
	return l
}

func (l *lab) serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(l.t, err)
	server := &http.Server{
		TLSConfig: l.gate.TLSConfig(),
		ErrorLog:  log.New(io.Discard, "", 0),
		Handler:   http.HandlerFunc(l.answer),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(listener, "", "") }()
	l.t.Cleanup(func() { _ = server.Close(); <-done })
	l.addr = listener.Addr().String()
	l.url = "https://" + l.addr + "/"
}

func (l *lab) answer(w http.ResponseWriter, r *http.Request) {
	l.served.Add(1)
	caller, err := l.gate.IdentifyCaller(r)
	switch {
	case errors.Is(err, pki.ErrToken):
		http.Error(w, err.Error(), http.StatusUnauthorized)
	case errors.Is(err, pki.ErrIdentity):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		io.WriteString(w, string(caller.Host)+" "+caller.Method)
	}
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// issue issues a certificate to a host, and returns a caller that uses it.
func (l *lab) issue(host episode.Name, o pki.IssueOptions) *caller {
	l.t.Helper()
	out := l.t.TempDir()
	if _, err := pki.IssueHost(l.dir, host, out, o); err != nil {
		l.t.Fatal(err)
	}
	client, err := pki.LoadClient(pki.ClientConfig{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, string(host)+".crt"),
		KeyFile: filepath.Join(out, string(host)+".key"),
	})
	fixture.Must(l.t, err)
	return l.newCaller(client.TLSConfig())
}

// A caller makes requests over one connection, and dials again only after that has ended. An
// http.Transport keeps no connection whose request took more than 50 ms to be noted as
// written, as on a busy machine.
type caller struct {
	l     *lab
	dial  pki.Dial
	conn  net.Conn // nil if there is none
	r     *bufio.Reader
	token string
}

func (l *lab) newCaller(config *tls.Config) *caller {
	return l.newCallerBy((&tls.Dialer{Config: config}).DialContext)
}

func (l *lab) newCallerBy(dial pki.Dial) *caller {
	c := &caller{l: l, dial: dial}
	l.t.Cleanup(c.hangUp)
	return c
}

func (c *caller) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

type reply struct {
	status int
	body   string
	reused bool // the connection served an earlier request
	err    error
}

func (c *caller) call() (r reply) {
	request, err := http.NewRequestWithContext(c.l.t.Context(), http.MethodGet, c.l.url, nil)
	fixture.Must(c.l.t, err)
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.reused = c.conn != nil; !r.reused {
		if c.conn, r.err = c.dial(request.Context(), "tcp", request.URL.Host); r.err != nil {
			c.conn = nil
			return r
		}
		c.r = bufio.NewReader(c.conn)
	}
	if r.err = request.Write(c.conn); r.err != nil {
		c.hangUp()
		return r
	}
	response, err := http.ReadResponse(c.r, request)
	if err != nil {
		c.hangUp()
		r.err = err
		return r
	}
	body, err := io.ReadAll(response.Body)
	if r.status, r.body, r.err = response.StatusCode, string(body), err; err != nil || response.Close {
		c.hangUp()
	}
	return r
}

// wantAccess fails the test unless the caller is admitted as host want.
func (c *caller) wantAccess(want string) reply {
	c.l.t.Helper()
	r := c.call()
	if r.err != nil || r.status != http.StatusOK || r.body != want {
		c.l.t.Fatalf("got %d %q, %v; want 200 %q", r.status, r.body, r.err, want)
	}
	return r
}

// wantRefusedOnSameConnection fails the test unless the next request goes over the
// same connection and is answered with status.
func (c *caller) wantRefusedOnSameConnection(status int) {
	c.l.t.Helper()
	r := c.call()
	if r.err != nil || r.status != status || !r.reused {
		c.l.t.Fatalf("got %d %q, %v, reused %v; want %d on the kept connection", r.status, r.body, r.err, r.reused, status)
	}
}

// An authority signs what a test needs, also what ours never would.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func loadAuthority(t testing.TB, dir, name string) authority {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	fixture.Must(t, err)
	return authority{t, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)}
}

// newAuthority makes a CA without name constraints.
func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plain CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	self := authority{t, template, key}
	self.cert = self.signCertificate(template, key).Leaf
	return self
}

// template returns what a host's certificate holds, with the URIs byte for byte.
func template(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}
	value, err := asn1.Marshal(names)
	fixture.Must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(uris) > 0 {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	return c
}

func (a authority) signCertificate(template *x509.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	a.t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			a.t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	fixture.Must(a.t, err)
	leaf, err := x509.ParseCertificate(der)
	fixture.Must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// clientTLS returns the configuration of a client that presents a certificate, or none.
func (l *lab) clientTLS(show *tls.Certificate) *tls.Config {
	l.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(readFile(l.t, l.path("ca.crt"))) {
		l.t.Fatal("no CA")
	}
	config := &tls.Config{RootCAs: pool}
	if show != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show, nil }
	}
	return config
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	fixture.Must(t, err)
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	fixture.Must(t, os.WriteFile(path, data, 0o600))
}

func encodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
