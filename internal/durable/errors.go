package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"cis490/internal/printable"

	"golang.org/x/sys/unix"
)

// ErrFault says that the storage cannot be trusted any more: a failed fsync, a
// failed close of a written file, an I/O error or a file system that turned
// read-only. Whoever sees it must stop acknowledging and end the process.
var ErrFault = errors.New("storage fault")

// faultError wraps err as an [ErrFault] if it is one.
func faultError(op, path string, err error) error {
	return fmt.Errorf("%s %s: %w: %w", op, path, ErrFault, err)
}

// opError wraps the error of a call that is no fsync: only an error of the
// device or of the whole file system is a fault there, no space is not.
func opError(op, path string, err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) {
		return &callFaultError{fs.PathError{Op: op, Path: path, Err: err}}
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// A callFaultError is the [ErrFault] of a call that is no fsync. See [AsReadError].
type callFaultError struct{ at fs.PathError }

func (f *callFaultError) Error() string { return faultError(f.at.Op, f.at.Path, f.at.Err).Error() }

// Unwrap returns what it is, and what the call says.
func (f *callFaultError) Unwrap() []error { return []error{ErrFault, &f.at} }

// A ReadError says that the disk, or a file system of the network, did not give
// something that is there: a lost sector, a stale handle. It is the fault of one item and
// no [ErrFault]: nothing was written that could be lost.
type ReadError struct {
	Op   string // "read", as in [fs.PathError]
	Path string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap returns what the kernel said.
func (e *ReadError) Unwrap() error { return e.Err }

// AsReadError returns err as a [*ReadError] if that is what the kernel says, and else as
// it is. It must come of a call that only read, or [ErrFault] would be hidden.
func AsReadError(err error) error {
	at, ok := errors.AsType[*fs.PathError](err)
	if ok && IsReadFailure(at.Err) {
		return &ReadError{at.Op, at.Path, at.Err}
	}
	return err
}

// readErrnos are the errors of block devices (see blk_errors in the kernel's
// block/blk-core.c), of file systems that find themselves damaged, and of NFS.
var readErrnos = []unix.Errno{
	unix.EIO, unix.ENODATA, unix.EILSEQ, unix.EREMOTEIO, unix.EBADE, unix.ENOLINK, unix.ETIMEDOUT, unix.ENODEV,
	unix.EUCLEAN, unix.EBADMSG, unix.ESTALE,
}

// IsReadFailure reports whether err is what the kernel says of something that it cannot
// read, as opposed to something that is missing, forbidden or short.
func IsReadFailure(err error) bool {
	no, ok := errors.AsType[unix.Errno](err)
	return ok && slices.Contains(readErrnos, no)
}

// IsFull reports whether err says that a disk has no space or no inodes. An fsync that
// failed for that is an [ErrFault] instead: what was written may be lost.
func IsFull(err error) bool {
	return !errors.Is(err, ErrFault) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// IsShortage reports whether err says that the machine lacks space, descriptors or memory.
// It says nothing of the file at which it was met: another one would have met it too, and
// the next attempt may go well.
func IsShortage(err error) bool {
	return IsFull(err) || slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS,
	}, func(e error) bool { return errors.Is(err, e) })
}

// DanglingError says that a directory is missing because there is a link to nothing in
// its place, or in that of one above it. It is not made: what the link means may be a
// disk that is not there yet.
type DanglingError struct {
	Link string
}

func (e *DanglingError) Error() string {
	return printable.Text(e.Link) + " is a link to nothing: make the folder that it names, mount its disk, or remove the link"
}

// findDangling returns a [*DanglingError] if a path is missing for one, and nil otherwise.
func findDangling(path string) error {
	for at := filepath.Clean(path); ; at = filepath.Dir(at) {
		st, err := os.Lstat(at)
		switch {
		case err == nil && st.Mode()&fs.ModeSymlink != 0:
			return &DanglingError{at}
		case err == nil, !errors.Is(err, fs.ErrNotExist), at == filepath.Dir(at):
			return nil
		}
	}
}
