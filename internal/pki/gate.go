package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

	join    JoinDoor     // set before the first connection
	records *HostRecords // may be nil; set before the first connection
}

// JoinDoor says when a machine without a certificate may open a connection, to ask for one.
type JoinDoor struct {
	Protocol string      // the ALPN name of such connections
	IsOpen   func() bool // called for each of them
}

// ServeJoin makes the gate accept connections of machines that have no certificate yet. It must be
// called before [Gate.TLSConfig].
func (g *Gate) ServeJoin(door JoinDoor) { g.join = door }

// UseRecords makes the gate refuse certificates that the records say were replaced. It must be
// called before [Gate.TLSConfig].
func (g *Gate) UseRecords(h *HostRecords) { g.records = h }

// Open returns a gate, or an error if any of the files is not valid.
func Open(c Config) (*Gate, error) {
	g := &Gate{config: c, now: c.currentTime}
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

// UseRenewed uses the certificate that [Config.RenewOwn] wrote, and reports whether it is another than
// before. It also leaves one that is not valid now for one that is. Unlike [Gate.Reload] it reads no
// other file, which an operator may be changing.
func (g *Gate) UseRenewed() (changed bool, err error) {
	g.reload.Lock()
	defer g.reload.Unlock()
	own, err := g.config.chooseServer(g.now())
	if err != nil {
		return false, err
	}
	t := g.current.Load()
	if own.Leaf.Equal(t.own.Leaf) || !own.isRenewed() && checkTime(t.own.Leaf, g.now()) == nil {
		return false, nil
	}
	g.current.Store(t.withServer(own))
	return true, nil
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
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			t := g.current.Load()
			if g.isJoin(t, hello) {
				return g.joinConfigFor(t), nil
			}
			return g.configFor(t), nil
		},
	}
}

// isJoin reports whether a client offers the protocol of joining, and no other, while an
// invitation is open. A client that offers another protocol too gets that one, and must have a
// certificate.
func (g *Gate) isJoin(t *Trust, hello *tls.ClientHelloInfo) bool {
	return g.join.IsOpen != nil && t.root != nil && slices.Equal(hello.SupportedProtos, []string{g.join.Protocol}) && g.join.IsOpen()
}

// joinConfigFor returns the configuration for a machine that asks for its first certificate. It
// knows the root only by its hash, so the chain has the root too.
func (g *Gate) joinConfigFor(t *Trust) *tls.Config {
	certificate := t.own.Certificate
	certificate.Certificate = append(slices.Clone(certificate.Certificate), t.root)
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{g.join.Protocol},
		Certificates:           []tls.Certificate{certificate},
		ClientAuth:             tls.NoClientCert,
		Time:                   g.now,
	}
}

func (g *Gate) configFor(t *Trust) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Certificates:           []tls.Certificate{t.own.Certificate},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              t.pool,
		Time:                   g.now,
		VerifyConnection: func(state tls.ConnectionState) error {
			host, _, err := t.authorizePeer(state.PeerCertificates, g.now())
			if err != nil {
				return err
			}
			return g.checkReplaced(host, state.PeerCertificates[0])
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

// Certificate returns the certificate that the caller presented. It is nil unless a [Gate] set it.
func (c Caller) Certificate() *x509.Certificate {
	if len(c.peer) == 0 {
		return nil
	}
	return c.peer[0]
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

// CheckIssued returns an error if a certificate that an [Issuer] has just signed gives no access: the
// issuing CA was revoked, say, or is not below the configured CAs.
func (g *Gate) CheckIssued(chain []byte) error {
	ders, err := decodeBlocks(chain, "the chain", pemCertificate)
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		certs = append(certs, cert)
	}
	_, _, err = g.current.Load().authorizePeer(certs, g.now())
	return err
}

// Now returns the gate's clock.
func (g *Gate) Now() time.Time { return g.now() }

func (g *Gate) identifyPeer(r *http.Request, peer []*x509.Certificate, method string) (Caller, error) {
	t := g.current.Load()
	c := Caller{Method: method, peer: peer}
	if t.tokens != nil {
		c.Method += "+token"
		c.token = readToken(r.Header)
	}
	return g.checkCaller(t, c)
}

// checkCaller completes c from what it presented.
func (g *Gate) checkCaller(t *Trust, c Caller) (Caller, error) {
	var err error
	if c.Host, c.AccessEnds, err = t.authorizePeer(c.peer, g.now()); err != nil {
		return Caller{}, err
	}
	if err := g.checkReplaced(c.Host, c.peer[0]); err != nil {
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

// checkReplaced returns an error if a certificate of host was replaced by one that it got later.
func (g *Gate) checkReplaced(host episode.Name, cert *x509.Certificate) error {
	if err := g.records.checkReplaced(host, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return nil
}
