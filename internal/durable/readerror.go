package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

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
