package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cis490/internal/durable"
	"cis490/internal/serviceuser"
)

// maxFile bounds the size of any file read here. A CRL of 4 MiB has some hundred thousand
// certificates.
const maxFile = 4 << 20

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemCRL         = "X509 CRL"
)

// pemDir is a directory of PEM files.
type pemDir struct {
	*durable.Dir
	path string
}

func openPEMDir(path string) (*pemDir, error) {
	dir, err := openDir(path)
	if err != nil {
		return nil, err
	}
	return &pemDir{Dir: dir, path: path}, nil
}

// openDir opens a directory that a command names. Root does not follow links of other users,
// because it writes keys there.
func openDir(path string) (*durable.Dir, error) {
	if os.Geteuid() == 0 {
		return serviceuser.OpenDir(path)
	}
	return durable.Open(path)
}

// createPEMDir opens path, and creates what is missing of it.
func createPEMDir(path string) (*pemDir, error) {
	if err := createDir(filepath.Clean(path)); err != nil {
		return nil, err
	}
	return openPEMDir(path)
}

// createDir creates path and its parents, each durable in its parent. Others may read them, unlike
// those of package durable, because the receiver and the operator are different users. Secret files
// have a mode of their own.
func createDir(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := createDir(parent); err != nil {
			return err
		}
	}
	dir, err := openDir(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	made, err := dir.MakeDirMode(filepath.Base(path), 0o755)
	if err != nil {
		return err
	}
	return made.Close()
}

// writeCert writes a file that everybody may read: a certificate or a list.
func (f *pemDir) writeCert(name string, data []byte) error { return f.WriteFile(name, data, 0o644) }

// writeKey writes a key that only its owner can read. If it replaces a key that the daemon's group
// can read, the group can read the new one too.
func (f *pemDir) writeKey(name string, key crypto.PrivateKey) error {
	text, err := encodeKey(key, nil)
	if err != nil {
		return err
	}
	perm := fs.FileMode(0o600)
	old, err := f.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && old.IsRegular() {
		perm |= old.Perm() & 0o040
	}
	return f.WriteFile(name, text, perm)
}

func (f *pemDir) exists(name string) (bool, error) {
	_, err := f.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (f *pemDir) read(name string) ([]byte, error) {
	r, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return durable.ReadAtMost(r, f.Path(name), maxFile)
}

// readFile reads a configured file of bounded size.
func readFile(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return durable.ReadAtMost(r, path, maxFile)
}

// generateKey returns a new key for a certificate.
func generateKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// encodeKey returns a key in PEM, with headers of its block, which other programs ignore.
func encodeKey(key crypto.PrivateKey, headers map[string]string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Headers: headers, Bytes: der}), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// decodeBlocks returns the PEM blocks of data. There must be at least one, and all must be of the
// given kind. A malformed block is an error: the decoder would skip it, and a part of a CA bundle
// or CRL must not pass for the whole.
func decodeBlocks(data []byte, path, kind string) ([][]byte, error) {
	begun := bytes.Count(data, []byte("-----BEGIN "))
	var ders [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != kind {
			return nil, fmt.Errorf("%s holds a PEM block %s; only %q belongs there", path, quoteText(block.Type), kind)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 || len(ders) != begun {
		return nil, fmt.Errorf("%s: %d of %d PEM blocks %q can be read", path, len(ders), begun, kind)
	}
	return ders, nil
}

// parseCAs parses a bundle of CA certificates. It does not check their validity, because a
// Raspberry Pi starts without knowing the date. Each use does.
func parseCAs(data []byte, path string) ([]*x509.Certificate, error) {
	ders, err := decodeBlocks(data, path, pemCertificate)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	for _, der := range ders {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		if !ca.BasicConstraintsValid || !ca.IsCA {
			return nil, fmt.Errorf("%s holds the certificate of %s, which is not a CA", path, quoteText(ca.Subject.CommonName))
		}
		cas = append(cas, ca)
	}
	return cas, nil
}

// readPool returns the CA certificates in a file, and a pool of them.
func readPool(path string) ([]*x509.Certificate, *x509.CertPool, error) {
	data, err := readPEM(path)
	if err != nil {
		return nil, nil, err
	}
	cas, err := parseCAs(data, path)
	if err != nil {
		return nil, nil, err
	}
	return cas, poolOf(cas), nil
}
