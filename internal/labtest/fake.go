package labtest

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"cis490/internal/fixture"
)

// Fake replaces the receiver by another handler with the receiver's own certificate, such as a
// faulty proxy. The returned function restores the receiver.
func (l *Lab) Fake(t testing.TB, h http.Handler) (restore func()) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(l.Path("pki", "server.crt"), l.Path("pki", "server.key"))
	fixture.Must(t, err)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	l.Proxy.mu.Lock()
	before := l.Proxy.to
	l.Proxy.mu.Unlock()
	l.Proxy.Forward(s.Listener.Addr().String())
	return func() { l.Proxy.Forward(before) }
}

// Client returns an HTTP client with the certificate of a host, for requests that no shipper
// makes.
func (h *Host) Client(t testing.TB) *http.Client {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(h.Path("pki", h.Name+".crt"), h.Path("pki", h.Name+".key"))
	fixture.Must(t, err)
	return h.lab.newClient(t, cert)
}

// Stranger returns an HTTP client without a certificate.
func (l *Lab) Stranger(t testing.TB) *http.Client {
	t.Helper()
	return l.newClient(t)
}

func (l *Lab) newClient(t testing.TB, certs ...tls.Certificate) *http.Client {
	t.Helper()
	ca, err := os.ReadFile(l.Path("pki", "ca.crt"))
	fixture.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certs}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       maxWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// URL returns an address below the receiver's, as the hosts reach it.
func (l *Lab) URL(path string) string { return "https://" + l.Proxy.Addr() + path }
