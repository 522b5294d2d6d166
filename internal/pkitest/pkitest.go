// Package pkitest provides a CA directory, a receiver that trusts it, and hosts, for the tests of
// the packages that handle certificates.
//
// Invariant: certificates that the programs would never issue are signed here alone, by an
// [Authority].
package pkitest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pki"
)

// Domain is the trust domain of a lab.
const Domain = pki.DefaultTrustDomain

// Lab is a CA directory and a receiver that trusts it, with a clock that the test moves.
type Lab struct {
	T      testing.TB
	Dir    string
	Config gate.Config
	Gate   *gate.Gate
	url    string
	Addr   string
	Late   atomic.Int64 // nanoseconds that the receiver's clock is ahead
	Served atomic.Int64 // requests that reached the handler
}

// New starts a receiver; change may alter its configuration before.
func New(t testing.TB, change func(*gate.Config)) *Lab {
	t.Helper()
	l := &Lab{T: t, Dir: t.TempDir()}
	if err := ca.Init(l.Dir, ca.InitOptions{Names: []string{"localhost", "127.0.0.1"}}); err != nil {
		t.Fatal(err)
	}
	l.Config = gate.Config{
		CertFile: l.Path("server.crt"), KeyFile: l.Path("server.key"),
		ClientCAFile: l.Path("hosts-ca.crt"), CRLFile: l.Path("hosts.crl"), TrustDomain: Domain,
		Now: func() time.Time { return time.Now().Add(time.Duration(l.Late.Load())) },
	}
	if change != nil {
		change(&l.Config)
	}
	gate, err := gate.Open(l.Config)
	if err != nil {
		t.Fatal(err)
	}
	l.Gate = gate
	l.serve()
	return l
}

func (l *Lab) serve() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.T.Fatal(err)
	}
	server := &http.Server{
		TLSConfig: l.Gate.TLSConfig(),
		ErrorLog:  log.New(io.Discard, "", 0),
		Handler:   http.HandlerFunc(l.answer),
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ServeTLS(listener, "", "") }()
	l.T.Cleanup(func() { _ = server.Close(); <-done })
	l.Addr = listener.Addr().String()
	l.url = "https://" + l.Addr + "/"
}

func (l *Lab) answer(w http.ResponseWriter, r *http.Request) {
	l.Served.Add(1)
	caller, err := l.Gate.IdentifyCaller(r)
	switch {
	case errors.Is(err, gate.ErrToken):
		http.Error(w, err.Error(), http.StatusUnauthorized)
	case errors.Is(err, gate.ErrIdentity):
		http.Error(w, err.Error(), http.StatusForbidden)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		io.WriteString(w, string(caller.Host)+" "+caller.Method)
	}
}

// Path returns the path of a file of the CA directory.
func (l *Lab) Path(name string) string { return filepath.Join(l.Dir, name) }

// Issue issues a certificate to a host, and returns a caller that uses it.
func (l *Lab) Issue(host episode.Name, o ca.IssueOptions) *Caller {
	l.T.Helper()
	out := l.T.TempDir()
	if _, err := ca.IssueHost(l.Dir, host, out, o); err != nil {
		l.T.Fatal(err)
	}
	client, err := credentials.Load(credentials.Config{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, string(host)+".crt"),
		KeyFile: filepath.Join(out, string(host)+".key"),
	})
	if err != nil {
		l.T.Fatal(err)
	}
	return l.NewCaller(client.TLSConfig())
}

// ClientTLS returns the configuration of a client that presents a certificate, or none.
func (l *Lab) ClientTLS(show *tls.Certificate) *tls.Config {
	l.T.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ReadFile(l.T, l.Path("ca.crt"))) {
		l.T.Fatal("no CA")
	}
	config := &tls.Config{RootCAs: pool}
	if show != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show, nil }
	}
	return config
}

// TakeOffline removes the keys of the roots, as an operator does.
func (l *Lab) TakeOffline() {
	l.T.Helper()
	fixture.Must(l.T, os.Remove(l.Path("ca.key")))
	fixture.Must(l.T, os.Remove(l.Path("hosts-ca.key")))
}

// CreateCAs creates a CA directory, without a receiver.
func CreateCAs(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a", "pki")
	if err := ca.Init(dir, ca.InitOptions{Names: []string{"receiver.lab", "10.0.0.1", "fd00::1"}}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// IssueCertificate issues a certificate into a directory of no interest.
func IssueCertificate(t testing.TB, dir, host string, o ca.IssueOptions) pki.Issued {
	t.Helper()
	got, err := ca.IssueHost(dir, MustName(t, host), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// MustName returns the name of a host.
func MustName(t testing.TB, s string) episode.Name {
	t.Helper()
	name, err := episode.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// ForwardedRequest returns a request that a proxy forwarded, with values of Client-Cert.
func ForwardedRequest(values ...string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	for _, v := range values {
		r.Header.Add("Client-Cert", v)
	}
	return r
}
