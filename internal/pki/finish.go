package pki

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
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
	before, err := r.current.Read(retiredFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.next.WriteCert(retiredFile, append(former, before...))
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
