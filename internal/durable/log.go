package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Log is a file that only grows. Several processes may append to it; each must hold the lock while
// it does. The lock is a file of its own ([LogLockName]), so that readers of the log cannot make
// its writers wait.
type Log struct {
	dir  *Dir
	name string
	f    *os.File
	lock *os.File
	// olderAppending reports, while the lock is held, that an older program appends too. Such a
	// program locks the log itself.
	olderAppending bool
	// synced is how many bytes of the log this process knows to be on the disk.
	synced atomic.Int64
}

// LogLockName returns the name of the lock file of a log.
func LogLockName(name string) string { return "." + name + ".lock" }

// OpenLog opens name for appending. It first creates the file, durably, if it is missing. d must
// stay open as long as the log.
func (d *Dir) OpenLog(name string, perm fs.FileMode) (*Log, error) {
	f, err := d.openOrCreateLog(name, perm)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: d, name: name, f: f}
	if err := l.prepareFile(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// openOrCreateLog opens a log for appending. Only a new log gets the mode. That of an existing one
// is the operator's choice.
func (d *Dir) openOrCreateLog(name string, perm fs.FileMode) (*os.File, error) {
	const flags = unix.O_RDWR | unix.O_APPEND | unix.O_NOFOLLOW
	f, err := d.open(name, flags|unix.O_CREAT|unix.O_EXCL, uint32(perm.Perm()))
	if errors.Is(err, fs.ErrExist) {
		return d.open(name, flags, 0)
	}
	if err != nil {
		return nil, err
	}
	if err := setExactMode(f, perm); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (l *Log) prepareFile() error {
	if err := checkRegular(l.f); err != nil {
		return err
	}
	lock, err := l.dir.openLock(LogLockName(l.name))
	if err != nil {
		return err
	}
	l.lock = lock
	// The process that created the log may have ended before it synced the directory.
	if err := l.dir.Sync(); err != nil {
		return err
	}
	return l.rewriteTail()
}

// tailRewrite is how many bytes at the end of a log are rewritten when it is opened. It is more
// than one append.
const tailRewrite = 512 << 10

// rewriteTail writes the end of the log again. If the sync of the last append failed, the page
// cache has bytes that are not on the disk. This writes them.
func (l *Log) rewriteTail() error {
	if err := l.Lock(); err != nil {
		return err
	}
	defer l.Unlock() // the next call meets the same error
	size, err := l.Size()
	if err != nil || size == 0 {
		return err
	}
	b := make([]byte, min(size, tailRewrite))
	if _, err := l.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f, err := l.dir.open(l.name, unix.O_WRONLY|unix.O_NOFOLLOW, 0) // l.f only appends
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, size-int64(len(b))); err != nil {
		return OpError("write", f.Name(), err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return faultError("sync", f.Name(), err)
	}
	l.synced.Store(size)
	return nil
}

// SyncedSize returns how many bytes of the log this process knows to be on the disk. Bytes of other
// processes count after the next Append of this one.
func (l *Log) SyncedSize() int64 { return l.synced.Load() }

// NoteTruncated records that another process truncated the log to size. The lock must be held.
func (l *Log) NoteTruncated(size int64) { l.synced.Store(min(l.synced.Load(), size)) }

// checkInPlace returns an error if the log was moved or replaced: readers would not see what is
// appended.
func (l *Log) checkInPlace() error {
	ours, err := StatFile(l.f)
	if err != nil {
		return err
	}
	st, err := l.dir.Lstat(l.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || st.Inode() != ours.Inode() {
		return faultError("append", l.f.Name(), errors.New("the file was moved or replaced; put it back, or start anew with the one that is there"))
	}
	return nil
}

// Close closes the log. All appended bytes are durable already.
func (l *Log) Close() error {
	err := l.f.Close()
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// Lock waits until no other process appends. The caller must call [Log.Unlock]. Older programs lock
// the log itself. Lock also tries that lock, so that they wait, but does not wait for it, because
// every reader of the log can take it.
func (l *Log) Lock() error {
	if err := waitLock(l.lock); err != nil {
		return OpError("lock", l.lock.Name(), err)
	}
	l.olderAppending = l.lockOlder()
	return nil
}

// lockOlder tries to lock the log itself, and reports whether an older program holds that lock.
func (l *Log) lockOlder() bool {
	kind, err := tryLegacyLock(l.f)
	return err == nil && kind == unix.F_WRLCK
}

// CheckSoleAppender returns a [*LockedError] if an older program appends at the same time. An
// apparently torn tail may then be a row that it is writing. The lock must be held.
func (l *Log) CheckSoleAppender() error {
	if l.olderAppending || l.lockOlder() {
		return &LockedError{Path: l.f.Name(), Holder: "a program of an older version"}
	}
	return nil
}

// Unlock lets other processes append.
func (l *Log) Unlock() error {
	if err := errors.Join(setLock(l.f, unix.F_UNLCK), setLock(l.lock, unix.F_UNLCK)); err != nil {
		return OpError("unlock", l.lock.Name(), err)
	}
	return nil
}

// Size returns the length of the log in bytes.
func (l *Log) Size() (int64, error) {
	info, err := l.f.Stat()
	if err != nil {
		return 0, OpError("stat", l.f.Name(), err)
	}
	return info.Size(), nil
}

// ReadAt reads from the log.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = OpError("read", l.f.Name(), err)
	}
	return n, err
}

// Append adds p in one write and makes it durable. After an error that is not an [ErrFault], such
// as a lack of space, it removes what was written of p. It returns an ErrFault if the log was moved
// or replaced. The lock must be held.
func (l *Log) Append(p []byte) error {
	if err := l.checkInPlace(); err != nil {
		return err
	}
	end, err := l.Size()
	if err != nil {
		return err
	}
	if _, err := l.f.Write(p); err != nil {
		if cut := l.Truncate(end); cut != nil {
			return errors.Join(OpError("append", l.f.Name(), err), cut)
		}
		return OpError("append", l.f.Name(), err)
	}
	// fdatasync also writes the new length, which is needed to read the bytes back.
	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
		return faultError("sync", l.f.Name(), err)
	}
	l.synced.Store(end + int64(len(p)))
	return nil
}

// Truncate shortens the log to size, durably. It must remove only bytes that were never
// acknowledged. It fails as [Log.CheckSoleAppender] does. The lock must be held.
func (l *Log) Truncate(size int64) error {
	if err := l.CheckSoleAppender(); err != nil {
		return err
	}
	if err := l.f.Truncate(size); err != nil {
		return faultError("truncate", l.f.Name(), err)
	}
	if err := l.f.Sync(); err != nil {
		return faultError("sync", l.f.Name(), err)
	}
	l.synced.Store(size)
	return nil
}
