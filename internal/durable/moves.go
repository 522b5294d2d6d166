package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"cis490/internal/printable"
)

// SeparateError says that nothing can be moved from one directory to another, nor linked:
// they are on two file systems, or are seen through two mounts of one.
type SeparateError struct {
	From, To string
	Err      error // what the kernel said
}

func (e *SeparateError) Error() string {
	return fmt.Sprintf("%s and %s are on two file systems, or two mounts of one, and nothing can be moved between them (%v): "+
		"put both in one folder of one file system, and mount that folder as a whole (in a unit: one ReadWritePaths= for it)",
		printable.Text(e.From), printable.Text(e.To), e.Err)
}

// Unwrap returns what the kernel said.
func (e *SeparateError) Unwrap() error { return e.Err }

// ErrNoRename says that a file system cannot rename without replacing.
var ErrNoRename = errors.New("the file system cannot rename without replacing")

// errInconclusive says that a probe came to nothing, for a reason that says nothing.
var errInconclusive = errors.New("not tried")

// Names that a probe makes for a moment, in the directory that it moves from and in the
// one that it moves to. The next probe takes away what a kill leaves.
const (
	probeFrom = probePrefix + "from"
	probeTo   = probePrefix + "to"
	linkFrom  = probePrefix + "link-from"
	linkTo    = probePrefix + "link-to"
)

// moveError returns the error of a rename or a link between two directories.
func (d *Dir) moveError(op string, to *Dir, err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return &SeparateError{d.f.Name(), to.f.Name(), err}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: %w (%w): use a disk with ext4 or xfs", printable.Text(to.f.Name()), ErrNoRename, err)
	}
	return opError(op, to.f.Name(), err)
}

// CheckMove returns a [*SeparateError] if nothing can be moved from d to another directory
// because they are not on one mount. It changes nothing, and needs no right to.
func (d *Dir) CheckMove(to *Dir) error {
	// The kernel compares the mounts before it looks for the name, which nobody has.
	name := probePrefix + rand.Text()
	err := unix.Renameat2(d.fd(), name, to.fd(), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EIO) {
		return d.moveError("rename", to, err)
	}
	return nil // it does not exist, or this process may not look
}

// CheckSeparate is [Dir.CheckMove], and compares the file systems as well: those of one
// mount may be several (btrfs subvolumes), which shows only when something is moved.
func (d *Dir) CheckSeparate(to *Dir) error {
	if err := d.CheckMove(to); err != nil {
		return err
	}
	a, err := d.Device()
	if err != nil {
		return err
	}
	b, err := to.Device()
	if err != nil || a == b {
		return err
	}
	return &SeparateError{From: d.Path(""), To: to.Path(""), Err: errDevices}
}

// errDevices says that two directories of one mount have two device numbers.
var errDevices = errors.New("they have two device numbers")

// TryMove moves an empty directory from d to another one and removes it. It returns a
// [*SeparateError] or an [ErrNoRename] if that is not possible. If this process may not
// change the directories, or there is no space, it returns what [Dir.CheckMove] does.
//
// Others may be able to write in d: what they put in the place of the empty directory is
// moved back, and not removed.
func (d *Dir) TryMove(to *Dir) error {
	if err := d.CheckMove(to); err != nil {
		return err
	}
	return ignoreInconclusive(d.tryMove(to))
}

func (d *Dir) tryMove(to *Dir) error {
	if err := errors.Join(d.clearProbe(probeFrom, unix.AT_REMOVEDIR), to.clearProbe(probeTo, unix.AT_REMOVEDIR)); err != nil {
		return err
	}
	if err := unix.Mkdirat(d.fd(), probeFrom, 0o700); err != nil {
		return opError("mkdir", d.Path(probeFrom), err)
	}
	if err := unix.Renameat2(d.fd(), probeFrom, to.fd(), probeTo, unix.RENAME_NOREPLACE); err != nil {
		return errors.Join(d.moveError("rename", to, err), d.clearProbe(probeFrom, unix.AT_REMOVEDIR))
	}
	err := to.clearProbe(probeTo, unix.AT_REMOVEDIR)
	if errors.Is(err, errInconclusive) { // it is not what we have made
		unix.Renameat2(to.fd(), probeTo, d.fd(), probeFrom, unix.RENAME_NOREPLACE)
	}
	return err
}

// TryLink gives an empty file of d a second name in another directory, and removes both.
// It returns as [Dir.TryMove], and [ErrNoLinks] if files have one name. Nobody else
// should be able to write in d.
func (d *Dir) TryLink(to *Dir) error {
	if err := d.CheckMove(to); err != nil {
		return err
	}
	return ignoreInconclusive(d.tryLink(to))
}

func (d *Dir) tryLink(to *Dir) error {
	if err := errors.Join(d.clearProbe(linkFrom, 0), to.clearProbe(linkTo, 0)); err != nil {
		return err
	}
	f, err := d.Create(linkFrom, 0o600)
	if err != nil {
		return err
	}
	err = unix.Linkat(d.fd(), linkFrom, to.fd(), linkTo, 0)
	switch {
	case isNoLink(err):
		err = fmt.Errorf("%s: %w: %w", to.f.Name(), ErrNoLinks, err)
	case err != nil:
		err = d.moveError("link", to, err)
	}
	return errors.Join(err, to.clearProbe(linkTo, 0), f.Discard())
}

// ignoreInconclusive returns an error of a probe if it says something of the directories.
func ignoreInconclusive(err error) error {
	for _, nothing := range []error{errInconclusive, fs.ErrPermission, fs.ErrExist, fs.ErrNotExist} {
		if errors.Is(err, nothing) && !errors.Is(err, ErrFault) && !errors.Is(err, ErrNoLinks) {
			return nil
		}
	}
	if IsShortage(err) {
		return nil
	}
	return err
}

// clearProbe removes what a probe has made under a name, if it is there: an empty
// directory, which the kernel makes sure of, or, with flags 0, an empty file in a directory
// that is ours. Anything else gives errNotTried.
func (d *Dir) clearProbe(name string, flags int) error {
	st, err := d.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case flags == 0 && (!st.Regular() || st.Size() > 0):
		return errInconclusive
	}
	err = unix.Unlinkat(d.fd(), name, flags)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EBUSY):
		return errInconclusive
	}
	return opError("remove", d.Path(name), err)
}
