package pki

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// FinishRotation retires the former CAs: it exchanges the two directories, and moves the one with
// the former CAs to a name that has the date, which it returns. Interrupted, it is called again.
//
// It refuses unless the identity directory has what [ReplaceIssuing] writes there: without it, no ping
// has announced the new CAs.
func FinishRotation(dir, identity string, now time.Time) (former string, err error) {
	r, err := openRotation(dir)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if r.next == nil {
		return "", fmt.Errorf("%w of %s: 'receiver pki rotate' starts one", ErrNoRotation, dir)
	}
	if !r.exchanged {
		installed, err := isInstalled(r.current, identity)
		if err != nil {
			return "", err
		}
		if !installed {
			return "", fmt.Errorf("%s does not have the new CAs: run 'receiver pki rotate' again, and wait for the hosts", identity)
		}
		if err := errors.Join(r.recordRetired(), r.copyRevocations()); err != nil {
			return "", err
		}
		if err := r.parent.Exchange(r.base, r.base+nextSuffix); err != nil {
			return "", err
		}
	}
	name, err := r.parent.RenameFree(r.base+nextSuffix, r.parent, r.base+formerSuffix+cmp.Or(now, time.Now()).UTC().Format("20060102"), 99)
	return r.parent.Path(name), err
}

// recordRetired lists the retired CAs of the hosts in the directory with the new ones, so that commands
// recognize their certificates.
func (r *rotation) recordRetired() error {
	former, err := formerCAs(r.current, r.next)
	if err != nil {
		return err
	}
	before, err := r.current.read(retiredFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.next.writeCert(retiredFile, append(former, before...))
}

// copyRevocations writes the revocations of the new CAs to their own directory. A revocation that was
// interrupted may have written them to the other one only.
func (r *rotation) copyRevocations() error {
	revoked, err := readRevocations(r.current)
	if err != nil {
		return err
	}
	return revoked.write()
}

// RotationStatus is how far a rotation is, for a receiver's records of its hosts.
type RotationStatus struct {
	root string   // [HashKey] of the new root of the server, in hex
	next []string // key ids of the new CAs of the hosts, in hex
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
	next, err := f.readCAs(nextCAsFile)
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
	for _, ca := range next {
		s.next = append(s.next, hex.EncodeToString(ca.SubjectKeyId))
	}
	return s, nil
}

// TrustsNewCA reports whether a host said that it recognizes the receiver by the new root.
func (s *RotationStatus) TrustsNewCA(r HostRecord) bool { return slices.Contains(r.TrustedCAs, s.root) }

// HasNewCertificate reports whether a host said so with a certificate of the new CAs.
func (s *RotationStatus) HasNewCertificate(r HostRecord) bool {
	return slices.Contains(s.next, r.IssuerKeyID)
}
