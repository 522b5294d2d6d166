package revocation

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"time"

	"cis490/internal/ca"
	"cis490/internal/pki"
)

// revocations are the lists of a CA directory: one per CA that signs certificates of hosts, all in
// hosts.crl. During a rotation the lists of the new CAs are there too, and in hosts.crl beside them.
type revocations struct {
	dir    *ca.Dir
	cas    []revocationCA      // the root first
	former []*x509.Certificate // CAs that rotations retired: their certificates give no access
}

type revocationCA struct {
	dir  string // that has its key
	next bool   // it is one of the new CAs of a rotation
	// trusted says that the directory's hosts-ca.crt has it, directly or by its root. The receiver
	// refuses a list of any other CA.
	trusted bool
	name    string // the stem of its files
	cert    *x509.Certificate
	list    *x509.RevocationList // nil if there is none
}

// readRevocations reads the lists of a CA directory and, during a rotation, of the one beside it.
func readRevocations(f *ca.Dir) (*revocations, error) {
	r := &revocations{dir: f}
	if err := r.addCAs(f, false); err != nil {
		return nil, err
	}
	next, err := ca.OpenNext(f)
	if err != nil {
		return nil, err
	}
	if next != nil {
		defer next.Close()
		if err := r.addCAs(next, true); err != nil {
			return nil, err
		}
	}
	if err := r.addOthers(); err != nil {
		return nil, err
	}
	if err := r.readLists(f); err != nil {
		return nil, err
	}
	if next != nil { // the list that a new CA began with is there alone
		if err := r.readLists(next); err != nil {
			return nil, err
		}
	}
	r.former, err = f.ReadCAs(ca.RetiredFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return r, err
}

// addCAs adds the CAs of a directory.
func (r *revocations) addCAs(f *ca.Dir, next bool) error {
	root, err := ca.ReadHostsCA(f)
	if err != nil {
		return err
	}
	trusts, err := r.dir.ReadCAs(ca.HostsCA + pki.CertSuffix)
	if err != nil {
		return err
	}
	trusted := slices.ContainsFunc(trusts, root.Equal)
	r.cas = append(r.cas, revocationCA{dir: f.Name, next: next, trusted: trusted, name: ca.HostsCA, cert: root})
	issuing, err := readIssuingCert(f)
	if err == nil && issuing != nil {
		r.cas = append(r.cas, revocationCA{dir: f.Name, next: next, trusted: trusted, name: ca.HostsIssuing, cert: issuing})
	}
	return err
}

// readIssuingCert returns the issuing CA of the hosts, or nil if there is none.
func readIssuingCert(f *ca.Dir) (*x509.Certificate, error) {
	data, err := f.Read(ca.HostsIssuing + pki.CertSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cas, err := pki.ParseCAs(data, f.Path(ca.HostsIssuing+pki.CertSuffix))
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}

// addOthers adds the CAs of hosts-ca.crt whose keys are not here, so that their lists stay.
func (r *revocations) addOthers() error {
	cas, err := r.dir.ReadCAs(ca.HostsCA + pki.CertSuffix)
	for _, ca := range cas {
		if !slices.ContainsFunc(r.cas, func(known revocationCA) bool { return known.cert.Equal(ca) }) {
			r.cas = append(r.cas, revocationCA{dir: r.dir.Name, trusted: true, name: "the CA " + pki.FormatSerial(ca.SerialNumber), cert: ca})
		}
	}
	return err
}

// readLists reads the lists of a directory, each of which must be of one of the CAs.
func (r *revocations) readLists(f *ca.Dir) error {
	path := f.Path(ca.CRLFile)
	data, err := f.Read(ca.CRLFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lists, err := pki.ParseCRLs(data, path)
	if err != nil {
		return err
	}
	found := make(map[int]bool)
	for _, list := range lists {
		signer := slices.IndexFunc(r.cas, func(ca revocationCA) bool { return list.CheckSignatureFrom(ca.cert) == nil })
		if signer < 0 {
			return fmt.Errorf("%s is not signed by a hosts' CA of %s", path, f.Name)
		}
		if found[signer] {
			return fmt.Errorf("%s holds two lists of %s.crt, not one", path, r.cas[signer].name)
		}
		found[signer] = true
		if r.cas[signer].list == nil {
			r.cas[signer].list = list
		}
	}
	return nil
}

// signerOf returns the index of the CA that signed a certificate, or -1.
func (r *revocations) signerOf(cert *x509.Certificate) int {
	return slices.IndexFunc(r.cas, func(ca revocationCA) bool { return cert.CheckSignatureFrom(ca.cert) == nil })
}

// has reports whether the list of the CA that signed a certificate has it. Verifying a signature is slow,
// so it does that only if the list has the serial number.
func (r *revocations) has(cert *x509.Certificate) bool {
	return slices.ContainsFunc(r.cas, func(ca revocationCA) bool {
		return isRevoked(ca.list, cert.SerialNumber) && cert.CheckSignatureFrom(ca.cert) == nil
	})
}

// isFormer reports whether a CA signed a certificate that a rotation has retired.
func (r *revocations) isFormer(cert *x509.Certificate) bool {
	return slices.ContainsFunc(r.former, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil })
}

// describe describes the certificate of a host, with what the lists say.
func (r *revocations) describe(cert *x509.Certificate, now time.Time) pki.Issued {
	i := pki.Describe(cert, now)
	switch {
	case r.has(cert):
		i.State = pki.Revoked
	case r.isFormer(cert):
		i.State = pki.Retired
	}
	return i
}

// addCert adds a certificate to the list of the CA that signed it.
func (r *revocations) addCert(cert *x509.Certificate, now time.Time) error {
	signer := r.signerOf(cert)
	if signer < 0 {
		return fmt.Errorf("no CA of %s signed it", r.dir.Name)
	}
	return r.add(signer, cert.SerialNumber, now)
}

// add adds a serial number to the list of a CA. Unless it is there, the CA's key must be in the
// directory.
func (r *revocations) add(signer int, serial *big.Int, now time.Time) error {
	ca := &r.cas[signer]
	already := isRevoked(ca.list, serial)
	key, err := loadRevoker(ca.dir, ca.name)
	if already && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var entries []x509.RevocationListEntry
	number := big.NewInt(1)
	if ca.list != nil {
		entries = ca.list.RevokedCertificateEntries
		if ca.list.Number != nil {
			number.Add(number, ca.list.Number)
		}
	}
	if !already {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
	}
	der, err := key.SignCRL(entries, number, now)
	if err != nil {
		return err
	}
	ca.list, err = x509.ParseRevocationList(der)
	return err
}

// loadRevoker is [ca.LoadAuthority] for a revocation. Its error names what works without the key.
func loadRevoker(dir, name string) (pki.Authority, error) {
	f, err := ca.OpenUnchecked(dir)
	if err != nil {
		return pki.Authority{}, err
	}
	defer f.Close()
	ca, err := ca.LoadAuthority(f, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; 'receiver hosts disable', on the receiver, blocks a host at once and needs no key", err)
	}
	return ca, err
}

// write replaces hosts.crl by the lists.
func (r *revocations) write() error {
	if err := r.dir.WriteCert(ca.CRLFile, r.encodeLists(func(ca revocationCA) bool { return ca.trusted })); err != nil {
		return err
	}
	i := slices.IndexFunc(r.cas, func(ca revocationCA) bool { return ca.next })
	if i < 0 {
		return nil
	}
	next, err := pki.OpenDir(r.cas[i].dir)
	if err != nil {
		return err
	}
	defer next.Close()
	return next.WriteCert(ca.CRLFile, r.encodeLists(func(ca revocationCA) bool { return ca.next }))
}

// CopyToNext writes the revocations of the new CAs of a rotation to their own directory. A revocation
// that was interrupted may have written them to the other one only.
func CopyToNext(f *ca.Dir) error {
	revoked, err := readRevocations(f)
	if err != nil {
		return err
	}
	return revoked.write()
}

// encodeLists returns the lists of some CAs in PEM.
func (r *revocations) encodeLists(of func(revocationCA) bool) []byte {
	var text []byte
	for _, ca := range r.cas {
		if ca.list != nil && of(ca) {
			text = append(text, pki.EncodePEM(pki.PEMCRL, ca.list.Raw)...)
		}
	}
	return text
}

func isRevoked(crl *x509.RevocationList, serial *big.Int) bool {
	return crl != nil && slices.ContainsFunc(crl.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
		return e.SerialNumber.Cmp(serial) == 0
	})
}
