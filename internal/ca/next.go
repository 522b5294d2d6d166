package ca

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"cis490/internal/pki"
)

// A rotation replaces all CAs of a directory. The new ones are in a second directory beside it,
// and each end trusts both until package rotation exchanges the two.
const (
	NextSuffix  = "-next"                // of the directory with the new CAs
	LinkFile    = "ca-link.crt"          // the new server root, signed by the former one
	RetiredFile = "retired-hosts-ca.crt" // the hosts' CAs that rotations have retired
)

// OpenBeside opens the directory beside f that belongs to a rotation: the one with the new CAs or,
// after the exchange, the one with the former. It returns nil if there is none.
func OpenBeside(f *Dir) (beside *Dir, exchanged bool, err error) {
	path, err := filepath.Abs(f.Name)
	if err != nil {
		return nil, false, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, false, err
	}
	beside, err = OpenUnchecked(path + NextSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	follows, err := beside.isLinkedTo(f)
	if err == nil && !follows {
		exchanged, err = f.isLinkedTo(beside)
	}
	if err != nil || !follows && !exchanged { // it is of something else
		return nil, false, errors.Join(err, beside.Close())
	}
	return beside, exchanged, nil
}

// OpenNext opens the directory with the new CAs while a rotation is in progress. It returns nil
// otherwise.
func OpenNext(f *Dir) (*Dir, error) {
	next, exchanged, err := OpenBeside(f)
	if next != nil && exchanged {
		return nil, next.Close()
	}
	return next, err
}

// isLinkedTo reports whether the root of the server in f is linked to that of former.
func (f *Dir) isLinkedTo(former *Dir) (bool, error) {
	link, err := f.ReadCAs(LinkFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	roots, err := f.ReadCAs(ServerCA + pki.CertSuffix)
	if err != nil {
		return false, err
	}
	before, err := former.ReadCAs(ServerCA + pki.CertSuffix)
	if err != nil {
		return false, err
	}
	return pki.IsLink(link[0], roots[0], before[:1]), nil
}

// FormerCAs returns the hosts' CAs, in PEM, that a rotation retires.
func FormerCAs(current, next *Dir) ([]byte, error) {
	cas, err := current.ReadCAs(HostsCA + pki.CertSuffix)
	if err != nil {
		return nil, err
	}
	added, err := next.ReadCAs(HostsCA + pki.CertSuffix)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCerts(pki.WithoutCAs(cas, added)), nil
}

// HasIssuing reports whether dir was created with issuing CAs, even if their files were moved offline.
func HasIssuing(dir string) (bool, error) {
	f, err := Open(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	cas, err := f.ReadCAs(HostsCA + pki.CertSuffix)
	return slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return !pki.IsRoot(ca) }), err
}
