package pki

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"cis490/internal/durable"
	"cis490/internal/episode"
)

// credentialSet is a certificate with its key, and the CAs that were given with it.
type credentialSet struct {
	certificate               tls.Certificate
	certFile, keyFile, caFile string
	joined                    bool // from the identity directory
}

// chooseCredentials returns the credentials to use: of the configured ones and those in the identity directory,
// the ones that became valid later.
func (c ClientConfig) chooseCredentials() (credentialSet, error) {
	joined, jerr := c.loadJoined()
	if jerr != nil && !errors.Is(jerr, fs.ErrNotExist) {
		return credentialSet{}, jerr
	}
	if c.CertFile == "" {
		if jerr != nil {
			return credentialSet{}, errors.New("this host has no certificate: join with 'shipper join TOKEN', or set receiver.cert_file and key_file")
		}
		return joined, nil
	}
	pair, err := loadPair(c.CertFile, c.KeyFile)
	if jerr != nil {
		return credentialSet{pair, c.CertFile, c.KeyFile, c.CAFile, false}, err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return joined, nil
	}
	if err != nil {
		return credentialSet{}, err
	}
	if pair.Leaf.NotBefore.After(joined.certificate.Leaf.NotBefore) {
		return credentialSet{pair, c.CertFile, c.KeyFile, c.CAFile, false}, nil
	}
	return joined, nil
}

// loadJoined loads what joining wrote. The error is an [fs.ErrNotExist] if this host has not joined.
func (c ClientConfig) loadJoined() (credentialSet, error) {
	if c.IdentityDir == "" {
		return credentialSet{}, fs.ErrNotExist
	}
	path, roots := filepath.Join(c.IdentityDir, hostFile), filepath.Join(c.IdentityDir, hostRoots)
	pair, err := loadPair(path, path)
	if err != nil {
		return credentialSet{}, err
	}
	if err := checkBlocks(path); err != nil {
		return credentialSet{}, fmt.Errorf("%w; join again, or remove the file", err)
	}
	id, err := idOf(pair.Leaf)
	if err != nil {
		return credentialSet{}, fmt.Errorf("%s: %w; join again, or remove the file", path, err)
	}
	if c.Host != "" && id.Host != c.Host {
		return credentialSet{}, fmt.Errorf("%s: the certificate is of host %s, but the configuration says host_id = %q; join again, or remove the file", path, id.Host, c.Host)
	}
	return credentialSet{pair, path, path, roots, true}, nil
}

// checkBlocks returns an error if a block of a PEM file cannot be read. Package tls leaves it out, and
// the receiver refuses a chain that ends early.
func checkBlocks(path string) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	begun, found := bytes.Count(data, []byte("-----BEGIN ")), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		found++
	}
	if found != begun {
		return fmt.Errorf("%s: %d of %d PEM blocks can be read", path, found, begun)
	}
	return nil
}

// Pending is a host's request for a certificate.
type Pending struct {
	dir      string
	file     string // has the key
	key      *ecdsa.PrivateKey
	created  bool   // by this process
	replaced []byte // the content of the file before; nil if there was none
	Request  []byte // PKCS#10 in DER
}

// invitationHeader is the header of the PEM block of a key that names the invitation that it is for.
const invitationHeader = "Invitation"

// OpenPending returns the request for an invitation. Its key is durable before it returns, and the
// same in each call for the invitation: a join that was interrupted, or whose answer was lost, is
// repeated. The directory is created if it is missing.
func OpenPending(identity, invitation string) (*Pending, error) {
	return openPending(identity, pendingFile, invitationHeader, invitation)
}

// openPending returns the request whose key is in a file, and creates the key unless the file has one
// with that header.
func openPending(identity, file, header, value string) (*Pending, error) {
	f, err := createIdentityDir(identity)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &Pending{dir: identity, file: file}
	if p.key, p.replaced, err = readPending(f, file, header, value); err != nil {
		return nil, err
	}
	if p.key == nil {
		p.created = true
		if p.key, err = createPending(f, file, header, value); err != nil {
			return nil, err
		}
	}
	if p.Request, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p.key); err != nil {
		return nil, fmt.Errorf("create request: %w", err)
	}
	return p, nil
}

// readPending returns the key in a file with that header, or nil if there is none, and the content of
// the file. A file that cannot be parsed counts as none: no certificate can belong to it.
func readPending(f *pemDir, file, header, value string) (*ecdsa.PrivateKey, []byte, error) {
	data, err := f.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Headers[header] != value {
		return nil, data, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, data, nil
	}
	ec, _ := key.(*ecdsa.PrivateKey)
	return ec, data, nil
}

func createPending(f *pemDir, file, header, value string) (*ecdsa.PrivateKey, error) {
	key, err := generateKey()
	if err != nil {
		return nil, err
	}
	text, err := encodeKey(key, map[string]string{header: value})
	if err != nil {
		return nil, err
	}
	return key, f.WriteFile(file, text, 0o600)
}

// Discard takes back what [OpenPending] wrote for a request that was refused. It keeps a key of an
// earlier attempt, for this invitation or another: that one may have been answered.
func (p *Pending) Discard() error {
	if !p.created {
		return nil
	}
	f, err := openPEMDir(p.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if p.replaced != nil {
		return f.WriteFile(p.file, p.replaced, 0o600)
	}
	return f.Remove(p.file)
}

var errNoIdentityDir = errors.New("identity_dir is empty: name a directory in the configuration, or remove that line")

// createIdentityDir opens an identity directory, and creates it for its user alone if it is missing.
func createIdentityDir(path string) (*pemDir, error) {
	if path == "" { // it would be the working directory
		return nil, errNoIdentityDir
	}
	f, err := openPEMDir(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	parent, err := openDir(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	made, err := parent.MakeDirMode(filepath.Base(path), 0o700)
	if err != nil {
		return nil, err
	}
	return &pemDir{Dir: made, path: path}, nil
}

// LockIdentity takes the lock of an identity directory until it is closed, and creates the directory if
// it is missing. It must be held from the request for a certificate to its installation: two processes
// that join or renew at once would replace each other's keys. It waits a moment for another holder.
func LockIdentity(ctx context.Context, path string) (io.Closer, error) {
	f, err := createIdentityDir(path)
	if err != nil {
		return nil, err
	}
	err = f.WaitFlock(ctx)
	if _, locked := errors.AsType[*durable.LockedError](err); locked {
		err = fmt.Errorf("another process is joining or renewing in %s: try again when it is done", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CreateIdentityDir creates an identity directory for its user alone, unless it exists.
func CreateIdentityDir(path string) error {
	f, err := createIdentityDir(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// Install writes the certificate that a receiver issued for p, and the CA by which the host
// recognizes the receiver. It returns an error, and writes nothing, unless the certificate is for
// the key of p and for host.
func (p *Pending) Install(host episode.Name, chain []byte, root *x509.Certificate) (*x509.Certificate, error) {
	leaf, pair, err := p.makePair(host, chain)
	if err != nil {
		return nil, err
	}
	f, err := openPEMDir(p.dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.WriteFile(hostRoots, encodePEM(pemCertificate, root.Raw), 0o600); err != nil {
		return nil, err
	}
	return leaf, f.WriteFile(hostFile, pair, 0o600)
}

// makePair returns the first certificate of a chain for host, and the key with the chain in PEM.
func (p *Pending) makePair(host episode.Name, chain []byte) (*x509.Certificate, []byte, error) {
	leaf, err := p.checkChain(host, chain)
	if err != nil {
		return nil, nil, fmt.Errorf("the receiver's answer is not usable: %w", err)
	}
	key, err := encodeKey(p.key, nil)
	return leaf, append(key, chain...), err
}

// checkChain returns the first certificate of a chain.
func (p *Pending) checkChain(host episode.Name, chain []byte) (*x509.Certificate, error) {
	ders, err := decodeBlocks(chain, "it", pemCertificate)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return nil, errors.New("its certificate cannot be parsed")
	}
	public, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(leaf.RawSubjectPublicKeyInfo, public) {
		return nil, errors.New("the certificate is for another key")
	}
	id, err := idOf(leaf)
	if err != nil {
		return nil, err
	}
	if id.Host != host {
		return nil, fmt.Errorf("the certificate is for host %s, not %s", id.Host, host)
	}
	return leaf, nil
}

// MayHaveJoined reports whether an identity directory has the certificate of a host. If this user
// may not know, it reports true.
func MayHaveJoined(identity string) bool {
	if identity == "" {
		return false
	}
	_, err := os.Lstat(filepath.Join(identity, hostFile))
	return !errors.Is(err, fs.ErrNotExist)
}
