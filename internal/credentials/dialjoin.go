package credentials

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"cis490/internal/pki"
)

// ErrOtherCA says that the machine that answers is not the receiver that made the token.
var ErrOtherCA = errors.New("another machine answers at this address, or the receiver has a new CA: its CA is not the one that the token names; the token was not sent")

// DialJoin opens a connection for protocol to a receiver, and returns it with the receiver's root. It
// recognizes the receiver by the [pki.HashKey] of the root, and by the name or address in addr, which must
// be in the receiver's certificate. It sends nothing but the handshake, and no certificate.
func DialJoin(ctx context.Context, dial Dial, addr, protocol string, rootHash [sha256.Size]byte, now time.Time) (net.Conn, *x509.Certificate, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, err
	}
	raw, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	var root *x509.Certificate
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
		ServerName: host,
		// VerifyConnection does what this leaves out, with the root that the token names.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			var err error
			root, err = verifyJoin(state.PeerCertificates, host, rootHash, now)
			return err
		},
	})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error is the one to return
		return nil, nil, explainJoin(addr, err)
	}
	if conn.ConnectionState().NegotiatedProtocol != protocol { // a server that knows no ALPN agrees to anything
		_ = raw.Close()
		return nil, nil, fmt.Errorf("%s answers with the receiver's certificate, but hosts cannot join there: is it a proxy that ends TLS? Join at the receiver's own port", addr)
	}
	return conn, root, nil
}

// explainJoin adds what the alert of a receiver means that does not serve the protocol.
func explainJoin(addr string, err error) error {
	if strings.Contains(err.Error(), "no application protocol") {
		return fmt.Errorf("%s answers, but has no open invitation: this one was revoked or has expired, or the receiver was not restarted after 'receiver setup'", addr)
	}
	if errors.Is(err, ErrOtherCA) {
		return ErrOtherCA
	}
	return &HandshakeError{Addr: addr, Err: err}
}

// verifyJoin verifies a receiver's chain against the one CA in it that has the hash, and returns
// that CA.
func verifyJoin(chain []*x509.Certificate, host string, rootHash [sha256.Size]byte, now time.Time) (*x509.Certificate, error) {
	at := slices.IndexFunc(chain, func(cert *x509.Certificate) bool { return cert.IsCA && pki.HashKey(cert) == rootHash })
	if len(chain) == 0 || at < 0 {
		return nil, ErrOtherCA
	}
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[at])
	for i, cert := range chain[1:] {
		if i+1 != at {
			others.AddCert(cert)
		}
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, DNSName: strings.Trim(host, "[]"), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return chain[at], err
}
