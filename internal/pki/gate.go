package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/episode"
)

var (
	// ErrIdentity says that a caller's certificate gives no access.
	ErrIdentity = errors.New("client certificate refused")
	// ErrToken says that the certificate is valid, and the token is missing or wrong.
	ErrToken = errors.New("token refused")
)

// Gate decides which hosts have access to a receiver.
type Gate struct {
	config Config
	now    func() time.Time

	reload  sync.Mutex // one reload at a time, so that the latest wins
	current atomic.Pointer[Trust]
}

// Open returns a gate, or an error if any of the files is not valid.
func Open(c Config) (*Gate, error) {
	g := &Gate{config: c, now: c.Now}
	if g.now == nil {
		g.now = time.Now
	}
	if err := g.Reload(); err != nil {
		return nil, err
	}
	return g, nil
}

// Reload reads all files again. If any is not valid, it changes nothing and returns why. The caller
// must log that, because the gate continues with the old files.
func (g *Gate) Reload() error {
	g.reload.Lock()
	defer g.reload.Unlock()
	t, err := LoadTrust(g.config)
	if err != nil {
		return err
	}
	g.current.Store(t)
	return nil
}

// Trust returns what the gate trusts now.
func (g *Gate) Trust() *Trust { return g.current.Load() }

// TLSConfig returns the receiver's end of mutual TLS. Each handshake uses the current [Trust].
//
// Session tickets are off in both configurations, because a resumed session would skip checks of
// the certificate. Neither is cloned, which would copy ticket keys.
func (g *Gate) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return g.configFor(g.current.Load()), nil
		},
	}
}

func (g *Gate) configFor(t *Trust) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Certificates:           []tls.Certificate{t.certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              t.pool,
		Time:                   g.now,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, _, err := t.authorizePeer(state.PeerCertificates, g.now())
			return err
		},
	}
}

// Caller is a host that has access.
type Caller struct {
	Host     episode.Name
	NotAfter time.Time // when its certificate expires
	// Ends is when the access ends without a reload: the first expiry of its certificate or of its
	// CAs. It is zero unless a [Gate] set it.
	AccessEnds time.Time
	Method     string // "mtls" or "proxy", with "+token" if a token was checked too

	peer  []*x509.Certificate // what the caller presented, for [Gate.RecheckCaller]
	token presentedToken      // zero if tokens were not required
}

// IdentifyCaller returns the sender of a request. It must be called for each request, not for each
// connection. The error is an [ErrIdentity] or an [ErrToken], whose text may be sent and logged.
func (g *Gate) IdentifyCaller(r *http.Request) (Caller, error) {
	if r.TLS == nil {
		return Caller{}, ErrIdentity
	}
	return g.identifyPeer(r, r.TLS.PeerCertificates, "mtls")
}

// RecheckCaller checks again whether a caller has access, with what it presented, the files of the
// last [Gate.Reload] and the current time. It returns the updated caller, or an error as
// [Gate.IdentifyCaller] does.
func (g *Gate) RecheckCaller(c Caller) (Caller, error) {
	return g.checkCaller(g.current.Load(), c)
}

// Now returns the gate's clock.
func (g *Gate) Now() time.Time { return g.now() }

func (g *Gate) identifyPeer(r *http.Request, peer []*x509.Certificate, method string) (Caller, error) {
	t := g.current.Load()
	c := Caller{Method: method, peer: peer}
	if t.tokens != nil {
		c.Method += "+token"
		token, err := parseBearer(r.Header)
		c.token = presentedToken{sha256.Sum256([]byte(token)), err}
	}
	return g.checkCaller(t, c)
}

// checkCaller completes c from what it presented.
func (g *Gate) checkCaller(t *Trust, c Caller) (Caller, error) {
	var err error
	if c.Host, c.AccessEnds, err = t.authorizePeer(c.peer, g.now()); err != nil {
		return Caller{}, err
	}
	c.NotAfter = c.peer[0].NotAfter
	if t.tokens == nil {
		return c, nil
	}
	if err := t.tokens.checkToken(c.token, c.Host); err != nil {
		return Caller{}, err
	}
	return c, nil
}

// IdentifyForwarded is [Gate.IdentifyCaller] for a request from a proxy on this machine that
// terminated TLS. The proxy put the caller's certificate into the header called name, as RFC 9440
// (Client-Cert) or as URL-escaped PEM (nginx). The gate trusts the proxy only for the caller's
// possession of the key: it verifies the certificate itself, against the same CAs and lists. The
// header must occur exactly once. Otherwise a proxy that appends its own to the caller's would let
// the caller choose.
//
// The request must come from a listener that only the proxy can reach.
func (g *Gate) IdentifyForwarded(r *http.Request, name string) (Caller, error) {
	values := r.Header.Values(name)
	if len(values) != 1 {
		return Caller{}, fmt.Errorf("%w: the proxy sent %d fields %s, not one", ErrIdentity, len(values), name)
	}
	cert, err := parseForwardedCert(values[0])
	if err != nil {
		return Caller{}, fmt.Errorf("%w: the field %s: %w", ErrIdentity, name, err)
	}
	return g.identifyPeer(r, []*x509.Certificate{cert}, "proxy")
}

func parseForwardedCert(value string) (*x509.Certificate, error) {
	if inner, ok := strings.CutPrefix(value, ":"); ok {
		encoded, ok := strings.CutSuffix(inner, ":")
		if !ok {
			return nil, errors.New("no byte sequence of RFC 9440")
		}
		der, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}
