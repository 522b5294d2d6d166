package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/episode"
)

// ClientConfig names the files that a host shows and trusts. Their modes are
// not looked at: systemd hands credentials out as 0400 or 0440.
type ClientConfig struct {
	CAFile    string // who may sign the receiver's certificate; no other CA is trusted
	CertFile  string
	KeyFile   string
	TokenFile string // empty means no token
}

// Files returns the files that [LoadClient] reads.
func (c ClientConfig) Files() []string {
	return nonEmpty(c.CertFile, c.KeyFile, c.CAFile, c.TokenFile)
}

// A Client is a host's end of mutual TLS.
type Client struct {
	config ClientConfig

	reload  sync.Mutex // one reload at a time, so that an older one cannot win
	current atomic.Pointer[credentials]
}

// credentials is what a host shows and trusts at one time. It does not change.
type credentials struct {
	certificate tls.Certificate
	roots       *x509.CertPool
	token       string
}

// LoadClient returns a client, or an error if any of the files is not good.
func LoadClient(c ClientConfig) (*Client, error) {
	client := &Client{config: c}
	if err := client.Reload(); err != nil {
		return nil, err
	}
	return client, nil
}

// Reload reads all files anew. If any is not good, nothing changes and the
// error says why.
func (c *Client) Reload() error {
	c.reload.Lock()
	defer c.reload.Unlock()
	p, err := loadCredentials(c.config)
	if err != nil {
		return err
	}
	c.current.Store(p)
	return nil
}

// Refresh is [Client.Reload] for whoever was refused: it reports whether the files held
// anything else than what was shown and trusted before.
func (c *Client) Refresh() (changed bool, err error) {
	c.reload.Lock()
	defer c.reload.Unlock()
	p, err := loadCredentials(c.config)
	if err != nil || p.equal(c.current.Load()) {
		return false, err
	}
	c.current.Store(p)
	return true, nil
}

func (p *credentials) equal(q *credentials) bool {
	return slices.EqualFunc(p.certificate.Certificate, q.certificate.Certificate, bytes.Equal) &&
		p.roots.Equal(q.roots) && p.token == q.token
}

func loadCredentials(c ClientConfig) (*credentials, error) {
	certificate, err := loadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, err
	}
	_, roots, err := readPool(c.CAFile)
	if err != nil {
		return nil, err
	}
	p := &credentials{certificate: certificate, roots: roots}
	if c.TokenFile == "" {
		return p, nil
	}
	text, err := readFile(c.TokenFile)
	if err != nil {
		return nil, err
	}
	p.token = strings.TrimSpace(string(text))
	if !isToken(p.token) {
		return nil, fmt.Errorf("%s holds no token: it needs one word of at most %d printable characters", c.TokenFile, maxTokenBytes)
	}
	return p, nil
}

// maxTokenBytes keeps a wrong file out of every request's header.
const maxTokenBytes = 4 << 10

func isToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxTokenBytes
}

// Token returns the bearer token, or "" if the host has none.
func (c *Client) Token() string { return c.current.Load().token }

// TLS returns a configuration that trusts the CAs of this moment. The
// certificate that it shows follows [Client.Reload]; the CAs do not, which is
// why a transport that lives longer uses [Client.DialTLS].
func (c *Client) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		RootCAs:    c.current.Load().roots,
		// Shown whatever CAs the receiver lists, so that a wrong one is refused
		// with a reason instead of missing.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.current.Load().certificate, nil
		},
	}
}

// A Dial opens a connection, like [net.Dialer.DialContext].
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// handshakeTimeout stands in for http.Transport's, which counts only for
// handshakes of its own.
const handshakeTimeout = 10 * time.Second

// A HandshakeError says that a connection was made and TLS was not.
type HandshakeError struct {
	Addr string
	Err  error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("tls handshake with %s: %v", e.Addr, e.Err)
}

// Unwrap returns the reason.
func (e *HandshakeError) Unwrap() error { return e.Err }

// Handshake marks the error for those who do not import this package.
func (e *HandshakeError) Handshake() {}

// DialTLS returns what http.Transport.DialTLSContext wants: it dials, and
// speaks TLS with a configuration made afresh of the current files.
//
// The other way to change the CAs of a living transport is a VerifyConnection
// of one's own; it does not see the name that was dialled if that is an IP
// address, and would have to skip the check.
func (c *Client) DialTLS(dial Dial) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := c.TLS()
		config.ServerName = host
		conn := tls.Client(raw, config)
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // the handshake's error is the one that matters
			return nil, &HandshakeError{Addr: addr, Err: err}
		}
		return conn, nil
	}
}

// NotAfter returns when the host's certificate ends.
func (c *Client) NotAfter() time.Time { return c.leaf().NotAfter }

func (c *Client) leaf() *x509.Certificate { return c.current.Load().certificate.Leaf }

// ID returns who the host's certificate says that it is.
func (c *Client) ID() (ID, error) {
	leaf := c.leaf()
	if serverOnly(leaf) {
		return ID{}, fmt.Errorf("certificate %s is a receiver's, for TLS servers, and no host's", c.config.CertFile)
	}
	id, err := idOf(leaf)
	if err != nil {
		return ID{}, fmt.Errorf("certificate %s: %w", c.config.CertFile, err)
	}
	return id, nil
}

// serverOnly reports whether a certificate is for servers and not for clients.
func serverOnly(cert *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// Check returns what is wrong with the host's own certificate, as far as the
// host itself can know: it is another host's, or now is outside its time.
func (c *Client) Check(host episode.Name, now time.Time) error {
	id, err := c.ID()
	if err != nil {
		return fmt.Errorf("%w; issue one with receiver pki issue %s", err, host)
	}
	leaf := c.leaf()
	switch {
	case id.Host != host:
		return fmt.Errorf("certificate %s is for host %s, but the configuration says host_id = %q",
			c.config.CertFile, id.Host, host)
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s is not valid before %s, but this machine's clock says %s; check the clock",
			c.config.CertFile, formatTime(leaf.NotBefore), formatTime(now))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s expired on %s (this machine's clock says %s); issue a new one with receiver pki issue %s",
			c.config.CertFile, formatTime(leaf.NotAfter), formatTime(now), host)
	}
	return nil
}
