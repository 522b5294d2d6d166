package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"cis490/internal/episode"
	"cis490/internal/serviceuser"
)

// DefaultIdentityDir is where the services keep what joining wrote: keys, certificates and
// invitations. It is not on the disk of the data, and nothing else may be able to read it.
const DefaultIdentityDir = "/var/lib/cis490-identity"

// IdentityDir returns the identity directory for a configuration file, unless it names one: files
// outside /etc/cis490 have one of their own beside them, so that tests and users without root do
// not share the service's.
func IdentityDir(configFile string) string {
	if path, err := filepath.Abs(configFile); err == nil {
		configFile = path
	}
	dir := filepath.Dir(configFile)
	if dir == "/etc/cis490" {
		return DefaultIdentityDir
	}
	return filepath.Join(dir, "identity")
}

// ShareKey lets the service read the receiver's key in a directory that root has created: its group
// may, as a package's tmpfiles configuration has it.
func ShareKey(dir string, s serviceuser.State) error {
	return serviceuser.ShareFile(s, dir, server+keySuffix)
}

// loadPairFile loads a CA whose key and certificate are in one file.
func (f *pemDir) loadPairFile(name string) (authority, error) {
	data, err := f.read(name)
	if err != nil {
		return authority{}, err
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return authority{}, fmt.Errorf("load %s: %w", f.Path(name), err)
	}
	return authority{cert: pair.Leaf, key: pair.PrivateKey.(crypto.Signer)}, nil
}

// encodePair returns what [pemDir.loadPairFile] loads.
func (a authority) encodePair() ([]byte, error) {
	key, err := encodeKey(a.key, nil)
	return append(key, encodePEM(pemCertificate, a.cert.Raw)...), err
}

// ErrNoIssuing says that the receiver has no issuing CA, so that hosts cannot join.
var ErrNoIssuing = errors.New("there is no issuing CA")

// Issuer signs the certificates of hosts that join, with the issuing CA of a receiver's identity
// directory.
type Issuer struct {
	path   string
	ca     authority
	domain string
	former []*x509.Certificate // CAs of hosts that a rotation will retire
	server []*x509.Certificate // the root that hosts trust; during a rotation also the new one, and its link
	hashes []string            // of the roots in server
}

// OpenIssuer loads the issuing CA of an identity directory. The error wraps [ErrNoIssuing] if there
// is none.
func OpenIssuer(identity string) (*Issuer, error) {
	if identity == "" {
		return nil, fmt.Errorf("%w: %w", ErrNoIssuing, errNoIdentityDir)
	}
	f, err := openPEMDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoIssuing, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i := &Issuer{path: identity}
	if i.ca, err = f.loadPairFile(issuingFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoIssuing, err)
	}
	if err != nil {
		return nil, err
	}
	if i.domain, err = trustDomainOf(i.ca.cert); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path(issuingFile), err)
	}
	if i.server, err = f.readCAs(rootFile); err != nil {
		return nil, err
	}
	i.hashes = hashKeys(rootsOf(i.server))
	i.former, err = f.readCAs(retiringFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return i, err
}

// HashKey returns the SHA-256 of a certificate's SubjectPublicKeyInfo.
func HashKey(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// RootHash returns the [HashKey] of the root that hosts trust.
func (i *Issuer) RootHash() [sha256.Size]byte { return HashKey(i.server[0]) }

// ServerCAs returns the roots that hosts should trust, and how one follows from another, in PEM.
func (i *Issuer) ServerCAs() []byte {
	roots := rootsOf(i.server)
	isRootKey := func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(roots, func(root *x509.Certificate) bool { return HashKey(root) == HashKey(ca) })
	}
	// No issuing CA, which the receiver sends with its certificate.
	return encodeCerts(slices.DeleteFunc(slices.Clone(i.server), func(ca *x509.Certificate) bool { return !isRootKey(ca) }))
}

// ServerCAHashes returns the [HashKey] of each root that hosts should trust, in hex.
func (i *Issuer) ServerCAHashes() []string { return i.hashes }

// rootsOf returns the certificates that signed themselves.
func rootsOf(cas []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return !isRoot(ca) || ca.CheckSignatureFrom(ca) != nil
	})
}

// hashKeys returns the [HashKey] of certificates in hex, sorted.
func hashKeys(cas []*x509.Certificate) []string {
	hashes := make([]string, 0, len(cas))
	for _, ca := range cas {
		hash := HashKey(ca)
		hashes = append(hashes, hex.EncodeToString(hash[:]))
	}
	slices.Sort(hashes)
	return slices.Compact(hashes)
}

// Request is a checked request for a certificate. Only its key counts: the name in a certificate is
// the issuer's decision.
type Request struct {
	key       crypto.PublicKey
	KeySHA256 string // of the SubjectPublicKeyInfo, in hex
}

// maxRSABits bounds the work of checking a signature.
const maxRSABits = 4096

// ParseRequest parses a PKCS#10 request in DER, and checks that its sender has the key.
func ParseRequest(der []byte) (Request, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, errors.New("the request is not a PKCS#10 request in DER")
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits < 256 {
			return Request{}, fmt.Errorf("a key of %d bits is too short: use P-256", bits)
		}
	case ed25519.PublicKey:
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < 2048 || bits > maxRSABits {
			return Request{}, fmt.Errorf("an RSA key must have 2048 to %d bits, not %d", maxRSABits, bits)
		}
	default:
		return Request{}, errors.New("the request is for a kind of key that is not supported: use ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, errors.New("the request is not signed by the key that it contains")
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return Request{key: csr.PublicKey, KeySHA256: hex.EncodeToString(sum[:])}, nil
}

// SignHost signs a certificate for a host and writes a copy of it to the records before it returns.
func (i *Issuer) SignHost(r Request, host episode.Name, now time.Time) (Issued, error) {
	cert, err := i.ca.signHost(host, i.domain, r.key, now, DefaultLeafValid)
	if err != nil {
		return Issued{}, err
	}
	if err := recordCertificate(RecordsIn(i.path), cert); err != nil {
		return Issued{}, err
	}
	return describeCert(cert, now), nil
}

// HasSigned reports whether an issuing CA signed the certificate of a caller: it came by joining or by
// renewal, and not by hand. One of a CA that a rotation will retire must also be on record: its key may
// have been stolen, and what a thief signs with it must end with the rotation.
func (i *Issuer) HasSigned(c Caller) bool {
	if len(c.peer) == 0 {
		return false
	}
	switch signer := i.signerOf(c.peer[0]); {
	case signer == nil:
		return false
	case signer.Equal(i.ca.cert):
		return true
	}
	record, err := i.readRecord(formatSerial(c.peer[0].SerialNumber))
	return err == nil && record.Equal(c.peer[0])
}

// signerOf returns the issuing CA that signed a certificate, or nil.
func (i *Issuer) signerOf(cert *x509.Certificate) *x509.Certificate {
	if cert.CheckSignatureFrom(i.ca.cert) == nil {
		return i.ca.cert
	}
	for _, ca := range i.former {
		if !isRoot(ca) && cert.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// WillEnd reports whether the certificate of a caller is of a CA that the rotation in progress will
// retire.
func (i *Issuer) WillEnd(c Caller) bool {
	return len(c.peer) > 0 && i.isFormer(c.peer[0])
}

// WillEndSerial is [Issuer.WillEnd] for a certificate on record.
func (i *Issuer) WillEndSerial(serial string) bool {
	cert, err := i.readRecord(serial)
	return err == nil && i.isFormer(cert)
}

func (i *Issuer) isFormer(cert *x509.Certificate) bool {
	return slices.ContainsFunc(i.former, func(ca *x509.Certificate) bool { return cert.CheckSignatureFrom(ca) == nil })
}

// RecordsIn returns the directory of the certificates that an [Issuer] signed, or "" without an
// identity directory.
func RecordsIn(identity string) string {
	if identity == "" {
		return ""
	}
	return filepath.Join(identity, issuedDir)
}

// Chain returns a certificate on record as PEM, followed by its issuing CA.
func (i *Issuer) Chain(serial string) ([]byte, error) {
	cert, err := i.readRecord(serial)
	if err != nil {
		return nil, err
	}
	signer := i.signerOf(cert)
	if signer == nil {
		return nil, fmt.Errorf("the issuing CA of the certificate %s is not here any more", serial)
	}
	return authority{cert: signer}.chainOf(cert), nil
}

func (i *Issuer) readRecord(serial string) (*x509.Certificate, error) {
	record, err := openPEMDir(RecordsIn(i.path))
	if err != nil {
		return nil, err
	}
	defer record.Close()
	return readRecord(record, serial+certSuffix)
}
