package pki

import (
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
	// ErrToken says that the certificate is good and the token is missing or wrong.
	ErrToken = errors.New("token refused")
)

// A Gate decides who comes in to a receiver.
type Gate struct {
	config Config
	now    func() time.Time

	reload  sync.Mutex // one reload at a time, so that an older one cannot win
	current atomic.Pointer[Trust]
}

// Open returns a gate, or an error if any of the files is not good.
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

// Reload reads all files anew. If any is not good, nothing changes and the
// error says why; the caller must log it, because the gate works on with what
// it had.
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

// Trust returns what the gate believes now.
func (g *Gate) Trust() *Trust { return g.current.Load() }

// TLS returns the receiver's end of mutual TLS. Each handshake gets a
// configuration made of the current [Trust].
//
// Tickets are off in both configurations, and neither is cloned, which would
// carry ticket keys along: a resumed session would skip checks of the
// certificate.
func (g *Gate) TLS() *tls.Config {
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
			_, _, err := t.authorize(state.PeerCertificates, g.now())
			return err
		},
	}
}

// A Caller is a host that may come in.
type Caller struct {
	Host     episode.Name
	NotAfter time.Time // when its certificate ends
	// Ends is when the caller loses access without a reload: the end of its certificate
	// or of one of the CAs that vouch for it, whichever comes first. It is known
	// only to the [Gate].
	Ends   time.Time
	Method string // "mtls" or "proxy", with "+token" if there was one as well

	peer  []*x509.Certificate // what it presented, for [Gate.Recheck]
	token presentedToken      // zero if tokens were not required
}

// Caller returns who makes a request. It must be asked for each request, not
// for each connection. The error is an [ErrIdentity] or an [ErrToken]; its text
// is fit for the caller and for a log.
func (g *Gate) Caller(r *http.Request) (Caller, error) {
	if r.TLS == nil {
		return Caller{}, ErrIdentity
	}
	return g.identify(r, r.TLS.PeerCertificates, "mtls")
}

// Recheck asks again whether a caller that came in has access, with the certificate
// and the token that it presented: against the files as of the last [Gate.Reload],
// and at this time. It returns the caller as the gate sees it now. The error is as
// that of [Gate.Caller].
func (g *Gate) Recheck(c Caller) (Caller, error) {
	return g.check(g.current.Load(), c)
}

// Now returns the time by which the gate decides.
func (g *Gate) Now() time.Time { return g.now() }

func (g *Gate) identify(r *http.Request, peer []*x509.Certificate, method string) (Caller, error) {
	t := g.current.Load()
	c := Caller{Method: method, peer: peer}
	if t.tokens != nil {
		c.Method += "+token"
		c.token = readToken(r.Header)
	}
	return g.check(t, c)
}

// check completes c with what t and the clock say of what it presented.
func (g *Gate) check(t *Trust, c Caller) (Caller, error) {
	var err error
	if c.Host, c.Ends, err = t.authorize(c.peer, g.now()); err != nil {
		return Caller{}, err
	}
	c.NotAfter = c.peer[0].NotAfter
	if t.tokens == nil {
		return c, nil
	}
	if err := t.tokens.check(c.token, c.Host); err != nil {
		return Caller{}, err
	}
	return c, nil
}
