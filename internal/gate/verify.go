package gate

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
	"cis490/internal/printable"
)

// authorizePeer returns the host of the first certificate of peer if it has access now, and when
// the access expires.
func (t *Trust) authorizePeer(peer []*x509.Certificate, now time.Time) (episode.Name, time.Time, error) {
	if len(peer) == 0 {
		return "", time.Time{}, fmt.Errorf("%w: none was presented", ErrIdentity)
	}
	leaf, ends, err := t.verifyChain(peer, now)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	id, err := leaf.id, leaf.idErr
	if err != nil {
		return "", time.Time{}, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if id.TrustDomain != t.domain {
		return "", time.Time{}, fmt.Errorf("%w: it is of the trust domain %s, not %s", ErrIdentity, id.TrustDomain, t.domain)
	}
	return id.Host, ends, nil
}

// verifiedLeaf is what does not change of a leaf while a [Trust] is in use.
type verifiedLeaf struct {
	chains [][]*x509.Certificate // whose signatures are valid
	id     pki.ID
	idErr  error // why it has no identity
}

// maxVerified bounds the cache of leaves. A larger lab only verifies signatures again.
const maxVerified = 1024

// verifyChain returns an error unless a valid chain leads from the leaf to the pool, and when the
// last such chain expires. It verifies signatures once per leaf, and validity and revocations each
// time.
func (t *Trust) verifyChain(peer []*x509.Certificate, now time.Time) (verifiedLeaf, time.Time, error) {
	sum := sha256.Sum256(peer[0].Raw)
	t.mu.Lock()
	leaf := t.verified[sum]
	t.mu.Unlock()
	if ends, err := t.latestExpiry(leaf.chains, now); err == nil {
		return leaf, ends, nil
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
		return verifiedLeaf{}, time.Time{}, verifyError(peer[0], now, err)
	}
	leaf = verifiedLeaf{chains: chains}
	leaf.id, leaf.idErr = pki.IDOf(peer[0])
	t.mu.Lock()
	if len(t.verified) >= maxVerified {
		clear(t.verified)
	}
	t.verified[sum] = leaf
	t.mu.Unlock()
	ends, err := t.latestExpiry(chains, now)
	return leaf, ends, err
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
		if err := pki.CheckTime(cert, now); err != nil {
			return err
		}
		if i+1 == len(chain) {
			break
		}
		if _, revoked := t.revoked[newRevocationKey(chain[i+1], cert.SerialNumber)]; revoked {
			return fmt.Errorf("the certificate %s was revoked", pki.FormatSerial(cert.SerialNumber))
		}
	}
	return nil
}

// verifyError returns our own error for the common case, and otherwise that of x509, which may have
// text of the certificate.
func verifyError(leaf *x509.Certificate, now time.Time, err error) error {
	if err := pki.CheckTime(leaf, now); err != nil {
		return err
	}
	return fmt.Errorf("it does not lead to a CA of the hosts: %s", printable.Text(err.Error()))
}
