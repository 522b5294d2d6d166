// Package gate is the receiver's end of the certificates: it decides which hosts have access, and
// signs the certificates of hosts that join or renew.
//
// A [Gate] identifies the sender of each request by its certificate and, if configured, a token.
// What it trusts is loaded again without a restart. If the new files are not valid, the old ones
// stay. An [Issuer] signs with the hosts' issuing CA, a copy of which is in the identity directory,
// and writes each certificate to the records before it hands it out. [Config.RenewOwn] replaces the
// receiver's own certificate before that expires.
//
// Invariant: no host can write as another. The identity of a host comes only from its certificate.
// It is checked for each request, because an open connection outlives certificates, revocations and
// CAs.
package gate

import (
	"crypto/tls"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"cis490/internal/hostrecord"
	"cis490/internal/pki"
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

	join    JoinDoor            // set before the first connection
	records *hostrecord.Records // may be nil; set before the first connection
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
func (g *Gate) UseRecords(h *hostrecord.Records) { g.records = h }

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
	if own.Leaf.Equal(t.own.Leaf) || !own.isRenewed() && pki.CheckTime(t.own.Leaf, g.now()) == nil {
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

// Now returns the gate's clock.
func (g *Gate) Now() time.Time { return g.now() }
