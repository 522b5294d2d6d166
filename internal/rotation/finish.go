package rotation

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"cis490/internal/ca"
	"cis490/internal/revocation"
)

// Finish retires the former CAs: it exchanges the two directories, and moves the one with
// the former CAs to a name that has the date, which it returns. Interrupted, it is called again.
//
// It refuses unless the identity directory has what [ca.ReplaceIssuing] writes there: without it, no ping
// has announced the new CAs.
func Finish(dir, identity string, now time.Time) (former string, err error) {
	r, err := openRotation(dir)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if r.next == nil {
		return "", fmt.Errorf("%w of %s: 'receiver pki rotate' starts one", ErrNoRotation, dir)
	}
	if !r.exchanged {
		installed, err := ca.IsInstalled(r.current, identity)
		if err != nil {
			return "", err
		}
		if !installed {
			return "", fmt.Errorf("%s does not have the new CAs: run 'receiver pki rotate' again, and wait for the hosts", identity)
		}
		if err := errors.Join(r.recordRetired(), revocation.CopyToNext(r.current)); err != nil {
			return "", err
		}
		if err := r.parent.Exchange(r.base, r.base+ca.NextSuffix); err != nil {
			return "", err
		}
	}
	name, err := r.parent.RenameFree(r.base+ca.NextSuffix, r.parent, r.base+formerSuffix+cmp.Or(now, time.Now()).UTC().Format("20060102"), 99)
	return r.parent.Path(name), err
}

// recordRetired lists the retired CAs of the hosts in the directory with the new ones, so that commands
// recognize their certificates.
func (r *rotation) recordRetired() error {
	former, err := ca.FormerCAs(r.current, r.next)
	if err != nil {
		return err
	}
	before, err := r.current.Read(ca.RetiredFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return r.next.WriteCert(ca.RetiredFile, append(former, before...))
}
