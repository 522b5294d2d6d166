package pki

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"cis490/internal/episode"
)

// RevokeHost adds all certificates of host to dir/hosts.crl and returns them. It keeps the entries
// of the list. It continues after a record that it cannot read, and then returns an error which
// says that the host may still have access.
func RevokeHost(dir string, host episode.Name, now time.Time) ([]Issued, error) {
	f, ca, err := openToRevoke(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// An unreadable list is not replaced: that would restore the access of hosts on it.
	crl, err := readCRL(f, ca.cert)
	if err != nil {
		return nil, err
	}
	certs, broken := readRecords(f)
	certs = slices.DeleteFunc(certs, func(cert *x509.Certificate) bool {
		id, err := idOf(cert)
		return err != nil || id.Host != host
	})
	if len(certs) == 0 {
		return nil, errors.Join(fmt.Errorf("no certificate of host %s was issued from %s; see receiver pki list", host, f.path), broken)
	}
	var serials []*big.Int
	for _, cert := range certs {
		serials = append(serials, cert.SerialNumber)
	}
	if crl, err = extendCRL(f, ca, crl, serials, cmp.Or(now, time.Now())); err != nil {
		return nil, err
	}
	var revoked []Issued
	for _, cert := range certs {
		revoked = append(revoked, describeIssued(cert, now, crl))
	}
	if broken != nil {
		broken = fmt.Errorf("host %s may hold a certificate that is not revoked: %w", host, broken)
	}
	return revoked, broken
}

// extendCRL adds certificates to a list, which may be nil, and writes it.
func extendCRL(f *pemDir, ca authority, crl *x509.RevocationList, serials []*big.Int, now time.Time) (*x509.RevocationList, error) {
	var entries []x509.RevocationListEntry
	number := big.NewInt(1)
	if crl != nil {
		entries = crl.RevokedCertificateEntries
		if crl.Number != nil {
			number.Add(number, crl.Number)
		}
	}
	for _, serial := range serials {
		if isRevoked(crl, serial) {
			continue
		}
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
	}
	if err := writeCRL(f, ca, entries, number, now); err != nil {
		return nil, err
	}
	return readCRL(f, ca.cert)
}

// writeCRL signs and writes a list that is valid until its CA expires. Operators renew it by hand,
// and one that expires would teach them to ignore that.
func writeCRL(f *pemDir, ca authority, entries []x509.RevocationListEntry, number *big.Int, now time.Time) error {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries,
		Number:                    number,
		ThisUpdate:                now.Add(-backdate),
		NextUpdate:                ca.cert.NotAfter,
	}, ca.cert, ca.key)
	if err != nil {
		return fmt.Errorf("sign %s: %w", f.Path(crlFile), err)
	}
	return f.writeCert(crlFile, encodePEM(pemCRL, der))
}

// readCRL reads the list of a CA directory. It returns nil if there is none.
func readCRL(f *pemDir, ca *x509.Certificate) (*x509.RevocationList, error) {
	found, err := f.exists(crlFile)
	if err != nil || !found {
		return nil, err
	}
	data, err := f.read(crlFile)
	if err != nil {
		return nil, err
	}
	lists, err := parseCRLs(data, f.Path(crlFile))
	if err != nil {
		return nil, err
	}
	if len(lists) != 1 {
		return nil, fmt.Errorf("%s holds %d lists, not one", f.Path(crlFile), len(lists))
	}
	if err := lists[0].CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("%s is not signed by %s: %w", f.Path(crlFile), f.Path(hostsCA+certSuffix), err)
	}
	return lists[0], nil
}

// parseCRLs parses one or more lists. It refuses a list with a critical extension, which says that
// the list is incomplete.
func parseCRLs(data []byte, path string) ([]*x509.RevocationList, error) {
	ders, err := decodeBlocks(data, path, pemCRL)
	if err != nil {
		return nil, err
	}
	var lists []*x509.RevocationList
	for _, der := range ders {
		crl, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		for _, extension := range crl.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("%s has the critical extension %s, which is not supported; use a full CRL", path, extension.Id)
			}
		}
		lists = append(lists, crl)
	}
	return lists, nil
}

func isRevoked(crl *x509.RevocationList, serial *big.Int) bool {
	return crl != nil && slices.ContainsFunc(crl.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(serial) == 0
	})
}
