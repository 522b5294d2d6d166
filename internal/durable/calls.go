package durable

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Call is a required system call, which an old kernel, a container or a seccomp filter may refuse.
type Call struct {
	Name    string
	Since   string // the first version of Linux that has it
	Purpose string // what it is needed for, as the end of a sentence

	probe func() error // calls it with an invalid descriptor, so that nothing happens
}

// RefusedCallError says that a system call is refused whatever its arguments are.
type RefusedCallError struct {
	Call
	Err error
}

func (e *RefusedCallError) Error() string {
	return fmt.Sprintf("the system call %s is refused (%v), which is needed to %s: use Linux %s or later, and allow %s "+
		"in the filter of the container (seccomp profile) or of the unit (SystemCallFilter=, RestrictSUIDSGID=)",
		e.Name, e.Err, e.Purpose, e.Since, e.Name)
}

// Unwrap returns the error of the kernel.
func (e *RefusedCallError) Unwrap() error { return e.Err }

// badFD is an invalid descriptor.
const badFD = -1

// BeneathCall is the system call that [OpenBeneath] needs.
func BeneathCall() Call {
	return Call{"openat2", "5.6", "stay inside of an episode", func() error {
		_, err := unix.Openat2(badFD, "x", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
		return err
	}}
}

// RefusedCalls are the system calls that every program with durable state needs. Without
// sync_file_range, fadvise, flock and inotify the programs are only slower. A file system may have
// no attributes: it looks like a kernel that refuses those calls.
func RefusedCalls() []Call {
	return []Call{
		{"statx", "4.11", "tell a folder from another one in its place", func() error {
			return unix.Statx(badFD, "x", 0, unix.STATX_INO, new(unix.Statx_t))
		}},
		{"renameat2", "3.15", "rename without replacing", func() error {
			return unix.Renameat2(badFD, "x", badFD, "y", unix.RENAME_NOREPLACE)
		}},
		{"linkat", "2.6.16", "show a file that is whole", func() error {
			return unix.Linkat(badFD, "x", badFD, "y", 0)
		}},
		{"fsync", "2.6.16", "make files durable", func() error { return unix.Fsync(badFD) }},
		{"fdatasync", "2.6.16", "make files durable", func() error { return unix.Fdatasync(badFD) }},
		{"fsetxattr", "2.6.16", "keep the digest of a file beside it", func() error {
			return unix.Fsetxattr(badFD, "user.x", nil, 0)
		}},
		{"fgetxattr", "2.6.16", "read the digest of a file beside it", func() error {
			_, err := unix.Fgetxattr(badFD, "user.x", nil)
			return err
		}},
		{"fcntl", "3.15", "lock a folder (F_OFD_SETLK)", func() error {
			return unix.FcntlFlock(^uintptr(0), unix.F_OFD_GETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		}},
	}
}

// CheckCalls returns a [*RefusedCallError] for the first call that is refused. It changes nothing.
func CheckCalls(calls ...Call) error {
	for _, c := range calls {
		// If the call is allowed, the kernel finds that the descriptor is invalid.
		if err := c.probe(); !errors.Is(err, unix.EBADF) {
			return &RefusedCallError{c, err}
		}
	}
	return nil
}
