package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Log is a file that only grows. Several processes may append to one: each
// holds the lock meanwhile.
type Log struct {
	dir  *Dir
	name string
	f    *os.File
}

// OpenLog opens name for appending and makes it first, durably, if it is
// missing. d must stay open as long as the log.
func (d *Dir) OpenLog(name string, perm fs.FileMode) (*Log, error) {
	f, err := d.openOrCreateLog(name, perm)
	if err != nil {
		return nil, err
	}
	// Whoever made it may not have lived to sync the directory.
	if err := d.Sync(); err != nil {
		f.Close()
		return nil, err
	}
	l := &Log{dir: d, name: name, f: f}
	if err := l.refresh(); err != nil {
		return nil, errors.Join(err, f.Close())
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

// fresh is how much of the end of a log is written again when it is opened:
// more than one append.
const fresh = 512 << 10

// refresh writes the end of the log once more, as it reads. If the sync of the
// last append failed, the page cache shows what the disk does not have; now it
// has it.
func (l *Log) refresh() error {
	if err := l.Lock(); err != nil {
		return err
	}
	defer l.Unlock() // its error is one of the file's, which the next call meets
	size, err := l.Size()
	if err != nil || size == 0 {
		return err
	}
	b := make([]byte, min(size, fresh))
	if _, err := l.ReadAt(b, size-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f, err := l.dir.open(l.name, unix.O_WRONLY|unix.O_NOFOLLOW, 0) // the other one only appends
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(b, size-int64(len(b))); err != nil {
		return failed("write", f.Name(), err)
	}
	if err := unix.Fdatasync(int(f.Fd())); err != nil {
		return fault("sync", f.Name(), err)
	}
	return nil
}

// moved returns an error if the log no longer stands under its name: somebody
// has moved or replaced it, and what is appended would be lost to its readers.
func (l *Log) moved() error {
	ours, err := Inode(l.f)
	if err != nil {
		return err
	}
	st, err := l.dir.Lstat(l.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || st.Inode() != ours {
		return fault("append", l.f.Name(), errors.New("the file was moved or replaced; put it back, or start anew with the one that is there"))
	}
	return nil
}

// Close closes the log. Everything that was appended is durable already.
func (l *Log) Close() error { return l.f.Close() }

// Lock waits until no other process appends. [Log.Unlock] must follow. The lock
// is one of the open file, as that of [Dir.Lock]: a reader who takes flock on
// the log does not stop its writers.
func (l *Log) Lock() error {
	for {
		err := unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return failed("lock", l.f.Name(), err)
		}
		return nil
	}
}

// Unlock lets other processes append.
func (l *Log) Unlock() error {
	if err := unix.FcntlFlock(l.f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		return failed("unlock", l.f.Name(), err)
	}
	return nil
}

// Size returns the length in bytes.
func (l *Log) Size() (int64, error) {
	info, err := l.f.Stat()
	if err != nil {
		return 0, failed("stat", l.f.Name(), err)
	}
	return info.Size(), nil
}

// ReadAt reads from anywhere in the log.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed("read", l.f.Name(), err)
	}
	return n, err
}

// Append adds p in one write and makes it durable. After an error that is no
// [ErrFault] (no space), what was written of p is cut off again. A log that no
// longer stands under its name is an ErrFault. The lock must be held.
func (l *Log) Append(p []byte) error {
	if err := l.moved(); err != nil {
		return err
	}
	end, err := l.Size()
	if err != nil {
		return err
	}
	if _, err := l.f.Write(p); err != nil {
		if cut := l.Cut(end); cut != nil {
			return errors.Join(failed("append", l.f.Name(), err), cut)
		}
		return failed("append", l.f.Name(), err)
	}
	giveWay()
	// The length is metadata that fdatasync writes as well: without it the
	// bytes could not be read back.
	if err := unix.Fdatasync(int(l.f.Fd())); err != nil {
		return fault("sync", l.f.Name(), err)
	}
	return nil
}

// Cut durably shortens the log to size. It is for a tail that nobody was told
// of. The lock must be held.
func (l *Log) Cut(size int64) error {
	if err := l.f.Truncate(size); err != nil {
		return fault("truncate", l.f.Name(), err)
	}
	if err := l.f.Sync(); err != nil {
		return fault("sync", l.f.Name(), err)
	}
	return nil
}
