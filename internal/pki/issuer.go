package pki

import (
	"bytes"
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
	"time"

	"cis490/internal/episode"
	"cis490/internal/serviceuser"
)

// DefaultIdentityDir is where the services keep what joining wrote: keys, certificates and
// invitations. It is not on the disk of the data, and nothing else may be able to read it.
const DefaultIdentityDir = "/var/lib/cis490-identity"

// Names in a receiver's identity directory.
const (
	issuingFile = "hosts-issuing.pem" // key and certificate of the hosts' issuing CA
	rootFile    = "server-ca.crt"     // the root that hosts trust
)

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

// InstallIssuing copies the issuing CAs and the root that hosts trust from a directory that [InitCA]
// created to a receiver's identity directory. It reports whether it changed anything. It never replaces
// another issuing CA: hosts have certificates of it.
func InstallIssuing(dir, identity string) (changed bool, err error) {
	f, err := openCA(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	hosts, err := encodeIssuing(f, hostsIssuing)
	if err != nil {
		return false, err
	}
	own, err := encodeIssuing(f, serverIssuing)
	if err != nil {
		return false, err
	}
	root, err := f.read(serverCA + certSuffix)
	if err != nil {
		return false, err
	}
	to, err := openPEMDir(identity)
	if err != nil {
		return false, err
	}
	defer to.Close()
	for _, file := range []struct {
		name string
		data []byte
	}{{rootFile, root}, {serverIssuingFile, own}, {issuingFile, hosts}} { // this one last: with it hosts can join
		if file.data == nil {
			continue
		}
		wrote, err := to.writeNew(file.name, file.data)
		if err != nil {
			return false, err
		}
		changed = changed || wrote
	}
	if hosts == nil {
		return changed, fmt.Errorf("%w in %s", ErrNoIssuing, dir)
	}
	return changed, nil
}

// encodeIssuing returns an issuing CA in a directory, or nil if its key is not there: it is then
// elsewhere, or was never made.
func encodeIssuing(f *pemDir, name string) ([]byte, error) {
	found, err := f.exists(name + keySuffix)
	if err != nil || !found {
		return nil, err
	}
	issuing, err := loadAuthority(f, name)
	if err != nil {
		return nil, err
	}
	return issuing.encodePair()
}

// ShareKey lets the service read the receiver's key in a directory that root has created: its group
// may, as a package's tmpfiles configuration has it.
func ShareKey(dir string, s serviceuser.State) error {
	return serviceuser.ShareFile(s, dir, server+keySuffix)
}

// writeNew writes a secret file unless it exists with the same content.
func (f *pemDir) writeNew(name string, data []byte) (wrote bool, err error) {
	old, err := f.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, f.WriteFile(name, data, 0o600)
	case err != nil:
		return false, err
	case !bytes.Equal(old, data):
		return false, fmt.Errorf("%s is of another CA and is left as it is", f.Path(name))
	}
	return false, nil
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
	root   []byte // of the server's side, in PEM
	hash   [sha256.Size]byte
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
	if i.root, err = f.read(rootFile); err != nil {
		return nil, err
	}
	cas, err := parseCAs(i.root, f.Path(rootFile))
	if err != nil {
		return nil, err
	}
	i.hash = HashKey(cas[0])
	return i, nil
}

// HashKey returns the SHA-256 of a certificate's SubjectPublicKeyInfo.
func HashKey(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// RootHash returns the [HashKey] of the root that hosts trust.
func (i *Issuer) RootHash() [sha256.Size]byte { return i.hash }

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
	return describeIssued(cert, now, nil), nil
}

// HasSigned reports whether the issuing CA signed the certificate of a caller: it came by joining or by
// renewal, and not by hand.
func (i *Issuer) HasSigned(c Caller) bool {
	return len(c.peer) > 0 && c.peer[0].CheckSignatureFrom(i.ca.cert) == nil
}

// RecordsIn returns the directory of the certificates that an [Issuer] signed, or "" without an
// identity directory.
func RecordsIn(identity string) string {
	if identity == "" {
		return ""
	}
	return filepath.Join(identity, issuedDir)
}

// Chain returns a certificate on record as PEM, followed by the issuing CA.
func (i *Issuer) Chain(serial string) ([]byte, error) {
	record, err := openPEMDir(RecordsIn(i.path))
	if err != nil {
		return nil, err
	}
	defer record.Close()
	cert, err := readRecord(record, serial+certSuffix)
	if err != nil {
		return nil, err
	}
	return i.ca.chainOf(cert), nil
}
