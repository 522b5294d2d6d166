package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"cis490/internal/durable"
)

// Names in a CA directory. The first five are stems of a .crt and a .key each.
const (
	serverCA      = "ca"
	hostsCA       = "hosts-ca"
	serverIssuing = "ca-issuing"
	hostsIssuing  = "hosts-ca-issuing"
	server        = "server"

	crlFile = "hosts.crl"
)

// lockName is the lock of a CA directory. Older programs lock the directory itself.
const lockName = ".pki.lock"

// caDir is a directory of CAs.
type caDir struct {
	*Dir
	heldLock *durable.Lock // nil unless locked
}

// openCADir opens a directory without a check of what is there.
func openCADir(path string) (*caDir, error) {
	f, err := OpenDir(path)
	if err != nil {
		return nil, err
	}
	return &caDir{Dir: f}, nil
}

// openCA opens the directory that [InitCA] created.
func openCA(path string) (*caDir, error) {
	f, err := openCADir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (want the directory that receiver pki init made)", err)
	}
	if err != nil {
		return nil, err
	}
	incomplete, err := f.Exists(incompleteFile)
	if err == nil && incomplete {
		err = fmt.Errorf("%s is not complete: 'receiver setup' or 'receiver pki init' was interrupted; run it again", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lock keeps other processes from changing the directory until it is closed. Of two concurrent
// revocations, one would be lost.
func (f *caDir) lock() error {
	held, err := f.Lock(lockName, fmt.Sprintf("pid %d (receiver pki)", os.Getpid()))
	if errors.Is(err, fs.ErrPermission) { // without its path: no mode of a CA's files should be loosened
		return fmt.Errorf("the CAs in %s belong to another user: run this command as that user, such as root", f.Name)
	}
	if locked, ok := errors.AsType[*durable.LockedError](err); ok {
		return fmt.Errorf("%s is in use by another pki command: %s; try again when that is done", f.Name, locked)
	}
	if err != nil {
		return err
	}
	f.heldLock = held
	if err := f.CheckPath(); err != nil { // a rotation was finished while this waited
		return fmt.Errorf("%w; try again", err)
	}
	f.TryFlock()
	return nil
}

// Close releases the lock, if it is held, and closes the directory.
func (f *caDir) Close() error {
	if f.heldLock == nil {
		return f.Dir.Close()
	}
	return errors.Join(f.heldLock.Unlock(), f.Dir.Close())
}

// loadAuthority loads a certificate and its key, and checks that they match.
func loadAuthority(f *caDir, name string) (Authority, error) {
	certPEM, err := f.Read(name + CertSuffix)
	if err != nil {
		return Authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	keyPEM, err := f.Read(name + KeySuffix)
	if found, _ := f.Exists(hostsCA + CertSuffix); !found && err != nil {
		return Authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Authority{}, fmt.Errorf("%w (is it kept elsewhere? run this where the CA's keys are, and copy its output)", err)
	}
	if err != nil {
		return Authority{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return Authority{}, fmt.Errorf("load %s and its key: %w", f.Path(name+CertSuffix), err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return Authority{}, fmt.Errorf("load %s: a key that cannot sign", f.Path(name+KeySuffix))
	}
	return Authority{Cert: pair.Leaf, Key: key}, nil
}

// readHostsCA reads the hosts' CA without its key.
func readHostsCA(f *caDir) (*x509.Certificate, error) {
	data, err := f.Read(hostsCA + CertSuffix)
	if err != nil {
		return nil, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	cas, err := ParseCAs(data, f.Path(hostsCA+CertSuffix))
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}
