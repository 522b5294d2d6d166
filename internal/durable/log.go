package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Log is a file that only grows. Several processes may append to one: each
// holds the lock meanwhile. The lock is a file of its own ([LogLockName]), so that
// who may read the log cannot keep its writers waiting.
type Log struct {
	dir  *Dir
	name string
	f    *os.File
	lock *os.File
	// older is set while the lock is held if an older program appends meanwhile,
	// which locks the log itself.
	olderAppending bool
	// synced is how many bytes of the log are on the disk, as far as this process knows.
	synced atomic.Int64
}

// LogLockName returns the name of the lock file of a log, beside it.
func LogLockName(name string) string { return "." + name + ".lock" }

// OpenLog opens name for appending and makes it first, durably, if it is
// missing. d must stay open as long as the log.
func (d *Dir) OpenLog(name string, perm fs.FileMode) (*Log, error) {
	f, err := d.openOrCreateLog(name, perm)
	if err != nil {
		return nil, err
	}
	l := &Log{dir: d, name: name, f: f}
	if err := l.prepare(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// openOrCreateLog opens a log for appending. Only a log that it creates gets the
// mode: of one that exists it is for the operator to say.
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

func (l *Log) prepare() error {
	if err := checkRegular(l.f); err != nil {
		return err
	}
	lock, err := l.dir.openLock(LogLockName(l.name))
	if err != nil {
		return err
	}
	l.lock = lock
	// Whoever made the log may not have lived to sync the directory.
	if err := l.dir.Sync(); err != nil {
		return err
	}
	return l.rewriteTail()
}

// tailRewrite is how much of the end of a log is written again when it is opened:
// more than one append.
const tailRewrite = 512 << 10

// rewriteTail writes the end of the log once more, as it reads. If the sync of the
// last append failed, the page cache shows what the disk does not have; now it
// has it.
func (l *Log) rewriteTail() error {
	if err := l.Lock(); err != nil {
		return err
	}
	defer l.Unlock() // its error is one of the file's, which the next call meets
	size, err := l.Size()
	if err != nil || size == 0 {
		return err
	}
	b := make([]byte, min(size, tailRewrite))
	if _, err := l.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f, err := l.dir.open(l.name, unix.O_WRONLY|unix.O_NOFOLLOW, 0) // the other one only appends
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, size-int64(len(b))); err != nil {
		return opError("write", f.Name(), err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return faultError("sync", f.Name(), err)
	}
	l.synced.Store(size)
	return nil
}

// Synced returns how many bytes of the log this process knows to be on the disk. What
// another process has appended counts from the next Append of this one.
func (l *Log) Synced() int64 { return l.synced.Load() }

// NoteTruncated notes that somebody else has cut the log to a size: no more of it is on the
// disk. The lock must be held.
func (l *Log) NoteTruncated(size int64) { l.synced.Store(min(l.synced.Load(), size)) }

// checkInPlace returns an error if the log no longer stands under its name: somebody
// has moved or replaced it, and what is appended would be lost to its readers.
func (l *Log) checkInPlace() error {
	ours, err := Inode(l.f)
	if err != nil {
		return err
	}
	st, err := l.dir.Lstat(l.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || st.Inode() != ours {
		return faultError("append", l.f.Name(), errors.New("the file was moved or replaced; put it back, or start anew with the one that is there"))
	}
	return nil
}

// Close closes the log. Everything that was appended is durable already.
func (l *Log) Close() error {
	err := l.f.Close()
	if l.lock != nil {
		err = errors.Join(err, l.lock.Close())
	}
	return err
}

// Lock waits until no other process appends. [Log.Unlock] must follow. Older
// programs lock the log itself. That lock is taken too, so that they wait, but never
// waited for, because everybody who may read the log can take it.
func (l *Log) Lock() error {
	if err := waitLock(l.lock); err != nil {
		return opError("lock", l.lock.Name(), err)
	}
	l.olderAppending = l.lockOlder()
	return nil
}

// lockOlder locks the log itself, and reports whether an older program has done
// that.
func (l *Log) lockOlder() bool {
	kind, err := tryLegacyLock(l.f)
	return err == nil && kind == unix.F_WRLCK
}

// CheckSoleAppender returns a [*LockedError] if an older program appends at the same
// time. What looks like a torn tail may then be a row that it is writing. The lock
// must be held.
func (l *Log) CheckSoleAppender() error {
	if l.olderAppending || l.lockOlder() {
		return &LockedError{Path: l.f.Name(), Holder: "a program of an older version"}
	}
	return nil
}

// Unlock lets other processes append.
func (l *Log) Unlock() error {
	if err := errors.Join(setLock(l.f, unix.F_UNLCK), setLock(l.lock, unix.F_UNLCK)); err != nil {
		return opError("unlock", l.lock.Name(), err)
	}
	return nil
}

// Size returns the length in bytes.
func (l *Log) Size() (int64, error) {
	info, err := l.f.Stat()
	if err != nil {
		return 0, opError("stat", l.f.Name(), err)
	}
	return info.Size(), nil
}

// ReadAt reads from anywhere in the log.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = opError("read", l.f.Name(), err)
	}
	return n, err
}

// Append adds p in one write and makes it durable. After an error that is no
// [ErrFault] (no space), what was written of p is cut off again. A log that no
// longer stands under its name is an ErrFault. The lock must be held.
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
			return errors.Join(opError("append", l.f.Name(), err), cut)
		}
		return opError("append", l.f.Name(), err)
	}
	yieldBeforeSync()
	// The length is metadata that fdatasync writes as well: without it the
	// bytes could not be read back.
	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
		return faultError("sync", l.f.Name(), err)
	}
	l.synced.Store(end + int64(len(p)))
	return nil
}

// Truncate durably shortens the log to size. It is for a tail that nobody was told
// of, and fails as [Log.CheckSoleAppender] does. The lock must be held.
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
