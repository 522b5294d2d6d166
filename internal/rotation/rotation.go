// Package rotation replaces all CAs of a directory, while hosts and receiver keep running.
//
// [Start] creates a second directory with new CAs beside the first, and adds them to the files by
// which both ends recognize each other. The former root signs a link certificate for the new one,
// which is how hosts come to trust it. [Finish] exchanges the two directories. Either can be called
// again after an interruption.
//
// Invariant: at any moment, the directory has all CAs of one set or of the other. What was revoked
// stays revoked.
package rotation

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"cis490/internal/ca"
	"cis490/internal/durable"
	"cis490/internal/pki"
)

// Names that only a rotation uses.
const (
	partialSuffix = "-next.partial" // of the directory with the new CAs until it is complete
	formerSuffix  = "-former-"      // of the directory with the former CAs, and the date
	addedFile     = "added-cas.crt" // the CAs that a rotation has added to ca.crt
)

// rotation is a directory of CAs with the one beside it that has the others.
type rotation struct {
	parent  *durable.Dir
	base    string // the name in parent
	current *ca.Dir
	next    *ca.Dir // nil unless a rotation is in progress
	// exchanged says that the directory already has the new CAs, and the one beside it the former.
	exchanged bool
}

// openRotation opens and locks a directory, and opens the one beside it if that belongs to a rotation.
func openRotation(dir string) (*rotation, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	parent, err := pki.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	r := &rotation{parent: parent.Dir, base: filepath.Base(path)}
	if r.current, err = r.openLocked(path); err != nil {
		return nil, errors.Join(err, r.parent.Close())
	}
	if r.next, r.exchanged, err = ca.OpenBeside(r.current); err == nil && r.next == nil {
		if _, serr := r.parent.Lstat(r.base + ca.NextSuffix); !errors.Is(serr, fs.ErrNotExist) {
			err = fmt.Errorf("%s is in the way: it does not belong to a rotation of %s; move it away", r.parent.Path(r.base+ca.NextSuffix), path)
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

func (r *rotation) openLocked(path string) (*ca.Dir, error) {
	st, err := r.parent.Lstat(r.base)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w (want the directory that receiver pki init made)", err)
	case !st.IsDir():
		return nil, fmt.Errorf("%s is not a directory: name the directory itself", path)
	}
	f, err := ca.OpenUnchecked(path)
	if err != nil {
		return nil, err
	}
	if err := f.LockChanges(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// refuseOtherFiles returns an error if the directory has files that do not belong to the CAs: they would
// be moved away with the former CAs.
func (r *rotation) refuseOtherFiles() error {
	known := append(ca.Files(), pki.IssuedDir, ca.LinkFile, ca.RetiredFile, addedFile)
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

// ErrNoRotation says that no rotation is in progress.
var ErrNoRotation = errors.New("there is no rotation")
