package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"time"
)

// FormatSerial returns a serial number as it is in names of files and in messages: 32 hex digits.
func FormatSerial(serial *big.Int) string { return fmt.Sprintf("%032x", serial) }

// FormatTime returns a time as it is in messages.
func FormatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// FormatDay returns the day of a time as it is in messages.
func FormatDay(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// HashKey returns the SHA-256 of a certificate's SubjectPublicKeyInfo.
func HashKey(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// HashKeys returns the [HashKey] of certificates in hex, sorted.
func HashKeys(cas []*x509.Certificate) []string {
	hashes := make([]string, 0, len(cas))
	for _, ca := range cas {
		hash := HashKey(ca)
		hashes = append(hashes, hex.EncodeToString(hash[:]))
	}
	slices.Sort(hashes)
	return slices.Compact(hashes)
}

// Fingerprint returns the SHA-256 of a certificate in hex.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// CheckTime returns an error unless a certificate is valid now.
func CheckTime(cert *x509.Certificate, now time.Time) error {
	if now.After(cert.NotAfter) {
		return fmt.Errorf("the certificate expired on %s", FormatTime(cert.NotAfter))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("the certificate is not valid before %s, and this machine's clock says %s",
			FormatTime(cert.NotBefore), FormatTime(now))
	}
	return nil
}

// RenewalTime returns when a certificate should be replaced: after half its life, and a part of it
// that differs from certificate to certificate, so that hosts that joined together do not ask together.
func RenewalTime(cert *x509.Certificate) time.Time {
	const parts = 1 << 16
	life := cert.NotAfter.Sub(cert.NotBefore)
	part := new(big.Int).And(cert.SerialNumber, big.NewInt(parts-1)).Int64()
	return cert.NotBefore.Add(life/2 + life/16/parts*time.Duration(part)).Truncate(time.Second)
}

// AllowsUse reports whether a certificate is valid for a use. One that names no use is valid for
// all.
func AllowsUse(cert *x509.Certificate, use x509.ExtKeyUsage) bool {
	return len(cert.ExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, use) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// IsRoot reports whether a CA signed itself.
func IsRoot(ca *x509.Certificate) bool { return bytes.Equal(ca.RawSubject, ca.RawIssuer) }

// RootsOf returns the certificates that signed themselves.
func RootsOf(cas []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return !IsRoot(ca) || ca.CheckSignatureFrom(ca) != nil
	})
}

// WithoutCAs returns the certificates of cas that are not among others.
func WithoutCAs(cas, others []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(others, ca.Equal)
	})
}

// PoolOf returns a pool of CAs.
func PoolOf(cas []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range cas {
		pool.AddCert(ca)
	}
	return pool
}

// IsLink reports whether a certificate says, by a signature of a trusted root, that root follows it.
// An issuing CA also has the signature of its root, and its key is on the receiver: only a certificate
// that names the new root, byte for byte, is a link.
func IsLink(link, root *x509.Certificate, trusted []*x509.Certificate) bool {
	uris, err := uriNames(link)
	return err == nil && slices.Equal(uris, []string{LinkName(root).String()}) && HashKey(link) == HashKey(root) &&
		slices.ContainsFunc(trusted, func(ca *x509.Certificate) bool { return link.CheckSignatureFrom(ca) == nil })
}

// LinkName returns the name by which a link certificate names a root: the SHA-256 of all of it.
func LinkName(root *x509.Certificate) *url.URL {
	return &url.URL{Scheme: "cis490-root", Opaque: "sha256:" + Fingerprint(root)}
}
