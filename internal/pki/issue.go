package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cis490/internal/episode"
)

// IssueOptions are options of [IssueHost].
type IssueOptions struct {
	Valid time.Duration // zero means [DefaultLeafValid]
	Force bool          // replace an existing key and certificate
	Now   time.Time     // zero means now
}

// IssueHost creates a key and a certificate for host, and writes out/ca.crt, out/HOST.crt and
// out/HOST.key. A host may have several valid certificates, so that the next one is in place before
// the old one expires.
//
// It first writes the copy in issued/, so that [RevokeHost] knows every certificate in use, then
// the key, then the certificate. Each file is written as a whole. If only the key was written,
// issue again with Force.
func IssueHost(dir string, host episode.Name, out string, o IssueOptions) (Issued, error) {
	if err := CheckHost(host); err != nil {
		return Issued{}, err
	}
	f, err := openCA(dir)
	if err != nil {
		return Issued{}, err
	}
	defer f.Close()
	if err := f.lock(); err != nil {
		return Issued{}, err
	}
	signer := f
	next, err := openNext(f)
	if err != nil {
		return Issued{}, err
	}
	if next != nil { // a certificate of the former CA would end with the rotation
		defer next.Close()
		signer = next
	}
	ca, err := loadAuthority(signer, hostsCA)
	if err != nil {
		return Issued{}, err
	}
	target, err := createPEMDir(out)
	if err != nil {
		return Issued{}, err
	}
	defer target.Close()
	root, err := f.read(serverCA + certSuffix)
	if err != nil {
		return Issued{}, err
	}
	if err := checkTarget(target, host, root, o.Force); err != nil {
		return Issued{}, err
	}
	cert, err := issueCertificate(signer, ca, host, target, o)
	if err != nil {
		return Issued{}, err
	}
	return describeCert(cert, cmp.Or(o.Now, time.Now())), target.writeCert(serverCA+certSuffix, root)
}

// CheckHost returns an error if files of host would have the names of CA files.
func CheckHost(host episode.Name) error {
	switch host {
	case serverCA, hostsCA, serverIssuing, hostsIssuing, server:
		return fmt.Errorf("the host name %s is taken by files of the CA; choose another host_id", host)
	}
	return nil
}

// checkTarget returns an error if Issue would overwrite files of another CA, or an existing
// certificate without force.
func checkTarget(target *pemDir, host episode.Name, root []byte, force bool) error {
	if force {
		return nil
	}
	for _, name := range []string{string(host) + keySuffix, string(host) + certSuffix} {
		found, err := target.exists(name)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%s exists and is left as it is; use another --out directory, or --force to replace it",
				target.Path(name))
		}
	}
	found, err := target.exists(serverCA + certSuffix)
	if err != nil || !found {
		return err
	}
	old, err := target.read(serverCA + certSuffix)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, root) {
		return fmt.Errorf("%s is of another CA and is left as it is; use another --out directory, or --force to replace it",
			target.Path(serverCA+certSuffix))
	}
	return nil
}

func issueCertificate(f *caDir, ca authority, host episode.Name, target *pemDir, o IssueOptions) (*x509.Certificate, error) {
	domain, err := trustDomainOf(ca.cert)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(hostsCA+certSuffix), err)
	}
	key, err := generateKey()
	if err != nil {
		return nil, err
	}
	cert, err := ca.signHost(host, domain, key.Public(), cmp.Or(o.Now, time.Now()), o.Valid)
	if err != nil {
		return nil, err
	}
	if err := recordCertificate(f.Path(issuedDir), cert); err != nil {
		return nil, err
	}
	if err := target.writeKey(string(host)+keySuffix, key); err != nil {
		return nil, err
	}
	return cert, target.writeCert(string(host)+certSuffix, ca.chainOf(cert))
}

// signHost signs the certificate of a host.
func (a authority) signHost(host episode.Name, domain string, key crypto.PublicKey, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	return a.signCertificate(&x509.Certificate{
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

// recordCertificate writes a copy of a certificate, before anyone else gets it, so that [RevokeHost]
// knows every certificate in use.
func recordCertificate(dir string, cert *x509.Certificate) error {
	record, err := createPEMDir(dir)
	if err != nil {
		return err
	}
	defer record.Close()
	return record.writeCert(formatSerial(cert.SerialNumber)+certSuffix, encodePEM(pemCertificate, cert.Raw))
}

// trustDomainOf returns the trust domain that a hosts' CA is constrained to.
func trustDomainOf(ca *x509.Certificate) (string, error) {
	if len(ca.PermittedURIDomains) != 1 {
		return "", fmt.Errorf("the CA permits %d trust domains, not one; was it made by receiver pki init?",
			len(ca.PermittedURIDomains))
	}
	return ca.PermittedURIDomains[0], nil
}

// State says whether a certificate gives access.
type State string

// The values of a State, as List prints them.
const (
	Valid       State = "valid"
	NotYetValid State = "not yet valid"
	Expired     State = "expired"
	Revoked     State = "revoked"
	Retired     State = "retired" // a rotation has retired its CA
)

// Issued describes the certificate of a host.
type Issued struct {
	Host      episode.Name `json:"host_id"`
	Serial    string       `json:"serial"` // 32 hex digits
	NotBefore time.Time    `json:"not_before"`
	NotAfter  time.Time    `json:"not_after"`
	State     State        `json:"state"`
}

// ListIssued returns the certificates issued from dir, sorted by host. Records are further
// directories with records of issued certificates. If a record cannot be read, it returns an error
// with the rest of the list.
func ListIssued(dir string, now time.Time, records ...string) ([]Issued, error) {
	f, err := openCA(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	revoked, err := readRevocations(f)
	if err != nil {
		return nil, err
	}
	certs, broken := readAllRecords(f, records)
	list := make([]Issued, 0, len(certs))
	for _, cert := range certs {
		list = append(list, revoked.describe(cert, now))
	}
	slices.SortFunc(list, func(a, b Issued) int {
		if c := strings.Compare(string(a.Host), string(b.Host)); c != 0 {
			return c
		}
		if c := a.NotBefore.Compare(b.NotBefore); c != 0 {
			return c
		}
		return strings.Compare(a.Serial, b.Serial)
	})
	return list, broken
}

// readHostsCA reads the hosts' CA without its key.
func readHostsCA(f *caDir) (*x509.Certificate, error) {
	data, err := f.read(hostsCA + certSuffix)
	if err != nil {
		return nil, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.path)
	}
	cas, err := parseCAs(data, f.Path(hostsCA+certSuffix))
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}

// readAllRecords returns the certificates on record in a CA directory and in further directories,
// each of which may be missing, and an error for those that cannot be read.
func readAllRecords(f *caDir, more []string) ([]*x509.Certificate, error) {
	certs, broken := readRecords(f.Path(issuedDir))
	next, err := openNext(f)
	if err != nil {
		return certs, errors.Join(broken, err)
	}
	if next != nil {
		more = append(slices.Clone(more), next.Path(issuedDir))
		defer next.Close()
	}
	for _, path := range more {
		if path == "" {
			continue
		}
		found, err := readRecords(path)
		certs, broken = append(certs, found...), errors.Join(broken, err)
	}
	return certs, broken
}

// readRecords returns the certificates in a directory that can be read, and an error for the others.
func readRecords(path string) ([]*x509.Certificate, error) {
	record, err := openPEMDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer record.Close()
	var certs []*x509.Certificate
	var broken []error
	for entry, err := range record.Names() {
		if err != nil {
			return certs, errors.Join(append(broken, err)...)
		}
		if filepath.Ext(entry.Name()) != certSuffix { // a temporary file that power loss left
			continue
		}
		cert, err := readRecord(record, entry.Name())
		if err != nil {
			broken = append(broken, err)
			continue
		}
		certs = append(certs, cert)
	}
	return certs, errors.Join(broken...)
}

func readRecord(record *pemDir, name string) (*x509.Certificate, error) {
	data, err := record.read(name)
	if err != nil {
		return nil, err
	}
	ders, err := decodeBlocks(data, record.Path(name), pemCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", record.Path(name), err)
	}
	if _, err := idOf(cert); err != nil {
		return nil, fmt.Errorf("%s is not a host's certificate: %w", record.Path(name), err)
	}
	return cert, nil
}

// describeCert describes the certificate of a host by its own fields: whether it was revoked or retired
// is known to those who have the lists.
func describeCert(cert *x509.Certificate, now time.Time) Issued {
	id, _ := idOf(cert) // who signed or read it has checked it
	i := Issued{
		Host: id.Host, Serial: formatSerial(cert.SerialNumber),
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, State: Valid,
	}
	switch {
	case now.After(cert.NotAfter):
		i.State = Expired
	case now.Before(cert.NotBefore):
		i.State = NotYetValid
	}
	return i
}

func formatSerial(serial *big.Int) string { return fmt.Sprintf("%032x", serial) }
