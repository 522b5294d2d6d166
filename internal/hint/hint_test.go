package hint_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/hint"
	"cis490/internal/wire"
)

// clientOf returns a client whose connections come from dial.
func clientOf(tb testing.TB, url string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *wire.Client {
	tb.Helper()
	c, err := wire.NewClient(wire.ClientConfig{URL: url, Host: "lab-01", DialTLS: dial, Version: "test", Conns: 2})
	fixture.Must(tb, err)
	tb.Cleanup(c.CloseIdle)
	return c
}

// selfSign returns a self-signed certificate.
func selfSign(tb testing.TB, name string, from, to time.Duration) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(tb, err)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(from), NotAfter: now.Add(to), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	fixture.Must(tb, err)
	leaf, err := x509.ParseCertificate(der)
	fixture.Must(tb, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// connection is a server and a client that trust the certificates that the test chooses.
type connection struct {
	server  tls.Certificate
	trusted tls.Certificate // by the client
	name    string          // that the client looks for
	clients *x509.CertPool  // nil: none is asked for
	show    *tls.Certificate
}

// ping returns the error of a ping by the client.
func (m connection) ping(t *testing.T) error {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{m.server}}
	if m.clients != nil {
		s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, m.clients
	}
	s.StartTLS()
	defer s.Close()
	config := &tls.Config{RootCAs: newPool(m.trusted), ServerName: m.name}
	if m.show != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.show, nil }
	}
	c := clientOf(t, s.URL, func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := wire.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := tls.Client(conn, config)
		return c, c.HandshakeContext(ctx)
	})
	_, err := c.Ping(t.Context())
	return err
}

func newPool(certs ...tls.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c.Leaf)
	}
	return p
}

func TestTLSFailuresAreExplained(t *testing.T) {
	good := selfSign(t, "receiver.lab", -time.Hour, time.Hour)
	other := selfSign(t, "receiver.lab", -time.Hour, time.Hour)
	expired := selfSign(t, "receiver.lab", -2*time.Hour, -time.Hour)
	early := selfSign(t, "receiver.lab", time.Hour, 2*time.Hour)
	for _, c := range []struct {
		what string
		connection
		want []string
	}{
		{"unknown CA", connection{server: good, trusted: other, name: "receiver.lab"}, []string{"ca_file", "pki init"}},
		{"expired", connection{server: expired, trusted: expired, name: "receiver.lab"}, []string{"expired on", "clock"}},
		{"not yet valid", connection{server: early, trusted: early, name: "receiver.lab"}, []string{"not valid before", "clock"}},
		{"another name", connection{server: good, trusted: good, name: "elsewhere.lab"}, []string{"is for receiver.lab", "receiver.url"}},
		{"we show nothing", connection{server: good, trusted: good, name: "receiver.lab", clients: newPool(good)}, []string{"does not trust", "cert_file"}},
		{"our CA is unknown there", connection{server: good, trusted: good, name: "receiver.lab", clients: newPool(good), show: &other}, []string{"receiver"}},
		{"ours is expired", connection{server: good, trusted: good, name: "receiver.lab", clients: newPool(expired), show: &expired}, []string{"not valid now", "clock"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			err := c.ping(t)
			if err == nil {
				t.Fatal("no error")
			}
			wantAdvice(t, err, c.want...)
			if _, ok := errors.AsType[*wire.UnexpectedResponseError](err); ok {
				t.Errorf("got an unexpected response: %v, want a TLS error", err)
			}
		})
	}
}

// wantAdvice checks the hint for an error.
func wantAdvice(tb testing.TB, err error, words ...string) {
	tb.Helper()
	got := hint.For(err)
	for _, word := range words {
		if !strings.Contains(got, word) {
			tb.Errorf("hint for %v: got %q, want it to contain %q", err, got, word)
		}
	}
	if got == "" || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
		tb.Errorf("hint for %v: got %q, want printable ASCII", err, got)
	}
}

func TestAlertsAreExplained(t *testing.T) {
	for alert, want := range map[string]string{
		"tls: expired certificate":           "clock",
		"tls: unknown certificate authority": "pki issue",
		"tls: certificate required":          "pki issue",
		"tls: bad certificate":               "revoked",
		"tls: access denied":                 "revoked",
		"tls: internal error":                "journal",
	} {
		wantAdvice(t, fmt.Errorf("put: %w", &net.OpError{Op: "remote error", Err: errors.New(alert)}), want)
	}
}

// handshakeError is like that of package pki.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }
func (handshakeError) Handshake()      {}

func TestNetworkFailuresAreExplained(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	gone.Close()
	handshake := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := wire.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := tls.Client(conn, &tls.Config{ServerName: "x"})
		return c, c.HandshakeContext(ctx)
	}
	failing := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	for _, c := range []struct {
		what, addr string
		dial       func(context.Context, string, string) (net.Conn, error)
		want       string
	}{
		{"refused", gone.Addr().String(), handshake, "nothing listens"},
		{"plain HTTP", plain.Listener.Addr().String(), handshake, "TLS"},
		{"timeout", silent.Addr().String(), handshake, "no answer in time"},
		{"silent after it accepted", "receiver.lab", failing(handshakeError{context.DeadlineExceeded}), "did not answer in TLS"},
		{"unknown name", "receiver.lab", failing(&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "receiver.lab", IsNotFound: true}}), "resolve"},
		{"no route", "receiver.lab", failing(&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}), "WireGuard"},
		{"reset", "receiver.lab", failing(&net.OpError{Op: "read", Err: syscall.ECONNRESET}), "broke"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if c.what == "timeout" {
			ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		}
		_, err := clientOf(t, "https://"+c.addr, c.dial).Ping(ctx)
		cancel()
		if err == nil {
			t.Errorf("%s: no error", c.what)
			continue
		}
		wantAdvice(t, err, c.want)
	}
	if got := hint.For(errors.New("something else")); got != "" {
		t.Errorf("hint for an unknown error: got %q, want none", got)
	}
}

// TestRefusalsOfTheHostAreExplained: these stop all sending, so operators must be told what to
// do.
func TestRefusalsOfTheHostAreExplained(t *testing.T) {
	for code, want := range map[wire.Code]string{
		wire.TokenRefused: "tokens_file", wire.Forbidden: "pki issue", wire.HostMismatch: "host_id", wire.Full: "disk",
		wire.Busy: "retries by itself", wire.HostBusy: "second shipper", wire.Draining: "restarting", wire.Damaged: "verify", wire.Internal: "journal",
	} {
		wantAdvice(t, fmt.Errorf("put: %w", wire.Refuse(code, "x")), want)
	}
}

func TestUnexpectedResponseIsExplained(t *testing.T) {
	wantAdvice(t, fmt.Errorf("put: %w", &wire.UnexpectedResponseError{Status: 403}), "receiver.url")
}

// TestBlamesCredentials: other files of this host may fix a refusal of its certificate, or of
// the receiver's, and nothing else.
func TestBlamesCredentials(t *testing.T) {
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: expired certificate")}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{wire.Refuse(wire.Forbidden, ""), true},
		{wire.Refuse(wire.TokenRefused, ""), true},
		{wire.Refuse(wire.HostMismatch, ""), true},
		{fmt.Errorf("Post: %w", alert), true},
		{fmt.Errorf("Post: %w", x509.UnknownAuthorityError{}), true},
		{x509.CertificateInvalidError{Reason: x509.Expired}, true},
		{wire.Refuse(wire.Full, ""), false},
		{wire.Refuse(wire.Internal, ""), false},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false},
		{&wire.UnexpectedResponseError{Status: 403}, false},
		{context.DeadlineExceeded, false},
	} {
		if got := hint.BlamesCredentials(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}

// TestNamesOfACertificateAreBounded: the name is compared before the signature, so anyone may have made it.
func TestNamesOfACertificateAreBounded(t *testing.T) {
	names := []string{"one\x1b[2J.lab"}
	for range 1000 {
		names = append(names, "another.lab")
	}
	got := hint.For(x509.HostnameError{Certificate: &x509.Certificate{DNSNames: names}, Host: "receiver.lab"})
	if !strings.Contains(got, `one\x1b[2J.lab, another.lab`) || len(got) > 500 {
		t.Errorf("%d bytes: %.300q", len(got), got)
	}
}
