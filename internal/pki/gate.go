package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
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
