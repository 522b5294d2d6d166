package rotation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"cis490/internal/ca"
	"cis490/internal/durable"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
)

// Options are options of [Start].
type Options struct {
	CAValid time.Duration     // zero means [ca.DefaultCAValid]
	Offline bool              // create no issuing CAs
	Now     time.Time         // zero means now
	Service serviceuser.State // the receiver's, which must be able to read its key
}

// Start creates a second set of CAs beside the directory dir, unless an earlier call did, and adds
// them to the files in dir by which hosts and receiver recognize each other. It needs the key of the
// server's root, which signs that the new root follows it: hosts accept no other.
func Start(dir string, o Options) (created bool, err error) {
	r, err := openRotation(dir)
	if err != nil {
		return false, err
	}
	defer r.Close()
	if r.exchanged {
		return false, fmt.Errorf("the rotation of %s is not complete: run 'receiver pki rotate --finish' again", dir)
	}
	if r.next == nil {
		if err := r.createNext(o); err != nil {
			return false, err
		}
		created = true
	}
	return created, r.addNext()
}

// createNext creates the directory with the new CAs. What an interrupted call left of it was never
// used, and is removed.
func (r *rotation) createNext(o Options) error {
	former, err := ca.LoadAuthority(r.current, ca.ServerCA)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is needed to sign the new root: bring it back for this command if it is kept elsewhere", r.current.Path(ca.ServerCA+pki.KeySuffix))
	}
	if err != nil {
		return err
	}
	hosts, err := ca.ReadHostsCA(r.current)
	if err != nil {
		return err
	}
	domain, err := pki.TrustDomainOf(hosts)
	if err != nil {
		return fmt.Errorf("%s: %w", r.current.Path(ca.HostsCA+pki.CertSuffix), err)
	}
	own, err := pki.ReadLeaf(r.current.Path(ca.Server + pki.CertSuffix))
	if err != nil {
		return err
	}
	if err := r.parent.CheckExchange(r.base); err != nil {
		return err
	}
	partial := r.base + partialSuffix
	always := func(string, durable.Stat) bool { return true }
	if err := r.parent.RemoveTree(context.Background(), partial, always); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := r.parent.Path(partial)
	serial, err := pki.NewSerial()
	if err != nil {
		return err
	}
	init := ca.InitOptions{Names: pki.NamesOf(own), TrustDomain: domain, CAValid: o.CAValid, Offline: o.Offline, Now: o.Now}
	init.Label = " " + pki.FormatSerial(serial)[:8]
	if err := ca.Init(path, init); err != nil {
		return err
	}
	if err := writeLink(path, former, cmp.Or(o.Now, time.Now())); err != nil {
		return err
	}
	if err := ca.ShareKey(path, o.Service); err != nil {
		return err
	}
	if err := copyAccess(r.current, path); err != nil {
		return err
	}
	if err := r.parent.Rename(partial, r.parent, r.base+ca.NextSuffix); err != nil {
		return err
	}
	r.next, err = ca.OpenUnchecked(filepath.Clean(r.current.Name) + ca.NextSuffix)
	return err
}

// copyAccess gives a directory the mode of f and, if root runs this, its owner.
func copyAccess(f *ca.Dir, path string) error {
	to, err := pki.OpenDir(path)
	if err != nil {
		return err
	}
	defer to.Close()
	info, err := f.File().Stat()
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		st := info.Sys().(*syscall.Stat_t)
		if err := to.File().Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return to.File().Chmod(info.Mode().Perm())
}

// writeLink writes the link certificate, in which the former root vouches for the root in dir.
func writeLink(dir string, former pki.Authority, now time.Time) error {
	f, err := pki.OpenDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	roots, err := f.ReadCAs(ca.ServerCA + pki.CertSuffix)
	if err != nil {
		return err
	}
	root := roots[0]
	serial, err := pki.NewSerial()
	if err != nil {
		return err
	}
	ends := root.NotAfter
	if former.Cert.NotAfter.Before(ends) {
		ends = former.Cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, RawSubject: root.RawSubject, SubjectKeyId: root.SubjectKeyId,
		NotBefore: now.Add(-pki.Backdate), NotAfter: ends,
		KeyUsage: root.KeyUsage, ExtKeyUsage: root.ExtKeyUsage, URIs: []*url.URL{pki.LinkName(root)},
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, former.Cert, root.PublicKey, former.Key)
	if err != nil {
		return fmt.Errorf("sign the new root: %w", err)
	}
	return f.WriteCert(ca.LinkFile, pki.EncodePEM(pki.PEMCertificate, der))
}

// addNext adds the new CAs to the files by which both ends recognize each other. The CAs of an abandoned
// rotation count as former from now on: its root is no longer announced, and hosts with certificates of
// it are asked to renew.
func (r *rotation) addNext() error {
	before, err := r.current.ReadCAs(addedFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	roots, err := r.next.ReadCAs(ca.ServerCA + pki.CertSuffix)
	if err != nil {
		return err
	}
	if err := r.addNextTo(ca.HostsCA+pki.CertSuffix, nil); err != nil {
		return err
	}
	// Listed before they are added: a later rotation can then remove them, whenever this one is cut.
	if err := replaceCert(r.current, addedFile, pki.EncodeCerts(append(pki.WithoutCAs(before, roots), roots...))); err != nil {
		return err
	}
	if err := r.addNextTo(ca.ServerCA+pki.CertSuffix, before); err != nil {
		return err
	}
	return replaceCert(r.current, addedFile, pki.EncodeCerts(roots))
}

// addNextTo adds the new CAs to a file, and removes others.
func (r *rotation) addNextTo(name string, others []*x509.Certificate) error {
	cas, err := r.current.ReadCAs(name)
	if err != nil {
		return err
	}
	added, err := r.next.ReadCAs(name)
	if err != nil {
		return err
	}
	return replaceCert(r.current, name, pki.EncodeCerts(append(pki.WithoutCAs(cas, slices.Concat(others, added)), added...)))
}

// replaceCert writes a certificate file unless it has that content.
func replaceCert(f *ca.Dir, name string, data []byte) error {
	old, err := f.Read(name)
	if err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.WriteCert(name, data)
}
