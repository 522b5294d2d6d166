package credentials

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"cis490/internal/pki"
)

// credentialSet is a certificate with its key, and the CAs that were given with it.
type credentialSet struct {
	certificate               tls.Certificate
	certFile, keyFile, caFile string
	joined                    bool // from the identity directory
}

// chooseCredentials returns the credentials to use: of the configured ones and those in the identity directory,
// the ones that became valid later.
func (c Config) chooseCredentials() (credentialSet, error) {
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
	pair, err := pki.LoadPair(c.CertFile, c.KeyFile)
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
func (c Config) loadJoined() (credentialSet, error) {
	if c.IdentityDir == "" {
		return credentialSet{}, fs.ErrNotExist
	}
	path, roots := filepath.Join(c.IdentityDir, pki.HostFile), filepath.Join(c.IdentityDir, pki.HostCAFile)
	pair, err := pki.LoadPair(path, path)
	if err != nil {
		return credentialSet{}, err
	}
	if err := checkBlocks(path); err != nil {
		return credentialSet{}, fmt.Errorf("%w; join again, or remove the file", err)
	}
	id, err := pki.IDOf(pair.Leaf)
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
	data, err := pki.ReadFile(path)
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
