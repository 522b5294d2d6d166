package durable

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockMode lets only the owner open a lock file. Any user who can open a file, even for reading, can
// lock it and make others wait.
const lockMode = 0o600

// Lock is a lock between processes. The kernel releases it when its process ends. It is an open
// file description lock (fcntl) on a file of its own. Unlike a lock of flock, it can be examined
// without being taken, which would keep a daemon from starting.
type Lock struct {
	files []*os.File // the lock file, and those that older programs lock
}

// LockedError says that another process has the lock.
type LockedError struct {
	Path   string
	Holder string // as the holder describes itself; may be empty
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is locked by %s", e.Path, cmp.Or(e.Holder, "another process"))
}

// Lock takes the lock called name in d and writes holder into its file, which only its owner may
// open. It returns a [*LockedError] if another process has the lock, and never waits.
//
// Former are the lock names of older programs. They are locked too if possible. If an older program
// has one, Lock returns a [*LockedError]. Anything else at such a name is ignored, because others
// may open those files.
func (d *Dir) Lock(name, holder string, former ...string) (*Lock, error) {
	f, err := d.openLock(name)
	if err != nil {
		return nil, err
	}
	l := &Lock{[]*os.File{f}}
	if err := setLock(f, unix.F_WRLCK); err != nil {
		defer l.Unlock()
		if isBusy(err) {
			return nil, &LockedError{Path: f.Name(), Holder: readHolder(f)}
		}
		return nil, OpError("lock", f.Name(), err)
	}
	for _, name := range former {
		f, err := d.lockLegacy(name)
		if err != nil {
			l.Unlock()
			return nil, err
		}
		if f != nil {
			l.files = append(l.files, f)
		}
	}
	l.writeHolder(holder)
	return l, nil
}

const (
	maxLockWait = 10 * time.Second      // for [Dir.WaitLock]
	lockRetry   = 20 * time.Millisecond // how often it tries
)

// WaitLock is Lock for a lock that is only held for moments: it waits up to maxLockWait.
func (d *Dir) WaitLock(ctx context.Context, name, holder string) (*Lock, error) {
	var lock *Lock
	err := waitWhileLocked(ctx, func() (err error) {
		lock, err = d.Lock(name, holder)
		return err
	})
	return lock, err
}

// WaitFlock takes the flock lock of the directory itself until d is closed, and waits as
// [Dir.WaitLock] does. It leaves no file. Use it only for a directory that other users cannot open:
// anyone who can open it can lock it.
func (d *Dir) WaitFlock(ctx context.Context) error {
	return waitWhileLocked(ctx, func() error {
		switch err := unix.Flock(d.fd(), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EWOULDBLOCK:
			return &LockedError{Path: d.Path("")}
		default:
			return OpError("lock", d.Path(""), err)
		}
	})
}

// waitWhileLocked calls try, up to maxLockWait, until its error is no [*LockedError].
func waitWhileLocked(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, maxLockWait)
	defer cancel()
	for {
		err := try()
		if _, locked := errors.AsType[*LockedError](err); !locked {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(lockRetry):
		}
	}
}

// writeHolder writes holder into the lock files. It ignores errors, because the text is only
// information.
func (l *Lock) writeHolder(holder string) {
	for _, f := range l.files {
		if f.Truncate(0) == nil {
			f.WriteAt([]byte(holder+"\n"), 0)
		}
	}
}

// Unlock releases the lock.
func (l *Lock) Unlock() error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// LockState is the state of a lock that [Dir.Holder] examined.
type LockState int

// The values of a LockState.
const (
	LockFree    LockState = iota
	LockHeld              // by the process that the holder's text describes
	LockUnknown           // only the owner may open the lock file
)

// Holder returns how the holder of a lock describes itself, and whether the lock is held. Former is
// as in [Dir.Lock].
func (d *Dir) Holder(name string, former ...string) (string, LockState, error) {
	state := LockFree
	for i, name := range append([]string{name}, former...) {
		holder, s, err := d.examineLock(name, i > 0)
		if err != nil || s == LockHeld {
			return holder, s, err
		}
		state = max(state, s)
	}
	return "", state, nil
}

func (d *Dir) examineLock(name string, former bool) (string, LockState, error) {
	f, err := d.Open(name)
	if err == nil {
		defer f.Close()
		err = checkRegular(f)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), former && isForeign(err):
		return "", LockFree, nil
	case errors.Is(err, fs.ErrPermission):
		return "", LockUnknown, nil
	case err != nil:
		return "", LockUnknown, err
	}
	kind, err := conflictingLock(f)
	if err != nil {
		return "", LockUnknown, OpError("examine lock", f.Name(), err)
	}
	if kind == unix.F_UNLCK || former && kind == unix.F_RDLCK {
		return "", LockFree, nil
	}
	return readHolder(f), LockHeld, nil
}

// TryFlock takes the flock lock of the directory itself until d is closed. Older programs use that
// lock to exclude each other. Whether it was free means nothing, because every user that may open
// the directory can lock it.
func (d *Dir) TryFlock() { unix.Flock(d.fd(), unix.LOCK_EX|unix.LOCK_NB) }

// openLock opens a lock file and creates it if it is missing.
func (d *Dir) openLock(name string) (*os.File, error) {
	f, err := d.openOrCreateLock(name)
	if err != nil {
		return nil, err
	}
	if err := d.secureLock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openOrCreateLock opens name for writing. It never waits.
func (d *Dir) openOrCreateLock(name string) (*os.File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, lockMode)
	if errors.Is(err, fs.ErrExist) {
		return d.open(name, unix.O_RDWR|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := errors.Join(setExactMode(f, lockMode), d.giveToOwner(f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// secureLock checks that a lock file is a regular file that only its owner can open. The file may
// be an old one.
func (d *Dir) secureLock(f *os.File) error {
	if err := checkRegular(f); err != nil {
		return err
	}
	var st, dir unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &st), unix.Fstat(d.fd(), &dir)); err != nil {
		return OpError("stat", f.Name(), err)
	}
	if us := uint32(os.Geteuid()); st.Uid != us && st.Uid != dir.Uid && st.Uid != 0 {
		return fmt.Errorf("lock file %s belongs to %s, who can make others wait for it: remove it", f.Name(), userName(st.Uid))
	}
	if st.Mode&0o7777 == lockMode {
		return nil
	}
	if err := f.Chmod(lockMode); err != nil {
		return fmt.Errorf("lock file %s has mode %04o: run chmod 0600 %s as %s: %w",
			f.Name(), st.Mode&0o7777, f.Name(), userName(st.Uid), err)
	}
	return nil
}

// errNotRegular says that a name is not a regular file.
var errNotRegular = errors.New("not a regular file")

func checkRegular(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return OpError("stat", f.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is %w: remove it", f.Name(), errNotRegular)
	}
	return nil
}

// userName returns the name of a user, or the number if there is no name.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// lockLegacy takes the lock of an older program. It returns nil if another process has a lock there
// or the file cannot be opened, and a [*LockedError] if an older program has it.
func (d *Dir) lockLegacy(name string) (*os.File, error) {
	f, err := d.openLegacyLock(name)
	if f == nil || err != nil {
		return nil, err
	}
	kind, err := tryLegacyLock(f)
	switch {
	case err != nil:
		err = OpError("lock", f.Name(), err)
	case kind == unix.F_UNLCK:
		return f, nil
	case kind == unix.F_WRLCK:
		err = &LockedError{Path: f.Name(), Holder: readHolder(f)}
	}
	f.Close()
	return nil, err
}

// openLegacyLock opens the lock file of older programs, at least for reading. It returns nil if
// that is not possible.
func (d *Dir) openLegacyLock(name string) (*os.File, error) {
	f, err := d.openOrCreateLock(name)
	if errors.Is(err, fs.ErrPermission) {
		f, err = d.Open(name)
	}
	if err == nil {
		if err = checkRegular(f); err == nil {
			return f, nil
		}
		f.Close()
	}
	if isForeign(err) || IsAny(err, fs.ErrPermission, fs.ErrNotExist) {
		return nil, nil
	}
	return nil, err
}

// isForeign reports whether err says that a name cannot be the lock file of an older program,
// because it is a link, a directory, a socket or a FIFO.
func isForeign(err error) bool {
	return IsAny(err, errNotRegular, ErrLeased, unix.ELOOP, unix.EISDIR, unix.ENXIO)
}

// maxLockAttempts bounds the attempts to take a lock that is free when examined and taken when
// tried.
const maxLockAttempts = 8

// tryLegacyLock takes a write lock on a file that others may open, and returns [unix.F_UNLCK].
// Otherwise it returns the kind of the conflicting lock. A write lock needs a writable descriptor:
// its holder is the file's owner, and it excludes all others. Any user may hold a read lock.
func tryLegacyLock(f *os.File) (int16, error) {
	kind := int16(unix.F_RDLCK)
	for range maxLockAttempts {
		err := setLock(f, unix.F_WRLCK)
		if err == nil {
			return unix.F_UNLCK, nil
		}
		readOnly := errors.Is(err, unix.EBADF)
		if !isBusy(err) && !readOnly {
			return kind, err
		}
		if kind, err = conflictingLock(f); err != nil || kind != unix.F_UNLCK {
			return kind, err
		}
		kind = unix.F_RDLCK // the lock was released meanwhile
		if readOnly {
			break
		}
	}
	return kind, nil
}

// setLock sets or removes a lock of the open file f. It never waits.
func setLock(f *os.File, kind int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind})
}

// waitLock takes a lock of the open file f, and waits while others have it.
func waitLock(f *os.File) error {
	return RetryEINTR(func() error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
	})
}

// conflictingLock returns the kind of the lock on f that conflicts with a write lock, or
// [unix.F_UNLCK].
func conflictingLock(f *os.File) (int16, error) {
	would := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &would)
	return would.Type, err
}

func isBusy(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// readHolder reads what [Lock.writeHolder] wrote.
func readHolder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 200))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(b), "?"))
}
