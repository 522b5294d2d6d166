package pki

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// A rotation replaces all CAs of a directory. The new ones are in a second directory beside it,
// and each end trusts both until [FinishRotation] exchanges the two.
const (
	nextSuffix  = "-next"                // of the directory with the new CAs
	linkFile    = "ca-link.crt"          // the new server root, signed by the former one
	retiredFile = "retired-hosts-ca.crt" // the hosts' CAs that rotations have retired
)

// openBeside opens the directory beside f that belongs to a rotation: the one with the new CAs or,
// after the exchange, the one with the former. It returns nil if there is none.
func openBeside(f *caDir) (beside *caDir, exchanged bool, err error) {
	path, err := filepath.Abs(f.Name)
	if err != nil {
		return nil, false, err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, false, err
	}
	beside, err = openCADir(path + nextSuffix)
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

// openNext opens the directory with the new CAs while a rotation is in progress. It returns nil
// otherwise.
func openNext(f *caDir) (*caDir, error) {
	next, exchanged, err := openBeside(f)
	if next != nil && exchanged {
		return nil, next.Close()
	}
	return next, err
}

// isLinkedTo reports whether the root of the server in f is linked to that of former.
func (f *caDir) isLinkedTo(former *caDir) (bool, error) {
	link, err := f.ReadCAs(linkFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	roots, err := f.ReadCAs(serverCA + CertSuffix)
	if err != nil {
		return false, err
	}
	before, err := former.ReadCAs(serverCA + CertSuffix)
	if err != nil {
		return false, err
	}
	return IsLink(link[0], roots[0], before[:1]), nil
}

// formerCAs returns the hosts' CAs, in PEM, that a rotation retires.
func formerCAs(current, next *caDir) ([]byte, error) {
	cas, err := current.ReadCAs(hostsCA + CertSuffix)
	if err != nil {
		return nil, err
	}
	added, err := next.ReadCAs(hostsCA + CertSuffix)
	if err != nil {
		return nil, err
	}
	return EncodeCerts(WithoutCAs(cas, added)), nil
}

// HasIssuing reports whether dir was created with issuing CAs, even if their files were moved offline.
func HasIssuing(dir string) (bool, error) {
	f, err := openCA(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	cas, err := f.ReadCAs(hostsCA + CertSuffix)
	return slices.ContainsFunc(cas, func(ca *x509.Certificate) bool { return !IsRoot(ca) }), err
}
