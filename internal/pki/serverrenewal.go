package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// Names in a receiver's identity directory.
const (
	serverFile        = "server.pem"         // key and chain of the receiver, as renewal wrote them
	serverIssuingFile = "server-issuing.pem" // key and certificate of the receiver's issuing CA
)

// chooseServer returns the receiver's certificate, and whether renewal wrote it. The configured one is
// used if it is not the one that was renewed: what the operator installs wins, whatever the clocks said.
// So it is if only the configured one is valid now.
func (c Config) chooseServer(now time.Time) (pair tls.Certificate, renewed bool, err error) {
	configured, err := loadPair(c.CertFile, c.KeyFile)
	if err != nil || c.IdentityDir == "" {
		return configured, false, err
	}
	pair, err = c.loadRenewed(configured.Leaf)
	if errors.Is(err, fs.ErrNotExist) {
		return configured, false, nil
	}
	if err != nil {
		return tls.Certificate{}, false, err
	}
	if checkTime(pair.Leaf, now) != nil && checkTime(configured.Leaf, now) == nil {
		return configured, false, nil
	}
	return pair, true, nil
}

// loadRenewed loads the certificate that renewal wrote. The error is an [fs.ErrNotExist] if there is
// none in place of the configured one.
func (c Config) loadRenewed(configured *x509.Certificate) (tls.Certificate, error) {
	path := filepath.Join(c.IdentityDir, serverFile)
	data, err := readFile(path)
	if err != nil {
		return tls.Certificate{}, err
	}
	block, _ := pem.Decode(data)
	if block != nil && block.Headers[replacesHeader] != hashOf(configured) {
		return tls.Certificate{}, fs.ErrNotExist
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return pair, fmt.Errorf("load %s: %w; remove the file to use %s", path, err, c.CertFile)
	}
	return pair, nil
}

func hashOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// RenewOwn replaces the receiver's certificate if half of its life is over or it is not valid now, and
// reports whether it did. [LoadTrust] uses the new one from then on. There is nothing to do if the
// issuing CA in the identity directory did not sign the certificate in use, which is someone else's to
// renew.
func (c Config) RenewOwn(now time.Time) (bool, error) {
	leaf, ca, err := c.ownRenewable(now)
	if err != nil || leaf == nil || now.Before(ca.cert.NotBefore) { // such a clock is wrong
		return false, err
	}
	if checkTime(leaf, now) == nil && now.Before(renewalTime(leaf)) {
		return false, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return false, fmt.Errorf("generate key: %w", err)
	}
	cert, err := ca.signServer(key.Public(), namesOf(leaf), now, 0)
	if err != nil {
		return false, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return false, fmt.Errorf("encode key: %w", err)
	}
	configured, err := loadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return false, err
	}
	f, err := openPEMDir(c.IdentityDir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	block := &pem.Block{Type: pemKey, Headers: map[string]string{replacesHeader: hashOf(configured.Leaf)}, Bytes: der}
	return true, f.WriteFile(serverFile, append(pem.EncodeToMemory(block), ca.chainOf(cert)...), 0o600)
}

// RenewsOwnAt returns when [Config.RenewOwn] replaces the certificate in use. It reports false if it
// does not.
func (c Config) RenewsOwnAt(now time.Time) (at time.Time, ok bool) {
	leaf, _, err := c.ownRenewable(now)
	if err != nil || leaf == nil {
		return time.Time{}, false
	}
	return renewalTime(leaf), true
}

// LacksOwnIssuer reports whether the receiver could renew its certificate if its issuing CA were
// installed, as an earlier release did not do.
func (c Config) LacksOwnIssuer() bool {
	_, err := OpenIssuer(c.IdentityDir)
	_, own := loadServerIssuing(c.IdentityDir)
	return err == nil && errors.Is(own, fs.ErrNotExist)
}

// ownRenewable returns the receiver's certificate and the issuing CA that signed it, or nil if there is
// no such CA here, or if a new certificate would expire no later.
func (c Config) ownRenewable(now time.Time) (*x509.Certificate, authority, error) {
	ca, err := loadServerIssuing(c.IdentityDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ca, nil
	}
	if err != nil {
		return nil, ca, err
	}
	current, _, err := c.chooseServer(now)
	if err != nil {
		return nil, ca, err
	}
	leaf := current.Leaf
	lastsAsLong := checkTime(leaf, now) == nil && !leaf.NotAfter.Before(ca.cert.NotAfter)
	if leaf.CheckSignatureFrom(ca.cert) != nil || lastsAsLong {
		return nil, ca, nil
	}
	return leaf, ca, nil
}

// loadServerIssuing loads the receiver's issuing CA. The error is an [fs.ErrNotExist] if there is none.
func loadServerIssuing(identity string) (authority, error) {
	if identity == "" {
		return authority{}, fs.ErrNotExist
	}
	f, err := openPEMDir(identity)
	if err != nil {
		return authority{}, err
	}
	defer f.Close()
	return f.loadPairFile(serverIssuingFile)
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
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{encodePEM(pemKey, key), encodePEM(pemCertificate, a.cert.Raw)}, nil), nil
}
