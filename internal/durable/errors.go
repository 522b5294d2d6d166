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

// ErrFault says that the storage cannot be trusted any more: an fsync or a close of a written file
// failed, or there was an I/O error or a read-only file system. The caller must stop acknowledging
// and end the process.
var ErrFault = errors.New("storage fault")

// faultError wraps err as an [ErrFault].
func faultError(op, path string, err error) error {
	return fmt.Errorf("%s %s: %w: %w", op, path, ErrFault, err)
}

// OpError wraps the error of a call other than fsync. It is an [ErrFault] only if the device or the
// whole file system failed. A lack of space is not.
func OpError(op, path string, err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) {
		return &callFaultError{fs.PathError{Op: op, Path: path, Err: err}}
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// callFaultError is the [ErrFault] of a call other than fsync. [AsReadError] can turn it into an
// error of one file.
type callFaultError struct{ at fs.PathError }

func (f *callFaultError) Error() string { return faultError(f.at.Op, f.at.Path, f.at.Err).Error() }

// Unwrap returns [ErrFault] and the error of the call.
func (f *callFaultError) Unwrap() []error { return []error{ErrFault, &f.at} }

// ReadError says that a disk or a network file system failed to read something that exists, for
// example because of a lost sector or a stale handle. It concerns one item and is not an
// [ErrFault], because no write was lost.
type ReadError struct {
	Op   string // for example "read", as in [fs.PathError]
	Path string
	Err  error
}

func (e *ReadError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap returns the error of the kernel.
func (e *ReadError) Unwrap() error { return e.Err }

// AsReadError returns err as a [*ReadError] if the kernel failed to read, and unchanged otherwise.
// The call that returned err must only have read: AsReadError would hide an [ErrFault] of a write.
func AsReadError(err error) error {
	at, ok := errors.AsType[*fs.PathError](err)
	if ok && IsReadFailure(at.Err) {
		return &ReadError{at.Op, at.Path, at.Err}
	}
	return err
}

// readErrnos are the errors of block devices (blk_errors in the kernel's block/blk-core.c), of
// corrupt file systems, and of NFS.
var readErrnos = []unix.Errno{
	unix.EIO, unix.ENODATA, unix.EILSEQ, unix.EREMOTEIO, unix.EBADE, unix.ENOLINK, unix.ETIMEDOUT, unix.ENODEV,
	unix.EUCLEAN, unix.EBADMSG, unix.ESTALE,
}

// IsReadFailure reports whether err says that the kernel failed to read something, as opposed to
// something that is missing, forbidden or short.
func IsReadFailure(err error) bool {
	no, ok := errors.AsType[unix.Errno](err)
	return ok && slices.Contains(readErrnos, no)
}

// IsFull reports whether err says that a disk is out of space or inodes. An fsync that failed for
// that is an [ErrFault] instead, because written bytes may be lost.
func IsFull(err error) bool {
	return !errors.Is(err, ErrFault) && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT))
}

// IsShortage reports whether err says that the machine is out of space, descriptors or memory. Such
// an error does not concern the file, and a retry may succeed.
func IsShortage(err error) bool {
	return IsFull(err) || IsAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS)
}

// DanglingError says that a directory is missing because its path leads through a dangling link.
// The directory is not created, because the link may lead to a disk that is not mounted yet.
type DanglingError struct {
	Link string
}

func (e *DanglingError) Error() string {
	return printable.Text(e.Link) + " is a link to nothing: make the folder that it names, mount its disk, or remove the link"
}

// findDangling returns a [*DanglingError] if path leads through a dangling link, and nil otherwise.
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

// IsAny reports whether err is one of several errors, as [errors.Is] does for one.
func IsAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}
