package durable

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/printable"
)

// ErrNoLinks says that a file system has no hard links.
var ErrNoLinks = errors.New("the file system has no hard links")

// probePrefix begins the temporary names of [Dir.CheckLinks], [Dir.TryMove] and [Dir.TryLink].
const probePrefix = ".cis490-probe."

// IsProbe reports whether name is a temporary name of a probe, which a killed process may leave. It
// is for a [Layout].
func IsProbe(name string) bool { return strings.HasPrefix(name, probePrefix) }

// CheckLinks returns an error wrapping [ErrNoLinks] if the file system of d has no hard links. It
// creates and removes an empty file for that.
//
// Others may be able to write in d. Therefore it links the open file, and opens no name. What
// others put at the names is at most unlinked.
func (d *Dir) CheckLinks() error {
	name := probePrefix + rand.Text()
	f, err := d.Create(name, 0o600)
	if err != nil {
		return err
	}
	second := name + ".2"
	self := "/proc/self/fd/" + strconv.Itoa(int(f.f.Fd()))
	err = unix.Linkat(unix.AT_FDCWD, self, d.fd(), second, unix.AT_SYMLINK_FOLLOW)
	if isNoLink(err) {
		err = fmt.Errorf("%s: %w: %w", d.f.Name(), ErrNoLinks, err)
	} else if err != nil {
		err = OpError("link", d.Path(second), err)
	}
	// A name that stays is an empty file, or a file of others.
	d.Unlink(second)
	f.Discard()
	return err
}

// isNoLink reports whether a link failed because files have only one name.
func isNoLink(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EMLINK)
}

// Temporary names of a probe in the directories that it moves from and to. The next probe removes
// what a killed process left.
const (
	probeFrom = probePrefix + "from"
	probeTo   = probePrefix + "to"
	linkFrom  = probePrefix + "link-from"
	linkTo    = probePrefix + "link-to"
)

// TryMove moves an empty directory from d to another one and removes it. It returns a
// [*SeparateError] or an [ErrNoRename] if that is not possible. Without write permission or free
// space, it returns what [Dir.CheckMove] returns.
//
// Others may be able to write in d. What they put in the place of the empty directory is moved
// back, and not removed.
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
		return OpError("mkdir", d.Path(probeFrom), err)
	}
	if err := unix.Renameat2(d.fd(), probeFrom, to.fd(), probeTo, unix.RENAME_NOREPLACE); err != nil {
		return errors.Join(d.moveError("rename", to, err), d.clearProbe(probeFrom, unix.AT_REMOVEDIR))
	}
	err := to.clearProbe(probeTo, unix.AT_REMOVEDIR)
	if errors.Is(err, errInconclusive) { // others replaced the directory
		unix.Renameat2(to.fd(), probeTo, d.fd(), probeFrom, unix.RENAME_NOREPLACE)
	}
	return err
}

// TryLink gives an empty file of d a second name in another directory, and removes both. It returns
// what [Dir.TryMove] returns, and [ErrNoLinks] if there are no hard links. Others must not be able
// to write in d.
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

// errInconclusive means that a probe failed for a reason unrelated to the directories.
var errInconclusive = errors.New("not tried")

// ignoreInconclusive returns err if it says something about the directories, and nil otherwise.
func ignoreInconclusive(err error) error {
	nothing := IsAny(err, errInconclusive, fs.ErrPermission, fs.ErrExist, fs.ErrNotExist) && !IsAny(err, ErrFault, ErrNoLinks)
	if nothing || IsShortage(err) {
		return nil
	}
	return err
}

// clearProbe removes the name of a probe if it exists: an empty directory, or, with flags 0, an
// empty file in a new directory. Any other result gives errInconclusive.
func (d *Dir) clearProbe(name string, flags int) error {
	st, err := d.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case flags == 0 && (!st.IsRegular() || st.Size() > 0):
		return errInconclusive
	}
	err = unix.Unlinkat(d.fd(), name, flags)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EBUSY):
		return errInconclusive
	}
	return OpError("remove", d.Path(name), err)
}

// SeparateError says that nothing can be moved or linked from one directory to the other, because
// they are on different file systems or mounts.
type SeparateError struct {
	From, To string
	Err      error // of the kernel
}

func (e *SeparateError) Error() string {
	return fmt.Sprintf("%s and %s are on two file systems, or two mounts of one, and nothing can be moved between them (%v): "+
		"put both in one folder of one file system, and mount that folder as a whole (in a unit: one ReadWritePaths= for it)",
		printable.Text(e.From), printable.Text(e.To), e.Err)
}

// Unwrap returns the error of the kernel.
func (e *SeparateError) Unwrap() error { return e.Err }

// ErrNoRename says that a file system cannot rename without replacing.
var ErrNoRename = errors.New("the file system cannot rename without replacing")

// moveError returns the error of a rename or a link between two directories.
func (d *Dir) moveError(op string, to *Dir, err error) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return &SeparateError{d.f.Name(), to.f.Name(), err}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: %w (%w): use a disk with ext4 or xfs", printable.Text(to.f.Name()), ErrNoRename, err)
	}
	return OpError(op, to.f.Name(), err)
}

// CheckMove returns a [*SeparateError] if nothing can be moved from d to the other directory
// because they are on different mounts. It changes nothing, and needs no permission.
func (d *Dir) CheckMove(to *Dir) error {
	// The kernel compares the mounts before it looks up the name, which does not exist.
	name := probePrefix + rand.Text()
	err := unix.Renameat2(d.fd(), name, to.fd(), name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EIO) {
		return d.moveError("rename", to, err)
	}
	return nil // the name does not exist, or this process may not look it up
}

// CheckSeparate is [Dir.CheckMove], and also compares the file systems. One mount may have several
// (btrfs subvolumes), which otherwise shows only during a move.
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

// errDevices says that two directories of one mount have different device numbers.
var errDevices = errors.New("they have two device numbers")

// probeSync is the temporary name of [Dir.MeasureSync].
const probeSync = probePrefix + "sync"

// MeasureSync writes a file in d in rounds of size bytes, each followed by an fsync, and returns how
// long each round took, the shortest first. It removes the file, also when ctx ends; the next call
// removes what a killed process left. The file keeps its name meanwhile, because btrfs does not sync
// a file without one. An error of an fsync is an [ErrFault]. Others must not be able to write in d.
func (d *Dir) MeasureSync(ctx context.Context, rounds, size int) (took []time.Duration, err error) {
	if err := d.clearMeasured(); err != nil {
		return nil, err
	}
	f, err := d.Create(probeSync, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Discard()) }()
	piece := make([]byte, size)
	for range rounds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := f.Write(piece); err != nil {
			return nil, err
		}
		if err := f.f.Sync(); err != nil {
			return nil, faultError("sync", f.f.Name(), err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took, nil
}

// clearMeasured removes the file of a MeasureSync that was killed.
func (d *Dir) clearMeasured() error {
	st, err := d.Lstat(probeSync)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !st.IsRegular() {
		err = &fs.PathError{Op: "replace", Path: d.Path(probeSync), Err: fs.ErrExist}
	}
	if err != nil {
		return err
	}
	return d.Unlink(probeSync)
}
