// Package credentials is a host's end of the certificates: which it presents, which receiver it
// recognizes, and how it gets the next ones.
//
// [Load] returns a [Client], whose connections use the current files: those that an operator
// installed, or those in the identity directory, whichever became valid later. They are loaded
// again without a restart. If the new ones are not valid, the old ones stay.
//
// A host joins by a [Pending] request, whose key is durable before it is sent. It recognizes the
// receiver by the hash of its root alone, see [DialJoin]. A [Renewal] replaces its certificate
// before that expires. By a [CAUpdate] it follows a rotation of the CAs. Both are tested by a
// connection before they replace what the host has.
//
// Invariant: a host trusts no root but those that it was given, and those that one of these
// signed. Who takes over a receiver cannot change that.
package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
)

// Config names the files of a host. Their modes are not checked, because systemd passes
// credentials with 0400 or 0440.
type Config struct {
	CAFile    string // CAs of the receiver; no other CA is trusted
	CertFile  string
	KeyFile   string
	TokenFile string // empty means no token
	// IdentityDir may hold what joining wrote: a certificate of Host, its key and the CAs of the
	// receiver. Of it and the files above, the certificate that became valid later is used, so that
	// one installed by hand wins. It may be missing, or empty.
	IdentityDir string
	Host        episode.Name
}

// Files returns the files that [Load] uses now: the configured ones until the host has a
// certificate.
func (c Config) Files() []string {
	set, err := c.chooseCredentials()
	if err != nil || set.certificate.Leaf == nil {
		return nonEmpty(c.CertFile, c.KeyFile, c.CAFile, c.TokenFile)
	}
	return append(slices.Compact([]string{set.certFile, set.keyFile, set.caFile}), nonEmpty(c.TokenFile)...)
}

// nonEmpty returns the paths that are not empty.
func nonEmpty(paths ...string) []string {
	return slices.DeleteFunc(paths, func(path string) bool { return path == "" })
}

// CheckRoles returns an error if the files of a host load but are made for another role, so that it
// would refuse the receiver. It is for a check. A start accepts such files, as it always has.
func (c Config) CheckRoles() error {
	set, err := c.chooseCredentials()
	if err != nil {
		return err
	}
	return pki.CheckCAs(set.caFile, x509.ExtKeyUsageServerAuth,
		"receiver.ca_file %s holds a CA of hosts, and none of receivers: name the ca.crt that receiver pki issue wrote")
}

// Client is a host's end of mutual TLS.
type Client struct {
	config Config

	reload  sync.Mutex // one reload at a time, so that the latest wins
	current atomic.Pointer[snapshot]

	announced atomic.Pointer[Announcement]
	news      chan struct{}
}

// snapshot is what a host presents and trusts. It is immutable.
type snapshot struct {
	certificate tls.Certificate
	cas         []*x509.Certificate // of the receiver
	roots       *x509.CertPool      // of cas
	token       string
	certFile    string // where the certificate is from
	joined      bool   // by joining, or renewed since
	candidate   bool   // not installed yet
}

// Load returns a client, or an error if any of the files is not valid.
func Load(c Config) (*Client, error) {
	client := &Client{config: c, news: make(chan struct{}, 1)}
	if err := client.Reload(); err != nil {
		return nil, err
	}
	return client, nil
}

// Reload reads all files again. If any is not valid, it changes nothing and returns why.
func (c *Client) Reload() error {
	c.reload.Lock()
	defer c.reload.Unlock()
	p, err := loadSnapshot(c.config)
	if err != nil {
		return err
	}
	c.current.Store(p)
	return nil
}

// ReloadIfChanged is [Client.Reload] after a refusal. It reports whether the credentials changed.
func (c *Client) ReloadIfChanged() (changed bool, err error) {
	c.reload.Lock()
	defer c.reload.Unlock()
	p, err := loadSnapshot(c.config)
	if err != nil || p.equal(c.current.Load()) {
		return false, err
	}
	c.current.Store(p)
	return true, nil
}

func (p *snapshot) equal(q *snapshot) bool {
	return slices.EqualFunc(p.certificate.Certificate, q.certificate.Certificate, bytes.Equal) &&
		p.roots.Equal(q.roots) && p.token == q.token
}

func loadSnapshot(c Config) (*snapshot, error) {
	set, err := c.chooseCredentials()
	if err != nil {
		return nil, err
	}
	cas, roots, err := pki.ReadPool(set.caFile)
	if err != nil {
		return nil, err
	}
	p := &snapshot{certificate: set.certificate, cas: cas, roots: roots, certFile: set.certFile, joined: set.joined}
	if c.TokenFile == "" {
		return p, nil
	}
	text, err := pki.ReadFile(c.TokenFile)
	if err != nil {
		return nil, err
	}
	p.token = strings.TrimSpace(string(text))
	if !isToken(p.token) {
		return nil, fmt.Errorf("%s holds no token: it needs one word of at most %d printable characters", c.TokenFile, maxTokenBytes)
	}
	return p, nil
}

// maxTokenBytes bounds a token, which is sent in a header of every request.
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

// CertFile returns the file that the host's certificate is from.
func (c *Client) CertFile() string { return c.current.Load().certFile }

// NotAfter returns when the host's certificate expires.
func (c *Client) NotAfter() time.Time { return c.leafCertificate().NotAfter }

func (c *Client) leafCertificate() *x509.Certificate { return c.current.Load().certificate.Leaf }

// ID returns the identity in the host's certificate.
func (c *Client) ID() (pki.ID, error) {
	leaf := c.leafCertificate()
	if serverOnly(leaf) {
		return pki.ID{}, fmt.Errorf("certificate %s is a receiver's certificate, for TLS servers, not a host's", c.current.Load().certFile)
	}
	id, err := pki.IDOf(leaf)
	if err != nil {
		return pki.ID{}, fmt.Errorf("certificate %s: %w", c.current.Load().certFile, err)
	}
	return id, nil
}

// serverOnly reports whether a certificate is for servers and not for clients.
func serverOnly(cert *x509.Certificate) bool {
	return slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// CheckValidity returns what the host itself can find wrong with its certificate: it is another
// host's, or not valid at that time.
func (c *Client) CheckValidity(host episode.Name, now time.Time) error {
	id, err := c.ID()
	if err != nil {
		return fmt.Errorf("%w; issue one with receiver pki issue %s", err, host)
	}
	leaf := c.leafCertificate()
	next := fmt.Sprintf("issue a new one with receiver pki issue %s", host)
	if c.current.Load().joined {
		next = fmt.Sprintf("join again: run 'receiver invite %s --again' on the receiver, and the line that it prints here", host)
	}
	switch {
	case id.Host != host:
		return fmt.Errorf("certificate %s is for host %s, but the configuration says host_id = %q",
			c.current.Load().certFile, id.Host, host)
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("certificate %s is not valid before %s, but this machine's clock says %s; check the clock",
			c.current.Load().certFile, pki.FormatTime(leaf.NotBefore), pki.FormatTime(now))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("certificate %s expired on %s (this machine's clock says %s); %s",
			c.current.Load().certFile, pki.FormatTime(leaf.NotAfter), pki.FormatTime(now), next)
	}
	return nil
}
