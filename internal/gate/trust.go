package gate

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"cis490/internal/pki"
)

// Trust is what a receiver trusts. It is immutable.
type Trust struct {
	own     serverPair
	pool    *x509.CertPool
	domain  string
	issuing []*x509.Certificate // for a leaf that comes without its chain
	issuer  *Issuer             // nil if no host can join
	root    []byte              // DER of the root that hosts trust; nil if no host can join
	revoked map[revocationKey]struct{}
	tokens  Tokens // nil if no tokens are required

	mu       sync.Mutex
	verified map[[sha256.Size]byte]verifiedLeaf // by the hash of the leaf; guarded by mu
}

// revocationKey identifies a certificate as a CRL does. It has the CA's key instead of its name:
// neither names of CAs nor serials of different CAs are unique.
type revocationKey struct{ caKey, serial string }

func newRevocationKey(ca *x509.Certificate, serial *big.Int) revocationKey {
	return revocationKey{string(ca.RawSubjectPublicKeyInfo), serial.String()}
}

// LoadTrust loads and checks all files of c. It returns all or nothing: without its CRL, or with an
// empty pool, a receiver would admit or refuse the wrong hosts.
func LoadTrust(c Config) (*Trust, error) {
	if err := pki.CheckTrustDomain(c.TrustDomain); err != nil {
		return nil, err
	}
	own, err := c.chooseServer(c.currentTime())
	if err != nil {
		return nil, err
	}
	cas, _, err := pki.ReadPool(c.ClientCAFile)
	if err != nil {
		return nil, err
	}
	if err := checkPermitted(cas, c.TrustDomain); err != nil {
		return nil, fmt.Errorf("%s: %w", c.ClientCAFile, err)
	}
	pool, issuing := splitCAs(cas)
	t := &Trust{
		own: own, pool: pool, issuing: issuing, domain: c.TrustDomain,
		verified: make(map[[sha256.Size]byte]verifiedLeaf),
	}
	if err := t.loadIssuing(c.IdentityDir); err != nil {
		return nil, err
	}
	if t.revoked, err = readRevoked(c.CRLFile, append(cas, t.issuing...)); err != nil {
		return nil, err
	}
	if c.TokensFile != "" {
		text, err := pki.ReadFile(c.TokensFile)
		if err != nil {
			return nil, err
		}
		if t.tokens, err = ParseTokens(c.TokensFile, text); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// loadIssuing loads the issuing CA, if there is one.
func (t *Trust) loadIssuing(identity string) error {
	if identity == "" {
		return nil
	}
	issuer, err := OpenIssuer(identity)
	if errors.Is(err, pki.ErrNoIssuing) {
		return nil
	}
	if err != nil {
		return err
	}
	t.issuer, t.root = issuer, issuer.server[0].Raw
	t.issuing = append(t.issuing, issuer.ca.Cert)
	return nil
}

// Issuer returns the issuer of host certificates, or nil if there is no issuing CA.
func (t *Trust) Issuer() *Issuer { return t.issuer }

// withServer returns a copy with another certificate of the receiver.
func (t *Trust) withServer(own serverPair) *Trust {
	return &Trust{
		own: own, pool: t.pool, domain: t.domain, issuing: t.issuing, issuer: t.issuer, root: t.root,
		revoked: t.revoked, tokens: t.tokens, verified: make(map[[sha256.Size]byte]verifiedLeaf),
	}
}

// splitCAs returns the CAs that are trusted, and those that one of them must vouch for, so that it
// can revoke them. A CA whose signer is not in the file is trusted itself.
func splitCAs(cas []*x509.Certificate) (trusted *x509.CertPool, issuing []*x509.Certificate) {
	trusted = x509.NewCertPool()
	for _, ca := range cas {
		signed := func(by *x509.Certificate) bool { return by != ca && ca.CheckSignatureFrom(by) == nil }
		if !pki.IsRoot(ca) && slices.ContainsFunc(cas, signed) {
			issuing = append(issuing, ca)
			continue
		}
		trusted.AddCert(ca)
	}
	return trusted, issuing
}

// CertFile returns the file that the receiver's own certificate is from.
func (t *Trust) CertFile() string { return t.own.file }

// IsOwn reports whether cert is the receiver's own certificate.
func (t *Trust) IsOwn(cert *x509.Certificate) bool { return t.own.Leaf.Equal(cert) }

// NotAfter returns when the receiver's own certificate expires.
func (t *Trust) NotAfter() time.Time { return t.own.Leaf.NotAfter }

// Names returns the DNS names and addresses in the receiver's certificate.
func (t *Trust) Names() []string {
	return pki.NamesOf(t.own.Leaf)
}

// NotBefore returns when the receiver's own certificate becomes valid.
func (t *Trust) NotBefore() time.Time { return t.own.Leaf.NotBefore }

// checkPermitted returns an error if all CAs are constrained to other trust domains, which would
// lock out every host.
func checkPermitted(cas []*x509.Certificate, domain string) error {
	for _, ca := range cas {
		if len(ca.PermittedURIDomains) == 0 || slices.Contains(ca.PermittedURIDomains, domain) {
			return nil
		}
	}
	return fmt.Errorf("the CA permits the trust domain %s, but the configuration says %s",
		pki.QuoteText(cas[0].PermittedURIDomains[0]), pki.QuoteText(domain))
}

// readRevoked reads a file of CRLs, each of which must be signed by one of cas. A list past its
// NextUpdate still counts: waiting must not restore access.
func readRevoked(path string, cas []*x509.Certificate) (map[revocationKey]struct{}, error) {
	revoked := make(map[revocationKey]struct{})
	if path == "" {
		return revoked, nil
	}
	data, err := pki.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lists, err := pki.ParseCRLs(data, path)
	if err != nil {
		return nil, err
	}
	for _, crl := range lists {
		signer := slices.IndexFunc(cas, func(ca *x509.Certificate) bool { return crl.CheckSignatureFrom(ca) == nil })
		if signer < 0 {
			return nil, fmt.Errorf("%s is signed by none of the hosts' CAs", path)
		}
		for _, entry := range crl.RevokedCertificateEntries {
			revoked[newRevocationKey(cas[signer], entry.SerialNumber)] = struct{}{}
		}
	}
	return revoked, nil
}
