package gate

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
)

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

// Serial returns the serial number of that certificate, or "".
func (c Caller) Serial() string {
	if len(c.peer) == 0 {
		return ""
	}
	return pki.FormatSerial(c.peer[0].SerialNumber)
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
	ders, err := pki.DecodePEM(chain, "the chain", pki.PEMCertificate)
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
	if err := g.records.CheckReplaced(host, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	return nil
}
