package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"cis490/internal/durable"
)

// A rotation replaces all CAs of a directory. The new ones are in a second directory beside it,
// and each end trusts both until [FinishRotation] exchanges the two.
const (
	nextSuffix    = "-next"         // of the directory with the new CAs
	partialSuffix = "-next.partial" // of that directory until it is complete
	formerSuffix  = "-former-"      // of the directory with the former CAs, and the date

	linkFile    = "ca-link.crt"          // the new server root, signed by the former one
	addedFile   = "added-cas.crt"        // the CAs that a rotation has added to ca.crt
	retiredFile = "retired-hosts-ca.crt" // the hosts' CAs that rotations have retired
)

// rotation is a directory of CAs with the one beside it that has the others.
type rotation struct {
	parent  *durable.Dir
	base    string // the name in parent
	current *caDir
	next    *caDir // nil unless a rotation is in progress
	// exchanged says that the directory already has the new CAs, and the one beside it the former.
	exchanged bool
}

// openRotation opens and locks a directory, and opens the one beside it if that belongs to a rotation.
func openRotation(dir string) (*rotation, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	parent, err := openPEMDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	r := &rotation{parent: parent.Dir, base: filepath.Base(path)}
	if r.current, err = r.openLocked(path); err != nil {
		return nil, errors.Join(err, r.parent.Close())
	}
	if r.next, r.exchanged, err = openBeside(r.current); err == nil && r.next == nil {
		if _, serr := r.parent.Lstat(r.base + nextSuffix); !errors.Is(serr, fs.ErrNotExist) {
			err = fmt.Errorf("%s is in the way: it does not belong to a rotation of %s; move it away", r.parent.Path(r.base+nextSuffix), path)
		}
	}
	if err == nil && !r.exchanged {
		err = r.refuseOtherFiles()
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *rotation) openLocked(path string) (*caDir, error) {
	st, err := r.parent.Lstat(r.base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w (want the directory that receiver pki init made)", err)
	case !st.IsDir():
		return nil, fmt.Errorf("%s is not a directory: name the directory itself", path)
	}
	f, err := openCADir(path)
	if err != nil {
		return nil, err
	}
	if err := f.lock(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// refuseOtherFiles returns an error if the directory has files that do not belong to the CAs: they would
// be moved away with the former CAs.
func (r *rotation) refuseOtherFiles() error {
	known := append(caFiles(), issuedDir, linkFile, retiredFile, addedFile)
	for entry, err := range r.current.Names() {
		if err != nil {
			return err
		}
		if name := entry.Name(); !slices.Contains(known, name) && !strings.HasPrefix(name, ".") {
			return fmt.Errorf("%s does not belong to the CAs, and would be moved away with them: move it elsewhere first, and change the configuration that names it", r.current.Path(name))
		}
	}
	return nil
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
func openBeside(f *caDir) (beside *caDir, exchanged bool, err error) {
	path, err := filepath.Abs(f.path)
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

// isLink reports whether a certificate says, by a signature of a trusted root, that root follows it.
// An issuing CA also has the signature of its root, and its key is on the receiver: only a certificate
// that names the new root, byte for byte, is a link.
func isLink(link, root *x509.Certificate, trusted []*x509.Certificate) bool {
	uris, err := uriNames(link)
	return err == nil && slices.Equal(uris, []string{linkName(root).String()}) && HashKey(link) == HashKey(root) &&
		slices.ContainsFunc(trusted, func(ca *x509.Certificate) bool { return link.CheckSignatureFrom(ca) == nil })
}

// linkName returns the name by which a link certificate names a root: the SHA-256 of all of it.
func linkName(root *x509.Certificate) *url.URL {
	return &url.URL{Scheme: "cis490-root", Opaque: "sha256:" + hashOf(root)}
}

// readCAs reads the CAs in a file.
func (f *pemDir) readCAs(name string) ([]*x509.Certificate, error) {
	data, err := f.read(name)
	if err != nil {
		return nil, err
	}
	return parseCAs(data, f.Path(name))
}

// withoutCAs returns the certificates of cas that are not among others.
func withoutCAs(cas, others []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool {
		return slices.ContainsFunc(others, ca.Equal)
	})
}

// ErrNoRotation says that no rotation is in progress.
var ErrNoRotation = errors.New("there is no rotation")

// formerCAs returns the hosts' CAs, in PEM, that a rotation retires.
func formerCAs(current, next *caDir) ([]byte, error) {
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
