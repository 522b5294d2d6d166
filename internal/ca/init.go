package ca

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"cis490/internal/pki"
)

// DefaultCAValid is how long a CA is valid if nothing else is asked for.
const DefaultCAValid = 10 * 365 * 24 * time.Hour

// InitOptions are options of [Init]. Names is required.
type InitOptions struct {
	Names       []string      // DNS names and IP addresses of the receiver
	TrustDomain string        // empty means [pki.DefaultTrustDomain]
	CAValid     time.Duration // zero means [DefaultCAValid]
	LeafValid   time.Duration // of the receiver's certificate; zero means [pki.DefaultLeafValid]
	Now         time.Time     // zero means now
	// Offline creates no issuing CAs: only the keys of the roots can sign, and no host can join.
	Offline bool

	Label string // ends the names of the CAs, so that those of a rotation differ
}

// Validate returns an error if the options are not valid.
func (o InitOptions) Validate() error {
	if err := pki.CheckTrustDomain(cmp.Or(o.TrustDomain, pki.DefaultTrustDomain)); err != nil {
		return err
	}
	_, err := pki.ParseNames(o.Names)
	return err
}

// Init creates both roots and the receiver's certificate in dir, which it creates if it is
// missing. It never replaces a CA, because that would invalidate all certificates in use. What an
// interrupted call left was never used, and is replaced.
//
// Unless the options say Offline, it also creates an issuing CA below each, so that the keys of the
// roots can be kept elsewhere. What it signs is limited to one side: certificates of hosts within
// the trust domain, or those of a receiver with the given names.
func Init(dir string, o InitOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	created, err := pki.CreateDir(dir)
	if err != nil {
		return err
	}
	f := &Dir{Dir: created}
	defer f.Close()
	if err := refuseExisting(f); err != nil { // before the lock, so that a refusal changes nothing
		return err
	}
	if err := f.LockChanges(); err != nil {
		return err
	}
	if err := refuseExisting(f); err != nil {
		return err
	}
	// It is durable before the first key, and becomes the receiver's certificate, the last file.
	if err := f.WriteFile(incompleteFile, nil, 0o644); err != nil {
		return err
	}
	for _, name := range Files() {
		if err := f.Remove(name); err != nil {
			return err
		}
	}
	return createCAs(f, o)
}

// incompleteFile marks a directory in which Init was interrupted. Its files were never used: no
// command does.
const incompleteFile = ".incomplete"

// Files returns the names of all files that [Init] writes.
func Files() []string {
	var files []string
	for _, stem := range []string{ServerCA, HostsCA, serverIssuing, HostsIssuing, Server} {
		files = append(files, stem+pki.KeySuffix, stem+pki.CertSuffix)
	}
	return append(files, CRLFile)
}

// refuseExisting returns an error if a directory has a CA.
func refuseExisting(f *Dir) error {
	if incomplete, err := f.Exists(incompleteFile); err != nil || incomplete {
		return err
	}
	for _, name := range append(Files(), pki.IssuedDir) {
		found, err := f.Exists(name)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%s exists: %s already holds a CA, or the rest of an interrupted init, and is left as it is; "+
				"choose another directory, or move this one away (its certificates then stop working)", f.Path(name), f.Name)
		}
	}
	return nil
}

func createCAs(f *Dir, o InitOptions) error {
	domain := cmp.Or(o.TrustDomain, pki.DefaultTrustDomain)
	now, valid := cmp.Or(o.Now, time.Now()), cmp.Or(o.CAValid, DefaultCAValid)
	roots := &authorityMaker{dir: f, now: now, valid: valid}
	if !o.Offline {
		roots.pathLen = 1
	}
	serverAuthority, err := roots.create(ServerCA, &x509.Certificate{
		Subject:     pkix.Name{CommonName: domain + " receiver CA" + o.Label},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	hostsAuthority, err := roots.create(HostsCA, &x509.Certificate{
		Subject:                     pkix.Name{CommonName: domain + " hosts CA" + o.Label},
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		PermittedDNSDomainsCritical: true, // of all name constraints, despite its name
		PermittedURIDomains:         []string{domain},
	})
	if err != nil {
		return err
	}
	// An empty list, so that a configuration can name the file from the start.
	if err := writeEmptyCRL(f, hostsAuthority, now); err != nil {
		return err
	}
	signer := serverAuthority
	if !o.Offline {
		below := &authorityMaker{dir: f, now: now, valid: valid}
		issuing, err := below.create(HostsIssuing, hostsIssuingTemplate(domain, o.Label), hostsAuthority)
		if err != nil {
			return err
		}
		template, err := serverIssuingTemplate(domain, o.Label, o.Names)
		if err != nil {
			return err
		}
		if signer, err = below.create(serverIssuing, template, serverAuthority); err != nil {
			return err
		}
		// Each end, a proxy and a check with openssl may see a leaf without its chain.
		err = errors.Join(
			f.WriteCert(HostsCA+pki.CertSuffix, issuing.ChainOf(hostsAuthority.Cert)),
			f.WriteCert(ServerCA+pki.CertSuffix, signer.ChainOf(serverAuthority.Cert)),
		)
		if err != nil {
			return err
		}
	}
	key, err := newKey(f, Server)
	if err != nil {
		return err
	}
	cert, err := signer.SignServer(key.Public(), o.Names, now, o.LeafValid)
	if err != nil {
		return err
	}
	if err := f.WriteCert(incompleteFile, signer.ChainOf(cert)); err != nil {
		return err
	}
	return f.Rename(incompleteFile, f.Dir.Dir, Server+pki.CertSuffix)
}

// authorityMaker creates CAs in a directory.
type authorityMaker struct {
	dir     *Dir
	now     time.Time
	valid   time.Duration
	pathLen int // the number of CAs that may follow
}

// create creates and writes a CA, which parent signs, or else the CA itself.
func (m *authorityMaker) create(name string, template *x509.Certificate, parent ...pki.Authority) (pki.Authority, error) {
	key, err := newKey(m.dir, name)
	if err != nil {
		return pki.Authority{}, err
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA, template.MaxPathLen, template.MaxPathLenZero = true, m.pathLen, m.pathLen == 0
	template.NotAfter = m.now.Add(m.valid)
	signer := pki.Authority{Cert: template, Key: key}
	if len(parent) > 0 {
		signer = parent[0]
	}
	cert, err := signer.SignCertificate(template, key.Public(), m.now, m.valid)
	if err != nil {
		return pki.Authority{}, err
	}
	return pki.Authority{Cert: cert, Key: key}, m.dir.WriteCert(name+pki.CertSuffix, pki.EncodePEM(pki.PEMCertificate, cert.Raw))
}

// newKey generates and writes a key.
func newKey(f *Dir, name string) (crypto.Signer, error) {
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	return key, f.WriteKey(name+pki.KeySuffix, key)
}

// writeEmptyCRL writes a list without entries.
func writeEmptyCRL(f *Dir, ca pki.Authority, now time.Time) error {
	der, err := ca.SignCRL(nil, big.NewInt(1), now)
	if err != nil {
		return err
	}
	return f.WriteCert(CRLFile, pki.EncodePEM(pki.PEMCRL, der))
}
