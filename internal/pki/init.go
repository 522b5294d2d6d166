package pki

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// DefaultCAValid is how long a CA is valid if nothing else is asked for.
const DefaultCAValid = 10 * 365 * 24 * time.Hour

// InitOptions are options of [InitCA]. Names is required.
type InitOptions struct {
	Names       []string      // DNS names and IP addresses of the receiver
	TrustDomain string        // empty means [DefaultTrustDomain]
	CAValid     time.Duration // zero means [DefaultCAValid]
	LeafValid   time.Duration // of the receiver's certificate; zero means [DefaultLeafValid]
	Now         time.Time     // zero means now
	// Offline creates no issuing CAs: only the keys of the roots can sign, and no host can join.
	Offline bool

	label string // ends the names of the CAs, so that those of a rotation differ
}

// Validate returns an error if the options are not valid.
func (o InitOptions) Validate() error {
	if err := CheckTrustDomain(cmp.Or(o.TrustDomain, DefaultTrustDomain)); err != nil {
		return err
	}
	_, err := ParseNames(o.Names)
	return err
}

// InitCA creates both roots and the receiver's certificate in dir, which it creates if it is
// missing. It never replaces a CA, because that would invalidate all certificates in use. What an
// interrupted call left was never used, and is replaced.
//
// Unless the options say Offline, it also creates an issuing CA below each, so that the keys of the
// roots can be kept elsewhere. What it signs is limited to one side: certificates of hosts within
// the trust domain, or those of a receiver with the given names.
func InitCA(dir string, o InitOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	created, err := CreateDir(dir)
	if err != nil {
		return err
	}
	f := &caDir{Dir: created}
	defer f.Close()
	if err := refuseExisting(f); err != nil { // before the lock, so that a refusal changes nothing
		return err
	}
	if err := f.lock(); err != nil {
		return err
	}
	if err := refuseExisting(f); err != nil {
		return err
	}
	// It is durable before the first key, and becomes the receiver's certificate, the last file.
	if err := f.WriteFile(incompleteFile, nil, 0o644); err != nil {
		return err
	}
	for _, name := range caFiles() {
		if err := f.Remove(name); err != nil {
			return err
		}
	}
	return createCAs(f, o)
}

// incompleteFile marks a directory in which InitCA was interrupted. Its files were never used: no
// command does.
const incompleteFile = ".incomplete"

// caFiles returns the names of all files that [InitCA] writes.
func caFiles() []string {
	var files []string
	for _, stem := range []string{serverCA, hostsCA, serverIssuing, hostsIssuing, server} {
		files = append(files, stem+KeySuffix, stem+CertSuffix)
	}
	return append(files, crlFile)
}

// refuseExisting returns an error if a directory has a CA.
func refuseExisting(f *caDir) error {
	if incomplete, err := f.Exists(incompleteFile); err != nil || incomplete {
		return err
	}
	for _, name := range append(caFiles(), IssuedDir) {
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

func createCAs(f *caDir, o InitOptions) error {
	domain := cmp.Or(o.TrustDomain, DefaultTrustDomain)
	now, valid := cmp.Or(o.Now, time.Now()), cmp.Or(o.CAValid, DefaultCAValid)
	roots := &authorityMaker{dir: f, now: now, valid: valid}
	if !o.Offline {
		roots.pathLen = 1
	}
	serverAuthority, err := roots.create(serverCA, &x509.Certificate{
		Subject:     pkix.Name{CommonName: domain + " receiver CA" + o.label},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	hostsAuthority, err := roots.create(hostsCA, &x509.Certificate{
		Subject:                     pkix.Name{CommonName: domain + " hosts CA" + o.label},
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
		issuing, err := below.create(hostsIssuing, hostsIssuingTemplate(domain, o.label), hostsAuthority)
		if err != nil {
			return err
		}
		template, err := serverIssuingTemplate(domain, o.label, o.Names)
		if err != nil {
			return err
		}
		if signer, err = below.create(serverIssuing, template, serverAuthority); err != nil {
			return err
		}
		// Each end, a proxy and a check with openssl may see a leaf without its chain.
		err = errors.Join(
			f.WriteCert(hostsCA+CertSuffix, issuing.ChainOf(hostsAuthority.Cert)),
			f.WriteCert(serverCA+CertSuffix, signer.ChainOf(serverAuthority.Cert)),
		)
		if err != nil {
			return err
		}
	}
	key, err := newKey(f, server)
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
	return f.Rename(incompleteFile, f.Dir.Dir, server+CertSuffix)
}

// authorityMaker creates CAs in a directory.
type authorityMaker struct {
	dir     *caDir
	now     time.Time
	valid   time.Duration
	pathLen int // the number of CAs that may follow
}

// create creates and writes a CA, which parent signs, or else the CA itself.
func (m *authorityMaker) create(name string, template *x509.Certificate, parent ...Authority) (Authority, error) {
	key, err := newKey(m.dir, name)
	if err != nil {
		return Authority{}, err
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA, template.MaxPathLen, template.MaxPathLenZero = true, m.pathLen, m.pathLen == 0
	template.NotAfter = m.now.Add(m.valid)
	signer := Authority{Cert: template, Key: key}
	if len(parent) > 0 {
		signer = parent[0]
	}
	cert, err := signer.SignCertificate(template, key.Public(), m.now, m.valid)
	if err != nil {
		return Authority{}, err
	}
	return Authority{Cert: cert, Key: key}, m.dir.WriteCert(name+CertSuffix, EncodePEM(PEMCertificate, cert.Raw))
}

// newKey generates and writes a key.
func newKey(f *caDir, name string) (crypto.Signer, error) {
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	return key, f.WriteKey(name+KeySuffix, key)
}

// writeEmptyCRL writes a list without entries.
func writeEmptyCRL(f *caDir, ca Authority, now time.Time) error {
	der, err := ca.SignCRL(nil, big.NewInt(1), now)
	if err != nil {
		return err
	}
	return f.WriteCert(crlFile, EncodePEM(PEMCRL, der))
}
