package gate

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
)

// Issuer signs the certificates of hosts that join, with the issuing CA of a receiver's identity
// directory.
type Issuer struct {
	path   string
	ca     pki.Authority
	domain string
	former []*x509.Certificate // CAs of hosts that a rotation will retire
	server []*x509.Certificate // the root that hosts trust; during a rotation also the new one, and its link
	hashes []string            // of the roots in server
}

// OpenIssuer loads the issuing CA of an identity directory. The error wraps [pki.ErrNoIssuing] if there
// is none.
func OpenIssuer(identity string) (*Issuer, error) {
	if identity == "" {
		return nil, fmt.Errorf("%w: %w", pki.ErrNoIssuing, pki.ErrNoIdentityDir)
	}
	f, err := pki.OpenDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", pki.ErrNoIssuing, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i := &Issuer{path: identity}
	if i.ca, err = f.LoadPairFile(pki.HostsIssuingFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", pki.ErrNoIssuing, err)
	}
	if err != nil {
		return nil, err
	}
	if i.domain, err = pki.TrustDomainOf(i.ca.Cert); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(pki.HostsIssuingFile), err)
	}
	if i.server, err = f.ReadCAs(pki.ServerCAFile); err != nil {
		return nil, err
	}
	i.hashes = pki.HashKeys(pki.RootsOf(i.server))
	i.former, err = f.ReadCAs(pki.RetiringCAsFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return i, err
}

// RootHash returns the [pki.HashKey] of the root that hosts trust.
func (i *Issuer) RootHash() [sha256.Size]byte { return pki.HashKey(i.server[0]) }

// ServerCAs returns the roots that hosts should trust, and how one follows from another, in PEM.
func (i *Issuer) ServerCAs() []byte {
	roots := pki.RootsOf(i.server)
	isRootKey := func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(roots, func(root *x509.Certificate) bool { return pki.HashKey(root) == pki.HashKey(ca) })
	}
	// No issuing CA, which the receiver sends with its certificate.
	return pki.EncodeCerts(slices.DeleteFunc(slices.Clone(i.server), func(ca *x509.Certificate) bool { return !isRootKey(ca) }))
}

// ServerCAHashes returns the [pki.HashKey] of each root that hosts should trust, in hex.
func (i *Issuer) ServerCAHashes() []string { return i.hashes }

// SignHost signs a certificate for a host and writes a copy of it to the records before it returns.
func (i *Issuer) SignHost(r Request, host episode.Name, now time.Time) (pki.Issued, error) {
	cert, err := i.ca.SignHost(host, i.domain, r.key, now, pki.DefaultLeafValid)
	if err != nil {
		return pki.Issued{}, err
	}
	if err := pki.RecordCertificate(pki.RecordsIn(i.path), cert); err != nil {
		return pki.Issued{}, err
	}
	return pki.Describe(cert, now), nil
}

// HasSigned reports whether an issuing CA signed the certificate of a caller: it came by joining or by
// renewal, and not by hand. One of a CA that a rotation will retire must also be on record: its key may
// have been stolen, and what a thief signs with it must end with the rotation.
func (i *Issuer) HasSigned(c Caller) bool {
	if len(c.peer) == 0 {
		return false
	}
	switch signer := i.signerOf(c.peer[0]); {
	case signer == nil:
		return false
	case signer.Equal(i.ca.Cert):
		return true
	}
	record, err := i.readRecord(pki.FormatSerial(c.peer[0].SerialNumber))
	return err == nil && record.Equal(c.peer[0])
}

// signerOf returns the issuing CA that signed a certificate, or nil.
func (i *Issuer) signerOf(cert *x509.Certificate) *x509.Certificate {
	if cert.CheckSignatureFrom(i.ca.Cert) == nil {
		return i.ca.Cert
	}
	for _, ca := range i.former {
		if !pki.IsRoot(ca) && cert.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// WillEnd reports whether the certificate of a caller is of a CA that the rotation in progress will
// retire.
func (i *Issuer) WillEnd(c Caller) bool {
	return len(c.peer) > 0 && i.isFormer(c.peer[0])
}

// WillEndSerial is [Issuer.WillEnd] for a certificate on record.
func (i *Issuer) WillEndSerial(serial string) bool {
	cert, err := i.readRecord(serial)
	return err == nil && i.isFormer(cert)
}

func (i *Issuer) isFormer(cert *x509.Certificate) bool {
	return slices.ContainsFunc(i.former, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil })
}

// Chain returns a certificate on record as PEM, followed by its issuing CA.
func (i *Issuer) Chain(serial string) ([]byte, error) {
	cert, err := i.readRecord(serial)
	if err != nil {
		return nil, err
	}
	signer := i.signerOf(cert)
	if signer == nil {
		return nil, fmt.Errorf("the issuing CA of the certificate %s is not here any more", serial)
	}
	return pki.Authority{Cert: signer}.ChainOf(cert), nil
}

func (i *Issuer) readRecord(serial string) (*x509.Certificate, error) {
	record, err := pki.OpenDir(pki.RecordsIn(i.path))
	if err != nil {
		return nil, err
	}
	defer record.Close()
	return pki.ReadRecord(record, serial+pki.CertSuffix)
}
