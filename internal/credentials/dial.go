package credentials

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

// TLSConfig returns a configuration that trusts the current CAs. Its certificate follows
// [Client.Reload], but its CAs do not. Therefore a long-lived transport must use [Client.DialTLS].
func (c *Client) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		RootCAs:    c.current.Load().roots,
		// Presented whatever CAs the receiver lists, so that a wrong certificate is refused with a
		// reason.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.current.Load().certificate, nil
		},
	}
}

// Dial opens a connection, as [net.Dialer.DialContext] does.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// handshakeTimeout replaces that of http.Transport, which only applies to handshakes of its own.
const handshakeTimeout = 10 * time.Second

// HandshakeError says that a connection was opened and its TLS handshake failed.
type HandshakeError struct {
	Addr string
	Err  error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("tls handshake with %s: %v", e.Addr, e.Err)
}

// Unwrap returns the reason.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Handshake marks the error for packages that do not import this one.
func (e *HandshakeError) Handshake() {}

// DialTLS returns a function for http.Transport.DialTLSContext. It dials, and does a TLS handshake
// with the current files.
//
// A VerifyConnection of our own could also change the CAs of a live transport. But it does not get
// the dialled name if that is an IP address, and could not check it.
func (c *Client) DialTLS(dial Dial) Dial { return c.DialTLSGroups(dial) }

// DialTLSGroups is [Client.DialTLS] that offers only the given groups for the exchange of keys, or
// the usual ones if none is given. It is for a test of a connection.
func (c *Client) DialTLSGroups(dial Dial, groups ...tls.CurveID) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := c.TLSConfig()
		config.ServerName, config.CurvePreferences = host, groups
		conn := tls.Client(raw, config)
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error is the one to return
			return nil, &HandshakeError{Addr: addr, Err: err}
		}
		return conn, nil
	}
}
