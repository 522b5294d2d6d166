package durable

import (
	"crypto/rand"
	"errors"
	"fmt"

	"cis490/internal/printable"

	"golang.org/x/sys/unix"
)

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
	return opError(op, to.f.Name(), err)
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
