package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"cis490/internal/episode"
)

// DefaultLeafValid is how long another certificate is valid if nothing else is asked for.
const DefaultLeafValid = 365 * 24 * time.Hour

// Backdate is how far NotBefore is in the past, because a machine without a battery clock may
// be behind.
const Backdate = time.Hour

// Authority is a certificate with its key.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// ChainOf returns a certificate that a signed, in PEM, followed by a's own unless that is a root.
func (a Authority) ChainOf(cert *x509.Certificate) []byte {
	chain := EncodePEM(PEMCertificate, cert.Raw)
	if !IsRoot(a.Cert) {
		chain = append(chain, EncodePEM(PEMCertificate, a.Cert.Raw)...)
	}
	return chain
}

// EncodePair returns what [Dir.LoadPairFile] loads.
func (a Authority) EncodePair() ([]byte, error) {
	key, err := EncodeKey(a.Key, nil)
	return append(key, EncodePEM(PEMCertificate, a.Cert.Raw)...), err
}

// SignCertificate sets serial and validity of a template and signs it. No certificate outlasts its
// CA.
func (a Authority) SignCertificate(template *x509.Certificate, public crypto.PublicKey, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	if !now.Before(a.Cert.NotAfter) {
		return nil, fmt.Errorf("the CA %s expired on %s; create a new one with receiver pki init in another directory",
			QuoteText(a.Cert.Subject.CommonName), FormatDay(a.Cert.NotAfter))
	}
	serial, err := NewSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.BasicConstraintsValid = true
	if !template.IsCA {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	template.NotBefore = now.Add(-Backdate)
	template.NotAfter = now.Add(valid)
	if a.Cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.Cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, public, a.Key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", QuoteText(template.Subject.CommonName), err)
	}
	return x509.ParseCertificate(der)
}

// NewSerial returns 128 random bits, so that serials stay unique after a restored backup.
func NewSerial() (*big.Int, error) {
	bits := make([]byte, 16)
	for bytes.Equal(bits, make([]byte, 16)) {
		if _, err := rand.Read(bits); err != nil {
			return nil, fmt.Errorf("generate serial: %w", err)
		}
	}
	return new(big.Int).SetBytes(bits), nil
}

// SignHost signs the certificate of a host.
func (a Authority) SignHost(host episode.Name, domain string, key crypto.PublicKey, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	return a.SignCertificate(&x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName(host)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: domain, Path: idHost + string(host)}},
	}, key, now, cmp.Or(valid, DefaultLeafValid))
}

// commonName returns the subject for a host. It is for people only: the URI is the identity.
//
// OpenSSL, and so nginx, takes a common name with a dot for a DNS name if the certificate has none,
// and the issuing CA may sign no DNS name. A space makes it none.
func commonName(host episode.Name) string {
	name := string(host)
	if strings.Contains(name, ".") {
		name = "host " + name
	}
	return name[:min(len(name), 64)] // what X.520 allows
}

// SignServer signs the certificate of a receiver.
func (a Authority) SignServer(key crypto.PublicKey, names []string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	template, err := ParseNames(names)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "server"}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.SignCertificate(template, key, now, cmp.Or(valid, DefaultLeafValid))
}

// SignCRL signs a list that is valid until its CA expires. Operators renew it by hand, and one that
// expires would teach them to ignore that.
func (a Authority) SignCRL(entries []x509.RevocationListEntry, number *big.Int, now time.Time) ([]byte, error) {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries,
		Number:                    number,
		ThisUpdate:                now.Add(-Backdate),
		NextUpdate:                a.Cert.NotAfter,
	}, a.Cert, a.Key)
	if err != nil {
		return nil, fmt.Errorf("sign the list of %s: %w", QuoteText(a.Cert.Subject.CommonName), err)
	}
	return der, nil
}
