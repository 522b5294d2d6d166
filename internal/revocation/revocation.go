// Package revocation ends certificates of hosts before they expire, and lists those that a
// directory of CAs has issued.
//
// There is one list per CA that signs certificates of hosts, all in hosts.crl. During a rotation
// the lists of the new CAs are written to their own directory too, so that they outlast it.
//
// Invariant: a certificate that is on a list stays there. A list that cannot be read, or is of
// another CA, is never replaced, since that would restore the access of the hosts on it.
package revocation

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"cis490/internal/ca"
	"cis490/internal/episode"
	"cis490/internal/pki"
	"cis490/internal/suggestion"
)

// RevokeHost adds all certificates of host to dir/hosts.crl and returns them. It keeps the entries
// of the list. Records are further directories with records of issued certificates. It continues
// after a record that it cannot read, and then returns an error which says that the host may still
// have access.
func RevokeHost(dir string, host episode.Name, now time.Time, records ...string) ([]pki.Issued, error) {
	f, revoked, err := openToRevoke(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	certs, broken := uncached.readAllRecords(f, records)
	var known []string
	certs = slices.DeleteFunc(certs, func(cert *x509.Certificate) bool {
		id, err := pki.IDOf(cert)
		known = append(known, string(id.Host))
		return err != nil || id.Host != host || revoked.isFormer(cert)
	})
	if len(certs) == 0 {
		question := suggestion.Question(string(host), known)
		if question != "" {
			question = " (" + question + ")"
		}
		return nil, errors.Join(fmt.Errorf("no certificate of host %s%s was issued from %s; see receiver pki list", host, question, f.Name), broken)
	}
	var list []pki.Issued
	for _, cert := range certs {
		err := revoked.addCert(cert, cmp.Or(now, time.Now()))
		if err == nil {
			list = append(list, revoked.describe(cert, now))
			continue
		}
		if cmp.Or(now, time.Now()).Before(cert.NotAfter) { // an expired one gives no access anyway
			broken = errors.Join(broken, fmt.Errorf("the certificate %s: %w", pki.FormatSerial(cert.SerialNumber), err))
		}
	}
	if len(list) > 0 {
		if err := revoked.write(); err != nil {
			return nil, err
		}
	}
	if broken != nil {
		broken = fmt.Errorf("host %s may hold a certificate that is not revoked: %w", host, broken)
	}
	return list, broken
}

// openToRevoke opens and locks a CA directory, and reads its lists.
func openToRevoke(dir string) (*ca.Dir, *revocations, error) {
	f, err := ca.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := f.LockChanges(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	// An unreadable list is not replaced: that would restore the access of hosts on it.
	r, err := readRevocations(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, r, nil
}
