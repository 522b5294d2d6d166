package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"cis490/internal/durable"
	"cis490/internal/serviceuser"
)

// Dir is a directory of PEM files.
type Dir struct {
	*durable.Dir
	Name string // the path by which it was opened, for messages
}

// OpenDir opens a directory. Root does not follow links of other users.
func OpenDir(path string) (*Dir, error) {
	dir, err := openDurable(path)
	if err != nil {
		return nil, err
	}
	return &Dir{Dir: dir, Name: path}, nil
}

// openDurable opens a directory that a command names. Root does not follow links of other users,
// because it writes keys there.
func openDurable(path string) (*durable.Dir, error) {
	if os.Geteuid() == 0 {
		return serviceuser.OpenDir(path)
	}
	return durable.Open(path)
}

// CreateDir opens path, and creates what is missing of it.
func CreateDir(path string) (*Dir, error) {
	if err := makeDirs(filepath.Clean(path)); err != nil {
		return nil, err
	}
	return OpenDir(path)
}

// makeDirs creates path and its parents, each durable in its parent. Others may read them, unlike
// those of package durable, because the receiver and the operator are different users. Secret files
// have a mode of their own.
func makeDirs(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	dir, err := openDurable(parent)
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

// WriteCert writes a file that everybody may read: a certificate or a list.
func (f *Dir) WriteCert(name string, data []byte) error { return f.WriteFile(name, data, 0o644) }

// WriteKey writes a key that only its owner can read. If it replaces a key that the daemon's group
// can read, the group can read the new one too.
func (f *Dir) WriteKey(name string, key crypto.PrivateKey) error {
	text, err := EncodeKey(key, nil)
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

// Exists reports whether the directory has a file.
func (f *Dir) Exists(name string) (bool, error) {
	_, err := f.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Read returns the content of a file of bounded size.
func (f *Dir) Read(name string) ([]byte, error) {
	r, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return durable.ReadAtMost(r, f.Path(name), maxFile)
}

// ReadCAs reads the CAs in a file.
func (f *Dir) ReadCAs(name string) ([]*x509.Certificate, error) {
	data, err := f.Read(name)
	if err != nil {
		return nil, err
	}
	return ParseCAs(data, f.Path(name))
}

// LoadPairFile loads a CA whose key and certificate are in one file.
func (f *Dir) LoadPairFile(name string) (Authority, error) {
	data, err := f.Read(name)
	if err != nil {
		return Authority{}, err
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return Authority{}, fmt.Errorf("load %s: %w", f.Path(name), err)
	}
	return Authority{Cert: pair.Leaf, Key: pair.PrivateKey.(crypto.Signer)}, nil
}
