package durable

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A large file goes to the disk while it grows, and leaves the page cache behind it:
// there is little left to sync at its end, and what other programs have in the cache
// stays there. So long a wake is kept, for who reads what was just written.
const (
	cachedTail     = 32 << 20
	writebackChunk = 8 << 20 // is begun, and given up, at a time
)

// writeback is how far a file that is being written has come.
type writeback struct {
	size        int64 // is written
	started     int64 // is on its way to the disk
	unsupported bool  // it cannot be done here: all is left to the syncs
	// err is a fault of the disk that a wait was told of: the syncs that follow
	// are not told again.
	err error
}

// trackWrite notes that n more bytes are written.
func (f *File) trackWrite(n int) error {
	b := &f.writeback
	b.size += int64(n)
	for b.err == nil && !b.unsupported && b.size-b.started >= writebackChunk {
		b.err = f.startWriteback(b.started)
		b.started += writebackChunk
	}
	return b.err
}

// startWriteback begins to write the stride at off, and gives up the one at the end of the wake.
// It makes nothing durable: that is for a sync, which knows of the metadata too.
func (f *File) startWriteback(off int64) error {
	fd := int(f.f.Fd())
	if err := unix.SyncFileRange(fd, off, writebackChunk, unix.SYNC_FILE_RANGE_WRITE); err != nil {
		if f.writeback.unsupported = isUnsupported(err); f.writeback.unsupported {
			return nil
		}
		return faultError("write", f.f.Name(), err)
	}
	if off -= cachedTail; off < 0 {
		return nil
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(fd, off, writebackChunk, all); err != nil {
		return faultError("write", f.f.Name(), err) // whatever the disk calls it
	}
	unix.Fadvise(fd, off, writebackChunk, unix.FADV_DONTNEED)
	return nil
}

// isUnsupported reports whether err says that this kernel, file system or sandbox does not
// begin to write. Anything else may be the disk's: it has a dozen names for a write
// that failed.
func isUnsupported(err error) bool {
	for _, e := range []error{unix.ENOSYS, unix.EINVAL, unix.ESPIPE, unix.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
