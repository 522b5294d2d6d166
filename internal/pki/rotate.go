package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"cis490/internal/durable"
	"cis490/internal/serviceuser"
)

// A rotation replaces all CAs of a directory. The new ones are in a second directory beside it,
// and each end trusts both until [FinishRotation] exchanges the two.
const (
	nextSuffix    = "-next"         // of the directory with the new CAs
	partialSuffix = "-next.partial" // of that directory until it is complete
	formerSuffix  = "-former-"      // of the directory with the former CAs, and the date

	linkFile   = "ca-link.crt"         // the new server root, signed by the former one
	formerFile = "former-hosts-ca.crt" // the hosts' CAs that rotations have retired
)

// RotateOptions are options of [Rotate].
type RotateOptions struct {
	CAValid time.Duration     // zero means [DefaultCAValid]
	Offline bool              // create no issuing CAs
	Now     time.Time         // zero means now
	Service serviceuser.State // the receiver's, which must be able to read its key
}

// Rotate creates a second set of CAs beside the directory dir, unless an earlier call did, and adds
// them to the files in dir by which hosts and receiver recognize each other. It needs the key of the
// server's root, which signs that the new root follows it: hosts accept no other.
func Rotate(dir string, o RotateOptions) (created bool, err error) {
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
	return created, errors.Join(r.addNext(hostsCA+certSuffix), r.addNext(serverCA+certSuffix))
}

// rotation is a directory of CAs with the one beside it that has the others.
type rotation struct {
	parent  *durable.Dir
	base    string // the name in parent
	current *pemDir
	next    *pemDir // nil if there is no rotation in progress
	// exchanged says that the directory already has the new CAs, and the one beside it the former.
	exchanged bool
}

// openRotation opens and locks a directory, and opens the one beside it if that belongs to a rotation.
func openRotation(dir string) (*rotation, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &rotation{base: filepath.Base(path)}
	if r.parent, err = openDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if r.current, err = r.openLocked(path); err != nil {
		return nil, errors.Join(err, r.parent.Close())
	}
	if r.next, r.exchanged, err = openBeside(r.current); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *rotation) openLocked(path string) (*pemDir, error) {
	st, err := r.parent.Lstat(r.base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w (want the directory that receiver pki init made)", err)
	case !st.IsDir():
		return nil, fmt.Errorf("%s is not a directory: name the directory itself", path)
	}
	f, err := openPEMDir(path)
	if err != nil {
		return nil, err
	}
	if err := f.lock(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close closes the directories, and releases the lock.
func (r *rotation) Close() error {
	err := errors.Join(r.current.Close(), r.parent.Close())
	if r.next != nil {
		err = errors.Join(err, r.next.Close())
	}
	return err
}

// openBeside opens the directory beside f that belongs to a rotation: the one with the new CAs or,
// after the exchange, the one with the former. It returns nil if there is none.
func openBeside(f *pemDir) (beside *pemDir, exchanged bool, err error) {
	beside, err = openPEMDir(filepath.Clean(f.path) + nextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	follows, err := beside.follows(f)
	if err == nil && !follows {
		exchanged, err = f.follows(beside)
		if err == nil && !exchanged {
			err = fmt.Errorf("%s is in the way: it does not belong to a rotation of %s; move it away", beside.path, f.path)
		}
	}
	if err != nil {
		return nil, false, errors.Join(err, beside.Close())
	}
	return beside, exchanged, nil
}

// openNext opens the directory with the new CAs while a rotation is in progress. It returns nil
// otherwise.
func openNext(f *pemDir) (*pemDir, error) {
	next, exchanged, err := openBeside(f)
	if next != nil && exchanged {
		return nil, next.Close()
	}
	return next, err
}

// follows reports whether the root of the server in f is linked to that of former.
func (f *pemDir) follows(former *pemDir) (bool, error) {
	link, err := f.readCAs(linkFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	roots, err := f.readCAs(serverCA + certSuffix)
	if err != nil {
		return false, err
	}
	before, err := former.readCAs(serverCA + certSuffix)
	if err != nil {
		return false, err
	}
	return isLink(link[0], roots[0], before[:1]), nil
}

// isLink reports whether a certificate says, by a signature of a trusted CA, that root is trusted too.
func isLink(link, root *x509.Certificate, trusted []*x509.Certificate) bool {
	return HashKey(link) == HashKey(root) && bytes.Equal(link.RawSubject, root.RawSubject) &&
		slices.ContainsFunc(trusted, func(ca *x509.Certificate) bool { return link.CheckSignatureFrom(ca) == nil })
}

// readCAs reads the CAs in a file.
func (f *pemDir) readCAs(name string) ([]*x509.Certificate, error) {
	data, err := f.read(name)
	if err != nil {
		return nil, err
	}
	return parseCAs(data, f.Path(name))
}

// createNext creates the directory with the new CAs. What an interrupted call left of it was never
// used, and is removed.
func (r *rotation) createNext(o RotateOptions) error {
	former, err := loadAuthority(r.current, serverCA)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is needed to sign the new root: bring it back for this command if it is kept elsewhere", r.current.Path(serverCA+keySuffix))
	}
	if err != nil {
		return err
	}
	hosts, err := readHostsCA(r.current)
	if err != nil {
		return err
	}
	domain, err := trustDomainOf(hosts)
	if err != nil {
		return fmt.Errorf("%s: %w", r.current.Path(hostsCA+certSuffix), err)
	}
	own, err := readLeaf(r.current.Path(server + certSuffix))
	if err != nil {
		return err
	}
	partial := r.base + partialSuffix
	always := func(string, durable.Stat) bool { return true }
	if err := r.parent.RemoveTree(context.Background(), partial, always); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	path := r.parent.Path(partial)
	serial, err := newSerial()
	if err != nil {
		return err
	}
	init := InitOptions{Names: namesOf(own), TrustDomain: domain, CAValid: o.CAValid, Offline: o.Offline, Now: o.Now}
	init.label = " " + formatSerial(serial)[:8]
	if err := InitCA(path, init); err != nil {
		return err
	}
	if err := writeLink(path, former, orNow(o.Now)); err != nil {
		return err
	}
	if err := ShareKey(path, o.Service); err != nil {
		return err
	}
	if err := r.parent.Rename(partial, r.parent, r.base+nextSuffix); err != nil {
		return err
	}
	r.next, err = openPEMDir(filepath.Clean(r.current.path) + nextSuffix)
	return err
}

// writeLink writes the certificate by which the former root says that the one in dir follows it.
func writeLink(dir string, former authority, now time.Time) error {
	f, err := openPEMDir(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	roots, err := f.readCAs(serverCA + certSuffix)
	if err != nil {
		return err
	}
	root := roots[0]
	serial, err := newSerial()
	if err != nil {
		return err
	}
	ends := root.NotAfter
	if former.cert.NotAfter.Before(ends) {
		ends = former.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, RawSubject: root.RawSubject, SubjectKeyId: root.SubjectKeyId,
		NotBefore: now.Add(-backdate), NotAfter: ends,
		KeyUsage: root.KeyUsage, ExtKeyUsage: root.ExtKeyUsage,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}, former.cert, root.PublicKey, former.key)
	if err != nil {
		return fmt.Errorf("sign the new root: %w", err)
	}
	return f.writeCert(linkFile, encodePEM(pemCertificate, der))
}

// addNext adds the new CAs to a file of the directory.
func (r *rotation) addNext(name string) error {
	cas, err := r.current.readCAs(name)
	if err != nil {
		return err
	}
	added, err := r.next.readCAs(name)
	if err != nil {
		return err
	}
	text := encodeCerts(append(withoutCAs(cas, added), added...))
	old, err := r.current.read(name)
	if err != nil || bytes.Equal(old, text) {
		return err
	}
	return r.current.writeCert(name, text)
}

// withoutCAs returns the certificates of cas that are not among others.
func withoutCAs(cas, others []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(others, ca.Equal)
	})
}

// FinishRotation retires the former CAs: it exchanges the two directories, and moves the one with
// the former CAs to a name that has the date, which it returns. Interrupted, it is called again.
func FinishRotation(dir string, now time.Time) (former string, err error) {
	r, err := openRotation(dir)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if r.next == nil {
		return "", fmt.Errorf("%w of %s: 'receiver pki rotate' starts one", ErrNoRotation, dir)
	}
	if !r.exchanged {
		if err := errors.Join(r.keepFormer(), r.copyLists()); err != nil {
			return "", err
		}
		if err := r.parent.Exchange(r.base, r.base+nextSuffix); err != nil {
			return "", err
		}
	}
	name, err := r.parent.RenameFree(r.base+nextSuffix, r.parent, r.base+formerSuffix+orNow(now).UTC().Format("20060102"), 99)
	return r.parent.Path(name), err
}

// ErrNoRotation says that no rotation is in progress.
var ErrNoRotation = errors.New("there is no rotation")

// keepFormer writes the hosts' CAs that end to the directory with the new ones, so that their
// certificates can be told from those of strangers.
func (r *rotation) keepFormer() error {
	former, err := formerCAs(r.current, r.next)
	if err != nil {
		return err
	}
	before, err := r.current.read(formerFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.next.writeCert(formerFile, append(former, before...))
}

// formerCAs returns the hosts' CAs, in PEM, that a rotation retires.
func formerCAs(current, next *pemDir) ([]byte, error) {
	cas, err := current.readCAs(hostsCA + certSuffix)
	if err != nil {
		return nil, err
	}
	added, err := next.readCAs(hostsCA + certSuffix)
	if err != nil {
		return nil, err
	}
	return encodeCerts(withoutCAs(cas, added)), nil
}

// encodeCerts returns certificates in PEM.
func encodeCerts(certs []*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, encodePEM(pemCertificate, cert.Raw)...)
	}
	return text
}

// copyLists writes the revocations of the new CAs to their own directory. A revocation that was
// interrupted may have written them to the other one only.
func (r *rotation) copyLists() error {
	revoked, err := readRevocations(r.current)
	if err != nil {
		return err
	}
	return revoked.write()
}

// RotationStatus is how far a rotation is, for a receiver's records of its hosts.
type RotationStatus struct {
	root   string   // [HashKey] of the new root of the server, in hex
	former []string // key ids of the hosts' CAs that will be retired, in hex
}

// ReadRotation returns the rotation in progress, as an identity directory has it. It returns nil if
// there is none.
func ReadRotation(identity string) (*RotationStatus, error) {
	if identity == "" {
		return nil, nil
	}
	f, err := openPEMDir(identity)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	former, err := f.readCAs(formerCAsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	server, err := f.readCAs(rootFile)
	if err != nil {
		return nil, err
	}
	roots := rootsOf(server)
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s has no root", f.Path(rootFile))
	}
	s := &RotationStatus{root: hashKeys(roots[len(roots)-1:])[0]}
	for _, ca := range former {
		s.former = append(s.former, hex.EncodeToString(ca.SubjectKeyId))
	}
	return s, nil
}

// TrustsNewCA reports whether a host said that it recognizes the receiver by the new root.
func (s *RotationStatus) TrustsNewCA(r HostRecord) bool { return slices.Contains(r.TrustedCAs, s.root) }

// HasNewCertificate reports whether a host was here last with a certificate of the new CAs.
func (s *RotationStatus) HasNewCertificate(r HostRecord) bool {
	return r.IssuerKeyID != "" && !slices.Contains(s.former, r.IssuerKeyID)
}
