package pki

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"sync"
	"time"
)

// Names in a CA directory. The first five are stems of a .crt and a .key each.
const (
	serverCA      = "ca"
	hostsCA       = "hosts-ca"
	serverIssuing = "ca-issuing"
	hostsIssuing  = "hosts-ca-issuing"
	server        = "server"

	crlFile   = "hosts.crl"
	keySuffix = ".key"
)

// issuedDir has copies of the hosts' certificates, named by serial, in a CA directory and in an identity
// directory.
const issuedDir = "issued"

// certSuffix ends the name of a certificate's file.
const certSuffix = ".crt"

// DefaultCAValid is how long a CA is valid if nothing else is asked for.
const DefaultCAValid = 10 * 365 * 24 * time.Hour

// DefaultLeafValid is how long another certificate is valid if nothing else is asked for.
const DefaultLeafValid = 365 * 24 * time.Hour

// backdate is how far NotBefore is in the past, because a machine without a battery clock may
// be behind.
const backdate = time.Hour

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
	if err := checkTrustDomain(cmp.Or(o.TrustDomain, DefaultTrustDomain)); err != nil {
		return err
	}
	_, err := parseNames(o.Names)
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
	created, err := createPEMDir(dir)
	if err != nil {
		return err
	}
	f := &caDir{pemDir: created}
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
		files = append(files, stem+keySuffix, stem+certSuffix)
	}
	return append(files, crlFile)
}

// refuseExisting returns an error if a directory has a CA.
func refuseExisting(f *caDir) error {
	if incomplete, err := f.exists(incompleteFile); err != nil || incomplete {
		return err
	}
	for _, name := range append(caFiles(), issuedDir) {
		found, err := f.exists(name)
		if err != nil {
			return err
		}
		if found {
			return fmt.Errorf("%s exists: %s already holds a CA, or the rest of an interrupted init, and is left as it is; "+
				"choose another directory, or move this one away (its certificates then stop working)", f.Path(name), f.path)
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
			f.writeCert(hostsCA+certSuffix, issuing.chainOf(hostsAuthority.cert)),
			f.writeCert(serverCA+certSuffix, signer.chainOf(serverAuthority.cert)),
		)
		if err != nil {
			return err
		}
	}
	key, err := newKey(f, server)
	if err != nil {
		return err
	}
	cert, err := signer.signServer(key.Public(), o.Names, now, o.LeafValid)
	if err != nil {
		return err
	}
	if err := f.writeCert(incompleteFile, signer.chainOf(cert)); err != nil {
		return err
	}
	return f.Rename(incompleteFile, f.Dir, server+certSuffix)
}

var dnsGrammar = sync.OnceValue(func() *regexp.Regexp { // slow to compile, and most commands do not need it
	return regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)
})

// parseNames returns a template with the alternative names of a receiver.
func parseNames(names []string) (*x509.Certificate, error) {
	template := &x509.Certificate{}
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		switch {
		case err == nil && addr.Zone() == "":
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.Unmap().AsSlice()))
		case err != nil && len(name) <= 253 && dnsGrammar().MatchString(name):
			template.DNSNames = append(template.DNSNames, name)
		default:
			return nil, fmt.Errorf("%s is not a valid receiver name: it needs a DNS name or an IP address, without scheme or port", quoteText(name))
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the receiver needs a name: the DNS names and IP addresses that hosts reach it by")
	}
	return template, nil
}

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// chainOf returns a certificate that a signed, in PEM, followed by a's own unless that is a root.
func (a authority) chainOf(cert *x509.Certificate) []byte {
	chain := encodePEM(pemCertificate, cert.Raw)
	if !isRoot(a.cert) {
		chain = append(chain, encodePEM(pemCertificate, a.cert.Raw)...)
	}
	return chain
}

// isRoot reports whether a CA signed itself.
func isRoot(ca *x509.Certificate) bool { return bytes.Equal(ca.RawSubject, ca.RawIssuer) }

// authorityMaker creates CAs in a directory.
type authorityMaker struct {
	dir     *caDir
	now     time.Time
	valid   time.Duration
	pathLen int // the number of CAs that may follow
}

// create creates and writes a CA, which parent signs, or else the CA itself.
func (m *authorityMaker) create(name string, template *x509.Certificate, parent ...authority) (authority, error) {
	key, err := newKey(m.dir, name)
	if err != nil {
		return authority{}, err
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA, template.MaxPathLen, template.MaxPathLenZero = true, m.pathLen, m.pathLen == 0
	template.NotAfter = m.now.Add(m.valid)
	signer := authority{cert: template, key: key}
	if len(parent) > 0 {
		signer = parent[0]
	}
	cert, err := signer.signCertificate(template, key.Public(), m.now, m.valid)
	if err != nil {
		return authority{}, err
	}
	return authority{cert: cert, key: key}, m.dir.writeCert(name+certSuffix, encodePEM(pemCertificate, cert.Raw))
}

// loadAuthority loads a certificate and its key, and checks that they match.
func loadAuthority(f *caDir, name string) (authority, error) {
	certPEM, err := f.read(name + certSuffix)
	if err != nil {
		return authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.path)
	}
	keyPEM, err := f.read(name + keySuffix)
	if found, _ := f.exists(hostsCA + certSuffix); !found && err != nil {
		return authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return authority{}, fmt.Errorf("%w (is it kept elsewhere? run this where the CA's keys are, and copy its output)", err)
	}
	if err != nil {
		return authority{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return authority{}, fmt.Errorf("load %s and its key: %w", f.Path(name+certSuffix), err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return authority{}, fmt.Errorf("load %s: a key that cannot sign", f.Path(name+keySuffix))
	}
	return authority{cert: pair.Leaf, key: key}, nil
}

// signCertificate sets serial and validity of a template and signs it. No certificate outlasts its
// CA.
func (a authority) signCertificate(template *x509.Certificate, public crypto.PublicKey, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	if !now.Before(a.cert.NotAfter) {
		return nil, fmt.Errorf("the CA %s expired on %s; create a new one with receiver pki init in another directory",
			quoteText(a.cert.Subject.CommonName), formatDay(a.cert.NotAfter))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.BasicConstraintsValid = true
	if !template.IsCA {
		template.KeyUsage = x509.KeyUsageDigitalSignature
	}
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(valid)
	if a.cert.NotAfter.Before(template.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", quoteText(template.Subject.CommonName), err)
	}
	return x509.ParseCertificate(der)
}

// newSerial returns 128 random bits, so that serials stay unique after a restored backup.
func newSerial() (*big.Int, error) {
	bits := make([]byte, 16)
	for bytes.Equal(bits, make([]byte, 16)) {
		if _, err := rand.Read(bits); err != nil {
			return nil, fmt.Errorf("generate serial: %w", err)
		}
	}
	return new(big.Int).SetBytes(bits), nil
}

// newKey generates and writes a key.
func newKey(f *caDir, name string) (crypto.Signer, error) {
	key, err := generateKey()
	if err != nil {
		return nil, err
	}
	return key, f.writeKey(name+keySuffix, key)
}

func formatDay(t time.Time) string { return t.UTC().Format(time.DateOnly) }
