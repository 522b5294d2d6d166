package durable

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Call is a system call that a program cannot do without, and that an old kernel, a
// container or a filter may refuse.
type Call struct {
	Name  string
	Since string // the version of Linux that has it
	Why   string // what it is needed for

	probe func() error // with a descriptor that is none, so that nothing happens
}

// RefusedCallError says that a system call is refused, whatever it is called with.
type RefusedCallError struct {
	Call
	Err error
}

func (e *RefusedCallError) Error() string {
	return fmt.Sprintf("the system call %s is refused (%v), which is needed to %s: use Linux %s or later, and allow %s "+
		"in the filter of the container (seccomp profile) or of the unit (SystemCallFilter=, RestrictSUIDSGID=)",
		e.Name, e.Err, e.Why, e.Since, e.Name)
}

// Unwrap returns what the kernel said.
func (e *RefusedCallError) Unwrap() error { return e.Err }

// badFD is a descriptor that no process has.
const badFD = -1

// BeneathCall is what [OpenBeneath] needs.
func BeneathCall() Call {
	return Call{"openat2", "5.6", "stay inside of an episode", func() error {
		_, err := unix.Openat2(badFD, "x", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC})
		return err
	}}
}

// Calls are what every program needs that keeps something durable. Other calls of this
// package may be refused: without sync_file_range, fadvise, flock and inotify it is slower,
// and no more. A file system may have no attributes; a kernel that refuses the call for them
// cannot be told from one that refuses them for a file.
func Calls() []Call {
	return []Call{
		{"statx", "4.11", "tell a folder from another one in its place", func() error {
			return unix.Statx(badFD, "x", 0, pathMask, new(unix.Statx_t))
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

// CheckCalls returns a [*RefusedCallError] for the first call that is refused. It has no
// effect on anything.
func CheckCalls(calls ...Call) error {
	for _, c := range calls {
		// The kernel itself finds that the descriptor is none.
		if err := c.probe(); !errors.Is(err, unix.EBADF) {
			return &RefusedCallError{c, err}
		}
	}
	return nil
}
