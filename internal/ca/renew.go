package ca

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"time"

	"cis490/internal/pki"
	"cis490/internal/serviceuser"
)

// RenewOptions are options of [RenewServer].
type RenewOptions struct {
	Names     []string      // empty means those of the old certificate
	LeafValid time.Duration // zero means [pki.DefaultLeafValid]
	Now       time.Time     // zero means now
}

// RenewServer replaces the receiver's certificate and returns when the new one expires. The key
// stays, so that only one file changes and power loss cannot leave a key with another certificate.
// During a rotation it also replaces the one that will be used after it.
func RenewServer(dir string, o RenewOptions) (time.Time, error) {
	f, err := Open(dir)
	if err != nil {
		return time.Time{}, err
	}
	defer f.Close()
	if err := f.LockChanges(); err != nil {
		return time.Time{}, err
	}
	next, err := OpenNext(f)
	if err != nil {
		return time.Time{}, err
	}
	if next != nil {
		defer next.Close()
		if _, err := renewServerIn(next, o); err != nil {
			return time.Time{}, err
		}
	}
	return renewServerIn(f, o)
}

func renewServerIn(f *Dir, o RenewOptions) (time.Time, error) {
	old, err := LoadAuthority(f, Server)
	if err != nil {
		return time.Time{}, err
	}
	names := o.Names
	if len(names) == 0 {
		names = pki.NamesOf(old.Cert)
	}
	ca, err := serverSigner(f, names)
	if err != nil {
		return time.Time{}, err
	}
	renewed, err := writeServer(f, ca, old.Key.Public(), names, cmp.Or(o.Now, time.Now()), o.LeafValid)
	if err != nil {
		return time.Time{}, err
	}
	return renewed.NotAfter, nil
}

// writeServer signs and writes the receiver's certificate.
func writeServer(f *Dir, ca pki.Authority, key crypto.PublicKey, names []string, now time.Time, valid time.Duration) (*x509.Certificate, error) {
	cert, err := ca.SignServer(key, names, now, valid)
	if err != nil {
		return nil, err
	}
	return cert, f.WriteCert(Server+pki.CertSuffix, ca.ChainOf(cert))
}

// ShareKey lets the service read the receiver's key in a directory that root has created: its group
// may, as a package's tmpfiles configuration has it.
func ShareKey(dir string, s serviceuser.State) error {
	return serviceuser.ShareFile(s, dir, Server+pki.KeySuffix)
}
