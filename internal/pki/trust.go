package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/printable"
)

// Config names the files of a receiver.
type Config struct {
	CertFile     string // the receiver's certificate
	KeyFile      string
	ClientCAFile string // CAs of the hosts
	CRLFile      string // empty means that nothing is revoked
	TrustDomain  string
	TokensFile   string // empty means that no token is required
	// IdentityDir may hold the issuing CA of the hosts, and a renewed certificate of the receiver. It
	// may be missing, or empty.
	IdentityDir string
	Now         func() time.Time // nil means [time.Now]
}

// Files returns the configured files that [LoadTrust] reads.
func (c Config) Files() []string {
	files := []string{c.CertFile, c.KeyFile, c.ClientCAFile, c.CRLFile, c.TokensFile}
	return slices.DeleteFunc(files, func(path string) bool { return path == "" })
}

func (c Config) currentTime() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

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
	verified map[[sha256.Size]byte][][]*x509.Certificate // chains of a leaf; guarded by mu
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
	if err := checkTrustDomain(c.TrustDomain); err != nil {
		return nil, err
	}
	own, err := c.chooseServer(c.currentTime())
	if err != nil {
		return nil, err
	}
	cas, _, err := readPool(c.ClientCAFile)
	if err != nil {
		return nil, err
	}
	if err := checkPermitted(cas, c.TrustDomain); err != nil {
		return nil, fmt.Errorf("%s: %w", c.ClientCAFile, err)
	}
	pool, issuing := splitCAs(cas)
	t := &Trust{
		own: own, pool: pool, issuing: issuing, domain: c.TrustDomain,
		verified: make(map[[sha256.Size]byte][][]*x509.Certificate),
	}
	if err := t.loadIssuing(c.IdentityDir); err != nil {
		return nil, err
	}
	if t.revoked, err = readRevoked(c.CRLFile, append(cas, t.issuing...)); err != nil {
		return nil, err
	}
	if c.TokensFile != "" {
		text, err := readFile(c.TokensFile)
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
	if errors.Is(err, ErrNoIssuing) {
		return nil
	}
	if err != nil {
		return err
	}
	t.issuer, t.root = issuer, issuer.server[0].Raw
	t.issuing = append(t.issuing, issuer.ca.cert)
	return nil
}

// Issuer returns the issuer of host certificates, or nil if there is no issuing CA.
func (t *Trust) Issuer() *Issuer { return t.issuer }

// withServer returns a copy with another certificate of the receiver.
func (t *Trust) withServer(own serverPair) *Trust {
	return &Trust{
		own: own, pool: t.pool, domain: t.domain, issuing: t.issuing, issuer: t.issuer, root: t.root,
		revoked: t.revoked, tokens: t.tokens, verified: make(map[[sha256.Size]byte][][]*x509.Certificate),
	}
}

// splitCAs returns the CAs that are trusted, and those that one of them must vouch for, so that it
// can revoke them. A CA whose signer is not in the file is trusted itself.
func splitCAs(cas []*x509.Certificate) (trusted *x509.CertPool, issuing []*x509.Certificate) {
	trusted = x509.NewCertPool()
	for _, ca := range cas {
		signed := func(by *x509.Certificate) bool { return by != ca && ca.CheckSignatureFrom(by) == nil }
		if !isRoot(ca) && slices.ContainsFunc(cas, signed) {
			issuing = append(issuing, ca)
			continue
		}
		trusted.AddCert(ca)
	}
	return trusted, issuing
}

// CertFile returns the file that the receiver's own certificate is from.
func (t *Trust) CertFile() string { return t.own.file }

// NotAfter returns when the receiver's own certificate expires.
func (t *Trust) NotAfter() time.Time { return t.own.Leaf.NotAfter }

// Names returns the DNS names and addresses in the receiver's certificate.
func (t *Trust) Names() []string {
	return namesOf(t.own.Leaf)
}

// NotBefore returns when the receiver's own certificate becomes valid.
func (t *Trust) NotBefore() time.Time { return t.own.Leaf.NotBefore }

// loadPair loads a certificate and its key.
func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, err := readPEM(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readPEM(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load %s with key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// checkPermitted returns an error if all CAs are constrained to other trust domains, which would
// lock out every host.
func checkPermitted(cas []*x509.Certificate, domain string) error {
	for _, ca := range cas {
		if len(ca.PermittedURIDomains) == 0 || slices.Contains(ca.PermittedURIDomains, domain) {
			return nil
		}
	}
	return fmt.Errorf("the CA permits the trust domain %s, but the configuration says %s",
		quoteText(cas[0].PermittedURIDomains[0]), quoteText(domain))
}

// readRevoked reads a file of CRLs, each of which must be signed by one of cas. A list past its
// NextUpdate still counts: waiting must not restore access.
func readRevoked(path string, cas []*x509.Certificate) (map[revocationKey]struct{}, error) {
	revoked := make(map[revocationKey]struct{})
	if path == "" {
		return revoked, nil
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	lists, err := parseCRLs(data, path)
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

// authorizePeer returns the host of the first certificate of peer if it has access now, and when
// the access expires.
func (t *Trust) authorizePeer(peer []*x509.Certificate, now time.Time) (episode.Name, time.Time, error) {
	if len(peer) == 0 {
		return "", time.Time{}, fmt.Errorf("%w: none was presented", ErrIdentity)
	}
	ends, err := t.verifyChain(peer, now)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	id, err := idOf(peer[0])
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if id.TrustDomain != t.domain {
		return "", time.Time{}, fmt.Errorf("%w: it is of the trust domain %s, not %s", ErrIdentity, id.TrustDomain, t.domain)
	}
	return id.Host, ends, nil
}

// maxVerified bounds the cache of chains. A larger lab only verifies signatures again.
const maxVerified = 1024

// verifyChain returns an error unless a valid chain leads from the leaf to the pool, and when the
// last such chain expires. It verifies signatures once per leaf, and validity and revocations each
// time.
func (t *Trust) verifyChain(peer []*x509.Certificate, now time.Time) (time.Time, error) {
	leaf := sha256.Sum256(peer[0].Raw)
	t.mu.Lock()
	chains := t.verified[leaf]
	t.mu.Unlock()
	if ends, err := t.latestExpiry(chains, now); err == nil {
		return ends, nil
	}
	intermediates := x509.NewCertPool()
	for _, cert := range append(peer[1:len(peer):len(peer)], t.issuing...) {
		intermediates.AddCert(cert)
	}
	chains, err := peer[0].Verify(x509.VerifyOptions{
		Roots:         t.pool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, verifyError(peer[0], now, err)
	}
	t.mu.Lock()
	if len(t.verified) >= maxVerified {
		clear(t.verified)
	}
	t.verified[leaf] = chains
	t.mu.Unlock()
	return t.latestExpiry(chains, now)
}

// latestExpiry returns when the last of the valid chains expires.
func (t *Trust) latestExpiry(chains [][]*x509.Certificate, now time.Time) (time.Time, error) {
	var last time.Time
	err := errors.New("no chain is known")
	for _, chain := range chains {
		cerr := t.chainValid(chain, now)
		if cerr != nil {
			err = cerr
			continue
		}
		if ends := chainExpiry(chain); ends.After(last) {
			last = ends
		}
	}
	if !last.IsZero() {
		return last, nil
	}
	return last, err
}

// chainExpiry returns when the first certificate of a chain expires.
func chainExpiry(chain []*x509.Certificate) time.Time {
	ends := chain[0].NotAfter
	for _, cert := range chain[1:] {
		if cert.NotAfter.Before(ends) {
			ends = cert.NotAfter
		}
	}
	return ends
}

// chainValid returns an error if a verified chain is expired or revoked now.
func (t *Trust) chainValid(chain []*x509.Certificate, now time.Time) error {
	for i, cert := range chain {
		if err := checkTime(cert, now); err != nil {
			return err
		}
		if i+1 == len(chain) {
			break
		}
		if _, revoked := t.revoked[newRevocationKey(chain[i+1], cert.SerialNumber)]; revoked {
			return fmt.Errorf("the certificate %s was revoked", formatSerial(cert.SerialNumber))
		}
	}
	return nil
}

func checkTime(cert *x509.Certificate, now time.Time) error {
	if now.After(cert.NotAfter) {
		return fmt.Errorf("the certificate expired on %s", formatTime(cert.NotAfter))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the certificate is not valid before %s, and this machine's clock says %s",
			formatTime(cert.NotBefore), formatTime(now))
	}
	return nil
}

// verifyError returns our own error for the common case, and otherwise that of x509, which may have
// text of the certificate.
func verifyError(leaf *x509.Certificate, now time.Time, err error) error {
	if err := checkTime(leaf, now); err != nil {
		return err
	}
	return fmt.Errorf("it does not lead to a CA of the hosts: %s", printable.Text(err.Error()))
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
