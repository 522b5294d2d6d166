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
			return g.handshake(g.current.Load()), nil
		},
	}
}

func (g *Gate) handshake(t *Trust) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Certificates:           []tls.Certificate{t.certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              t.pool,
		Time:                   g.now,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := t.authorize(state.PeerCertificates, g.now())
			return err
		},
	}
}

// A Caller is a host that may come in.
type Caller struct {
	Host     episode.Name
	NotAfter time.Time // when its certificate ends
	Method   string    // "mtls" or "proxy", with "+token" if there was one as well
}

// Caller returns who makes a request. It must be asked for each request, not
// for each connection. The error is an [ErrIdentity] or an [ErrToken]; its text
// is fit for the caller and for a log.
func (g *Gate) Caller(r *http.Request) (Caller, error) {
	if r.TLS == nil {
		return Caller{}, ErrIdentity
	}
	return g.caller(r, r.TLS.PeerCertificates, "mtls")
}

func (g *Gate) caller(r *http.Request, peer []*x509.Certificate, method string) (Caller, error) {
	t := g.current.Load()
	host, err := t.authorize(peer, g.now())
	if err != nil {
		return Caller{}, err
	}
	c := Caller{Host: host, NotAfter: peer[0].NotAfter, Method: method}
	if t.tokens == nil {
		return c, nil
	}
	if err := t.tokens.check(r, host); err != nil {
		return Caller{}, err
	}
	c.Method += "+token"
	return c, nil
}
