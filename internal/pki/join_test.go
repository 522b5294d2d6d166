package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// handshake offers protocols without a certificate, and returns the one that was chosen. TLS 1.3
// tells a client of a refused certificate with the first bytes that it reads.
func (j *joinLab) handshake(protocols ...string) (string, error) {
	j.t.Helper()
	config := j.clientTLS(nil)
	config.NextProtos = protocols
	conn, err := tls.Dial("tcp", j.addr, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, err = conn.Read(make([]byte, 1))
	return conn.ConnectionState().NegotiatedProtocol, err
}

// Everything on the port demands a certificate, except a hello that offers joining and nothing
// else while an invitation is open.
func TestOnlyJoiningNeedsNoCertificate(t *testing.T) {
	j := newJoinLab(t)
	for _, open := range []bool{false, true} {
		j.open.Store(open)
		for _, protocols := range [][]string{
			nil,
			{"http/1.1"},
			{joinProtocol, "http/1.1"},
			{"http/1.1", joinProtocol},
			{joinProtocol, joinProtocol},
			{joinProtocol, "x"},
			{"cis490-join/2"},
			{"CIS490-JOIN/1"},
			{joinProtocol + " "},
			{"h2"},
		} {
			if got, err := j.handshake(protocols...); err == nil || got == joinProtocol {
				t.Errorf("open %v, %q: got %q, %v; want a refusal", open, protocols, got, err)
			}
		}
		conn, err := j.dial(time.Now())
		if (err == nil) != open {
			t.Errorf("open %v: joining: %v", open, err)
		}
		if err == nil {
			conn.Close()
		} else if !strings.Contains(err.Error(), "has no open invitation") {
			t.Errorf("got %v, want it to say that it has no open invitation", err)
		}
	}
	if n := j.served.Load(); n > 0 {
		t.Errorf("%d requests reached the handler", n)
	}
	j.join("lab-01", false, time.Now()).wantAccess("lab-01 mtls") // also while the door is open
}

// An adversary in the middle gets neither the token nor the request: the handshake ends before.
func TestOtherCAGetsNothing(t *testing.T) {
	j := newJoinLab(t)
	other := t.TempDir()
	fixture.Must(t, pki.InitCA(other, pki.InitOptions{Names: []string{"localhost", "127.0.0.1"}}))
	pair, err := tls.LoadX509KeyPair(filepath.Join(other, "server.crt"), filepath.Join(other, "server.key"))
	fixture.Must(t, err)
	othersCA := loadCertificate(t, filepath.Join(other, "ca.crt"))
	ours := loadCertificate(t, j.path("ca.crt"))
	// Its own leaf for our name, and our root in the chain, which everybody may have.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	self := authority{t, ours, key}
	for name, chain := range map[string][][]byte{
		"its own chain":        append(pair.Certificate[:2:2], othersCA.Raw),
		"our root behind":      append(pair.Certificate[:2:2], ours.Raw),
		"our root in front":    {ours.Raw, pair.Certificate[0]},
		"no CA":                pair.Certificate[:1],
		"a leaf as if by ours": {self.signServer("127.0.0.1"), ours.Raw},
		"our own receiver's":   {loadCertificate(t, j.path("server.crt")).Raw, ours.Raw},
	} {
		t.Run(name, func(t *testing.T) {
			certificate := tls.Certificate{Certificate: chain, PrivateKey: pair.PrivateKey}
			if name == "a leaf as if by ours" {
				certificate.PrivateKey = key
			}
			got := make(chan []byte, 1)
			addr := serveOnce(t, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{joinProtocol}}, got)
			conn, _, err := pki.DialJoin(t.Context(), (&net.Dialer{}).DialContext, addr, joinProtocol, j.issuer.RootHash(), time.Now())
			if err == nil {
				conn.Close()
				t.Error("the adversary is taken for the receiver")
			}
			if read := <-got; len(read) > 0 {
				t.Errorf("it got %q", read)
			}
		})
	}
}

// signServer returns a certificate of a receiver in DER, signed as if by a.
func (a authority) signServer(address string) []byte {
	c := template(a.t)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.ParseIP(address)}
	der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: a.cert.Subject}, a.key.Public(), a.key)
	fixture.Must(a.t, err)
	return der
}

// serveOnce accepts one connection, and sends what it read after the handshake.
func serveOnce(t *testing.T, config *tls.Config, got chan<- []byte) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		raw, err := ln.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(time.Minute))
		conn := tls.Server(raw, config)
		read, _ := io.ReadAll(conn) // the handshake fails, or the client has nothing to say
		got <- read
	}()
	return ln.Addr().String()
}

// A certificate for other names, one that has expired, or one for hosts is not the receiver's.
func TestReceiverMustHaveTheNameThatTheTokenSays(t *testing.T) {
	j := newJoinLab(t)
	j.open.Store(true)
	_, port, _ := net.SplitHostPort(j.addr)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, j.addr)
	}
	for name, test := range map[string]struct {
		host string
		now  time.Time
		want bool
	}{
		"its name":     {"localhost", time.Now(), true},
		"its address":  {"127.0.0.1", time.Now(), true},
		"another name": {"receiver.evil", time.Now(), false},
		"in 1970":      {"localhost", time.Unix(0, 0), false},
		"in ten years": {"localhost", time.Now().AddDate(10, 0, 0), false},
	} {
		conn, root, err := pki.DialJoin(t.Context(), dial, net.JoinHostPort(test.host, port), joinProtocol, j.issuer.RootHash(), test.now)
		if (err == nil) != test.want {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if err == nil {
			conn.Close()
			if !bytes.Equal(root.Raw, loadCertificate(t, j.path("ca.crt")).Raw) {
				t.Errorf("%s: got another root", name)
			}
		}
	}
}

// A proxy that ends TLS may have the receiver's certificate, and even its root. It would see the
// token, and answer nothing that helps.
func TestServerThatKnowsNoALPNGetsNothing(t *testing.T) {
	j := newJoinLab(t)
	pair, err := tls.LoadX509KeyPair(j.path("server.crt"), j.path("server.key"))
	fixture.Must(t, err)
	pair.Certificate = append(pair.Certificate, loadCertificate(t, j.path("ca.crt")).Raw)
	got := make(chan []byte, 1)
	addr := serveOnce(t, &tls.Config{Certificates: []tls.Certificate{pair}}, got)
	_, _, err = pki.DialJoin(t.Context(), (&net.Dialer{}).DialContext, addr, joinProtocol, j.issuer.RootHash(), time.Now())
	if err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("got %v, want a hint at a proxy", err)
	}
	if read := <-got; len(read) > 0 {
		t.Errorf("it got %q", read)
	}
}

// An old certificate ends with a request by the new one, not with a handshake that the host did not
// hear of, and not before.
func TestCertificateEndsWithTheFirstUseOfItsSuccessor(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	old := j.join("lab-01", false, now.Add(-2*time.Hour))
	fixture.Must(t, j.note(old))
	other := j.join("lab-02", false, now.Add(-2*time.Hour))
	again := j.join("lab-01", true, now.Add(-2*time.Hour)) // in the same second
	fixture.Must(t, j.note(old))
	again.wantAccess("lab-01 mtls") // a handshake, and a request that the receiver did not note
	old.wantAccess("lab-01 mtls")

	fixture.Must(t, j.note(again))
	old.wantRefusedOnSameConnection(403)
	for range 2 {
		if err := j.note(old); !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("got %v, want %v", err, pki.ErrIdentity)
		}
		fixture.Must(t, j.note(again))
		fixture.Must(t, j.note(other))
		j.reopen() // it is durable
	}
	// One installed by hand afterwards is newer.
	j.issue("lab-01", pki.IssueOptions{}).wantAccess("lab-01 mtls")
}

// A host that joined without --again keeps what it had.
func TestFirstJoinEndsNoOtherCertificate(t *testing.T) {
	j := newJoinLab(t)
	old := j.issue("lab-01", pki.IssueOptions{Now: time.Now().Add(-2 * time.Hour)})
	fixture.Must(t, j.note(j.join("lab-01", false, time.Now())))
	old.wantAccess("lab-01 mtls")
}

// What ended stays ended: an invitation that is answered later must not bring it back.
func TestEndedCertificateStaysEndedWhenTheHostJoinsOnceMore(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	stolen := j.join("lab-01", false, now.Add(-3*time.Hour))
	second := j.join("lab-01", true, now.Add(-2*time.Hour))
	fixture.Must(t, j.note(second))
	for _, again := range []bool{true, false} {
		third := j.join("lab-01", again, now.Add(-time.Hour))
		if err := j.note(stolen); !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("again %v, before the new one is used: got %v, want %v", again, err, pki.ErrIdentity)
		}
		fixture.Must(t, j.note(third))
		if err := j.note(stolen); !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("again %v, after: got %v, want %v", again, err, pki.ErrIdentity)
		}
		j.reopen()
	}
}

// A receiver whose clock was ahead must not lock out a host that joins after that was corrected.
func TestHostJoinsAfterTheClockWasSetBack(t *testing.T) {
	j := newJoinLab(t)
	j.late.Store(int64(1000 * time.Hour))
	fixture.Must(t, j.note(j.join("lab-01", true, j.gate.Now())))
	j.late.Store(0)
	fixture.Must(t, j.note(j.join("lab-01", true, j.gate.Now())))
}

func TestFullDiskDoesNotKeepAnOldCertificateAlive(t *testing.T) {
	j := newJoinLab(t)
	old := j.join("lab-01", false, time.Now().Add(-2*time.Hour))
	again := j.join("lab-01", true, time.Now())
	fixture.Must(t, os.RemoveAll(filepath.Join(j.identity, "hosts"))) // no record can be written
	fixture.Must(t, j.note(again))
	if err := j.note(old); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("got %v, want %v", err, pki.ErrIdentity)
	}
	request := parsePending(t)
	issued, err := j.issuer.SignHost(request, "lab-02", time.Now())
	fixture.Must(t, err)
	if err := j.records.SetJoined(issued, false); err == nil {
		t.Error("a certificate that is not on record is handed out")
	}
}

func parsePending(t *testing.T) pki.Request {
	t.Helper()
	pending, err := pki.OpenPending(filepath.Join(t.TempDir(), "identity"), "x")
	fixture.Must(t, err)
	request, err := pki.ParseRequest(pending.Request)
	fixture.Must(t, err)
	return request
}

// requests returns requests of all kinds, and whether each is good.
func requests(t testing.TB) map[string]struct {
	der  []byte
	good bool
} {
	t.Helper()
	all := make(map[string]struct {
		der  []byte
		good bool
	})
	add := func(name string, good bool, key any, template x509.CertificateRequest) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
		fixture.Must(t, err)
		all[name] = struct {
			der  []byte
			good bool
		}{der, good}
		return der
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	fixture.Must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	fixture.Must(t, err)
	r1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil { // Go refuses to make one: this is one of openssl
		r1024 = nil
	}
	r2048, err := rsa.GenerateKey(rand.Reader, 2048)
	fixture.Must(t, err)
	good := add("P-256", true, p256, x509.CertificateRequest{})
	add("Ed25519", true, ed, x509.CertificateRequest{})
	add("RSA 2048", true, r2048, x509.CertificateRequest{})
	add("other names", true, p256, x509.CertificateRequest{ // which are not used
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"receiver.lab"},
	})
	add("P-224", false, p224, x509.CertificateRequest{})
	if r1024 != nil {
		add("RSA 1024", false, r1024, x509.CertificateRequest{})
	}
	for name, der := range map[string][]byte{
		"nothing": nil, "garbage": []byte("x"), "cut": good[:len(good)-1], "more": append(bytes.Clone(good), 0),
		"altered signature": flip(good, len(good)-5), "altered key": flip(good, bytes.Index(good, p256.X.Bytes())+3),
	} {
		all[name] = struct {
			der  []byte
			good bool
		}{der, false}
	}
	return all
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestRequestCountsOnlyByItsKey(t *testing.T) {
	j := newJoinLab(t)
	for name, test := range requests(t) {
		request, err := pki.ParseRequest(test.der)
		if (err == nil) != test.good {
			t.Errorf("%s: got %v, want it good: %v", name, err, test.good)
		}
		if err != nil {
			continue
		}
		issued, err := j.issuer.SignHost(request, "lab-01", time.Now())
		fixture.Must(t, err)
		cert := loadCertificate(t, filepath.Join(pki.RecordsIn(j.identity), issued.Serial+".crt"))
		if cert.Subject.CommonName != "lab-01" || len(cert.DNSNames) > 0 || cert.IsCA || cert.NotAfter.Before(time.Now().Add(364*24*time.Hour)) {
			t.Errorf("%s: got a certificate for %v, %v, CA %v, until %v", name, cert.Subject, cert.DNSNames, cert.IsCA, cert.NotAfter)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range requests(f) {
		f.Add(r.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		request, err := pki.ParseRequest(der)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not printable: %q", err)
			}
			return
		}
		if sum, err := hex.DecodeString(request.KeySHA256); err != nil || len(sum) != 32 {
			t.Errorf("got key %q", request.KeySHA256)
		}
	})
}
