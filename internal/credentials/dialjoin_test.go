package credentials_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/pkitest"
)

// An adversary in the middle gets neither the token nor the request: the handshake ends before.
func TestOtherCAGetsNothing(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	other := t.TempDir()
	fixture.Must(t, ca.Init(other, ca.InitOptions{Names: []string{"localhost", "127.0.0.1"}}))
	pair, err := tls.LoadX509KeyPair(filepath.Join(other, "server.crt"), filepath.Join(other, "server.key"))
	fixture.Must(t, err)
	othersCA := pkitest.LoadCertificate(t, filepath.Join(other, "ca.crt"))
	ours := pkitest.LoadCertificate(t, j.Path("ca.crt"))
	// Its own leaf for our name, and our root in the chain, which everybody may have.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	self := pkitest.Authority{T: t, Cert: ours, Key: key}
	for name, chain := range map[string][][]byte{
		"its own chain":        append(pair.Certificate[:2:2], othersCA.Raw),
		"our root behind":      append(pair.Certificate[:2:2], ours.Raw),
		"our root in front":    {ours.Raw, pair.Certificate[0]},
		"no CA":                pair.Certificate[:1],
		"a leaf as if by ours": {self.SignServer("127.0.0.1"), ours.Raw},
		"our own receiver's":   {pkitest.LoadCertificate(t, j.Path("server.crt")).Raw, ours.Raw},
	} {
		t.Run(name, func(t *testing.T) {
			certificate := tls.Certificate{Certificate: chain, PrivateKey: pair.PrivateKey}
			if name == "a leaf as if by ours" {
				certificate.PrivateKey = key
			}
			got := make(chan []byte, 1)
			addr := serveOnce(t, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{pkitest.JoinProtocol}}, got)
			conn, _, err := credentials.DialJoin(t.Context(), (&net.Dialer{}).DialContext, addr, pkitest.JoinProtocol, j.Issuer.RootHash(), time.Now())
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
	j := pkitest.NewJoinLab(t)
	j.Open.Store(true)
	_, port, _ := net.SplitHostPort(j.Addr)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, j.Addr)
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
		conn, root, err := credentials.DialJoin(t.Context(), dial, net.JoinHostPort(test.host, port), pkitest.JoinProtocol, j.Issuer.RootHash(), test.now)
		if (err == nil) != test.want {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
		if err == nil {
			conn.Close()
			if !bytes.Equal(root.Raw, pkitest.LoadCertificate(t, j.Path("ca.crt")).Raw) {
				t.Errorf("%s: got another root", name)
			}
		}
	}
}

// A proxy that ends TLS may have the receiver's certificate, and even its root. It would see the
// token, and answer nothing that helps.
func TestServerThatKnowsNoALPNGetsNothing(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	pair, err := tls.LoadX509KeyPair(j.Path("server.crt"), j.Path("server.key"))
	fixture.Must(t, err)
	pair.Certificate = append(pair.Certificate, pkitest.LoadCertificate(t, j.Path("ca.crt")).Raw)
	got := make(chan []byte, 1)
	addr := serveOnce(t, &tls.Config{Certificates: []tls.Certificate{pair}}, got)
	_, _, err = credentials.DialJoin(t.Context(), (&net.Dialer{}).DialContext, addr, pkitest.JoinProtocol, j.Issuer.RootHash(), time.Now())
	if err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("got %v, want a hint at a proxy", err)
	}
	if read := <-got; len(read) > 0 {
		t.Errorf("it got %q", read)
	}
}
