package pki

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
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
	"time"
)

// Names in a CA directory. The first three are stems of a .crt and a .key each.
const (
	serverCA   = "ca"
	hostsCA    = "hosts-ca"
	server     = "server"
	crlFile    = "hosts.crl"
	issuedDir  = "issued" // copies of the hosts' certificates, named by serial
	certSuffix = ".crt"
	keySuffix  = ".key"
)

// Default validity of certificates.
const (
	DefaultCAValid   = 10 * 365 * 24 * time.Hour
	DefaultLeafValid = 365 * 24 * time.Hour
)

// backdate is how far NotBefore lies in the past, because a machine without a battery clock may be
// behind.
const backdate = time.Hour

// InitOptions are options of [InitCA]. Names is required.
type InitOptions struct {
	Names       []string      // DNS names and IP addresses of the receiver
	TrustDomain string        // empty means [DefaultTrustDomain]
	CAValid     time.Duration // zero means [DefaultCAValid]
	LeafValid   time.Duration // of the receiver's certificate; zero means [DefaultLeafValid]
}

// Validate returns an error if the options are not valid.
func (o InitOptions) Validate() error {
	if err := checkTrustDomain(cmp.Or(o.TrustDomain, DefaultTrustDomain)); err != nil {
		return err
	}
	_, err := parseNames(o.Names)
	return err
}

// InitCA creates both CAs and the receiver's certificate in dir, which it creates if it is missing.
// It never replaces a CA, because that would invalidate all certificates in use.
func InitCA(dir string, o InitOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	f, err := createPEMDir(dir)
	if err != nil {
		return err
	}
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
	return createCAs(f, o)
}

func refuseExisting(f *pemDir) error {
	for _, name := range []string{
		serverCA + keySuffix, serverCA + certSuffix, hostsCA + keySuffix, hostsCA + certSuffix,
		server + keySuffix, server + certSuffix, crlFile, issuedDir,
	} {
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

func createCAs(f *pemDir, o InitOptions) error {
	domain := cmp.Or(o.TrustDomain, DefaultTrustDomain)
	now, valid := time.Now(), cmp.Or(o.CAValid, DefaultCAValid)
	serverAuthority, err := newAuthority(f, serverCA, &x509.Certificate{
		Subject:     pkix.Name{CommonName: domain + " receiver CA"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, now, valid)
	if err != nil {
		return err
	}
	hostsAuthority, err := newAuthority(f, hostsCA, &x509.Certificate{
		Subject:                     pkix.Name{CommonName: domain + " hosts CA"},
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		PermittedDNSDomainsCritical: true, // of all name constraints, despite its name
		PermittedURIDomains:         []string{domain},
	}, now, valid)
	if err != nil {
		return err
	}
	// An empty list, so that a configuration can name the file from the start.
	if err := writeCRL(f, hostsAuthority, nil, big.NewInt(1), now); err != nil {
		return err
	}
	key, err := newKey(f, server)
	if err != nil {
		return err
	}
	_, err = signServer(f, serverAuthority, key.Public(), o.Names, now, o.LeafValid)
	return err
}

// RenewOptions are options of [RenewServer].
type RenewOptions struct {
	Names     []string      // empty means those of the old certificate
	LeafValid time.Duration // zero means [DefaultLeafValid]
}

// RenewServer replaces the receiver's certificate and returns when the new one expires. The key
// stays, so that only one file changes and power loss cannot leave a key with another certificate.
func RenewServer(dir string, o RenewOptions) (time.Time, error) {
	f, err := openCA(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	if err := f.lock(); err != nil {
		return time.Time{}, err
	}
	ca, err := loadAuthority(f, serverCA)
	if err != nil {
		return time.Time{}, err
	}
	old, err := loadAuthority(f, server)
	if err != nil {
		return time.Time{}, err
	}
	names := o.Names
	if len(names) == 0 {
		names = append(names, old.cert.DNSNames...)
		for _, ip := range old.cert.IPAddresses {
			names = append(names, ip.String())
		}
	}
	renewed, err := signServer(f, ca, old.key.Public(), names, time.Now(), o.LeafValid)
	if err != nil {
		return time.Time{}, err
	}
	return renewed.NotAfter, nil
}

// signServer signs and writes the receiver's certificate.
func signServer(f *pemDir, ca authority, key crypto.PublicKey, names []string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	template, err := parseNames(names)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: server}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	cert, err := ca.signCertificate(template, key, now, cmp.Or(valid, DefaultLeafValid))
	if err != nil {
		return nil, err
	}
	return cert, f.writeCert(server+certSuffix, encodePEM(pemCertificate, cert.Raw))
}

var dnsGrammar = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`)

// parseNames returns a template with the alternative names of a receiver.
func parseNames(names []string) (*x509.Certificate, error) {
	template := &x509.Certificate{}
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		switch {
		case err == nil && addr.Zone() == "":
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.Unmap().AsSlice()))
		case err != nil && len(name) <= 253 && dnsGrammar.MatchString(name):
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

// newAuthority creates and writes a CA that signs only leaf certificates.
func newAuthority(f *pemDir, name string, template *x509.Certificate, now time.Time, valid time.Duration) (authority, error) {
	key, err := newKey(f, name)
	if err != nil {
		return authority{}, err
	}
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.IsCA, template.MaxPathLenZero = true, true
	self := authority{cert: template, key: key}
	template.NotAfter = now.Add(valid)
	cert, err := self.signCertificate(template, key.Public(), now, valid)
	if err != nil {
		return authority{}, err
	}
	return authority{cert: cert, key: key}, f.writeCert(name+certSuffix, encodePEM(pemCertificate, cert.Raw))
}

// loadAuthority loads a certificate and its key, and checks that they match.
func loadAuthority(f *pemDir, name string) (authority, error) {
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
			quoteText(a.cert.Subject.CommonName), a.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	template.SerialNumber = newSerial()
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
func newSerial() *big.Int {
	bits := make([]byte, 16)
	rand.Read(bits) // never fails
	return new(big.Int).SetBytes(bits)
}

// newKey generates and writes a key.
func newKey(f *pemDir, name string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, writeKey(f, name, key)
}

// writeKey writes a key that only its owner can read.
func writeKey(f *pemDir, name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return f.writeKey(name+keySuffix, encodePEM(pemKey, der))
}
