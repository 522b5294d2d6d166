package credentials

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
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
	"cis490/internal/pki"
)

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
	return openPending(identity, pki.HostRequestFile, invitationHeader, invitation)
}

// openPending returns the request whose key is in a file, and creates the key unless the file has one
// with that header.
func openPending(identity, file, header, value string) (*Pending, error) {
	f, err := pki.OpenIdentityDir(identity)
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
func readPending(f *pki.Dir, file, header, value string) (*ecdsa.PrivateKey, []byte, error) {
	data, err := f.Read(file)
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

func createPending(f *pki.Dir, file, header, value string) (*ecdsa.PrivateKey, error) {
	key, err := pki.GenerateKey()
	if err != nil {
		return nil, err
	}
	text, err := pki.EncodeKey(key, map[string]string{header: value})
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
	f, err := pki.OpenDir(p.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if p.replaced != nil {
		return f.WriteFile(p.file, p.replaced, 0o600)
	}
	return f.Remove(p.file)
}

// LockIdentity takes the lock of an identity directory until it is closed, and creates the directory if
// it is missing. It must be held from the request for a certificate to its installation: two processes
// that join or renew at once would replace each other's keys. It waits a moment for another holder.
func LockIdentity(ctx context.Context, path string) (io.Closer, error) {
	f, err := pki.OpenIdentityDir(path)
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

// Install writes the certificate that a receiver issued for p, and the CA by which the host
// recognizes the receiver. It returns an error, and writes nothing, unless the certificate is for
// the key of p and for host.
func (p *Pending) Install(host episode.Name, chain []byte, root *x509.Certificate) (*x509.Certificate, error) {
	leaf, pair, err := p.makePair(host, chain)
	if err != nil {
		return nil, err
	}
	f, err := pki.OpenDir(p.dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.WriteFile(pki.HostCAFile, pki.EncodePEM(pki.PEMCertificate, root.Raw), 0o600); err != nil {
		return nil, err
	}
	return leaf, f.WriteFile(pki.HostFile, pair, 0o600)
}

// makePair returns the first certificate of a chain for host, and the key with the chain in PEM.
func (p *Pending) makePair(host episode.Name, chain []byte) (*x509.Certificate, []byte, error) {
	leaf, err := p.checkChain(host, chain)
	if err != nil {
		return nil, nil, fmt.Errorf("the receiver's answer is not usable: %w", err)
	}
	key, err := pki.EncodeKey(p.key, nil)
	return leaf, append(key, chain...), err
}

// checkChain returns the first certificate of a chain.
func (p *Pending) checkChain(host episode.Name, chain []byte) (*x509.Certificate, error) {
	ders, err := pki.DecodePEM(chain, "it", pki.PEMCertificate)
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
	id, err := pki.IDOf(leaf)
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
	_, err := os.Lstat(filepath.Join(identity, pki.HostFile))
	return !errors.Is(err, fs.ErrNotExist)
}
