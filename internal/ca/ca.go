// Package ca is what an operator does with a directory of CAs: [Init] creates it, [IssueHost] and
// [RenewServer] sign with it, and [InstallIssuing] copies the issuing CAs to a receiver.
//
// There are two roots, so that neither side can impersonate the other. The hosts trust ca.crt,
// which vouches for the receiver's certificate. The receiver trusts hosts-ca.crt, which vouches for
// the hosts' certificates and is constrained to one trust domain. Below each there may be an
// issuing CA, so that the root's key can be kept offline. During a rotation a second directory is
// beside the first ([OpenNext]), and hosts get certificates of the new CAs.
//
// Invariants: a CA is never replaced by another. A certificate is on record in the directory before
// it is handed out, so that a revocation knows it. Commands that change a directory exclude each
// other by a lock, and what an interrupted one leaves is completed or ignored by the next.
package ca

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"cis490/internal/durable"
	"cis490/internal/pathwatch"
	"cis490/internal/pki"
)

// Names in a CA directory. The first five are stems of a .crt and a .key each.
const (
	ServerCA      = "ca"
	HostsCA       = "hosts-ca"
	serverIssuing = "ca-issuing"
	HostsIssuing  = "hosts-ca-issuing"
	Server        = "server"

	CRLFile = "hosts.crl"
)

// lockName is the lock of a CA directory. Older programs lock the directory itself.
const lockName = ".pki.lock"

// Dir is a directory of CAs.
type Dir struct {
	*pki.Dir
	heldLock *durable.Lock // nil unless locked
}

// OpenUnchecked opens a directory without a check of what is there.
func OpenUnchecked(path string) (*Dir, error) {
	f, err := pki.OpenDir(path)
	if err != nil {
		return nil, err
	}
	return &Dir{Dir: f}, nil
}

// Open opens the directory that [Init] created.
func Open(path string) (*Dir, error) {
	f, err := OpenUnchecked(path)
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

// LockChanges keeps other processes from changing the directory until it is closed. Of two concurrent
// revocations, one would be lost.
func (f *Dir) LockChanges() error {
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
	if err := pathwatch.Check(f.Dir.Dir); err != nil { // a rotation was finished while this waited
		return fmt.Errorf("%w; try again", err)
	}
	f.TryFlock()
	return nil
}

// Close releases the lock, if it is held, and closes the directory.
func (f *Dir) Close() error {
	if f.heldLock == nil {
		return f.Dir.Close()
	}
	return errors.Join(f.heldLock.Unlock(), f.Dir.Close())
}

// LoadAuthority loads a certificate and its key, and checks that they match.
func LoadAuthority(f *Dir, name string) (pki.Authority, error) {
	certPEM, err := f.Read(name + pki.CertSuffix)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	keyPEM, err := f.Read(name + pki.KeySuffix)
	if found, _ := f.Exists(HostsCA + pki.CertSuffix); !found && err != nil {
		return pki.Authority{}, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return pki.Authority{}, fmt.Errorf("%w (is it kept elsewhere? run this where the CA's keys are, and copy its output)", err)
	}
	if err != nil {
		return pki.Authority{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return pki.Authority{}, fmt.Errorf("load %s and its key: %w", f.Path(name+pki.CertSuffix), err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return pki.Authority{}, fmt.Errorf("load %s: a key that cannot sign", f.Path(name+pki.KeySuffix))
	}
	return pki.Authority{Cert: pair.Leaf, Key: key}, nil
}

// ReadHostsCA reads the hosts' CA without its key.
func ReadHostsCA(f *Dir) (*x509.Certificate, error) {
	data, err := f.Read(HostsCA + pki.CertSuffix)
	if err != nil {
		return nil, fmt.Errorf("%w (is %s a directory made by receiver pki init?)", err, f.Name)
	}
	cas, err := pki.ParseCAs(data, f.Path(HostsCA+pki.CertSuffix))
	if err != nil {
		return nil, err
	}
	return cas[0], nil
}
