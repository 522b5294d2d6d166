package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Lock is held by one process at a time, and by the kernel's doing not
// beyond its death. It is an open file description lock (fcntl): unlike one of
// flock it can be looked at without being taken for a moment, which would keep
// a daemon from starting.
type Lock struct {
	f *os.File
}

// LockedError says that another process has the lock.
type LockedError struct {
	Path   string
	Holder string // what the holder said of itself; may be empty
}

func (e *LockedError) Error() string {
	holder := e.Holder
	if holder == "" {
		holder = "another process"
	}
	return fmt.Sprintf("%s is locked by %s", e.Path, holder)
}

// Lock takes the lock called name in d and writes holder into it for the next
// one who asks. It returns a [*LockedError] if another process has it.
func (d *Dir) Lock(name, holder string) (*Lock, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, err
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		defer f.Close()
		return nil, &LockedError{Path: d.Path(name), Holder: says(f)}
	}
	if err != nil {
		f.Close()
		return nil, failed("lock", d.Path(name), err)
	}
	// The text is a courtesy: a lock that could not be labelled is still held.
	if f.Truncate(0) == nil {
		f.WriteAt([]byte(holder+"\n"), 0)
	}
	return &Lock{f}, nil
}

// Holder returns what the present holder of a lock says of itself, and whether
// there is one.
func (d *Dir) Holder(name string) (string, bool, error) {
	f, err := d.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	would := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &would); err != nil {
		return "", false, failed("look at lock", d.Path(name), err)
	}
	if would.Type == unix.F_UNLCK {
		return "", false, nil
	}
	return says(f), true, nil
}

// Unlock gives the lock up.
func (l *Lock) Unlock() error { return l.f.Close() }

func says(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}
