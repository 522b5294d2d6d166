package durable

import (
	"golang.org/x/sys/unix"
)

// A large file is written back while it grows, and its older pages leave the page cache. So little
// is left for the last fsync, and cached pages of other programs stay. The last cachedTail bytes
// stay cached for readers.
const (
	cachedTail     = 32 << 20
	writebackChunk = 8 << 20 // bytes per step of writeback
)

// writebackState is the progress of a file that is being written.
type writebackState struct {
	size        int64 // bytes written
	started     int64 // bytes whose writeback has started
	unsupported bool  // sync_file_range does not work here: only fsync writes
	// err is a fault that writeback reported. A later fsync would not report it again.
	err error
}

// trackWrite records that n more bytes are written.
func (f *File) trackWrite(n int) error {
	b := &f.writeback
	b.size += int64(n)
	for b.err == nil && !b.unsupported && b.size-b.started >= writebackChunk {
		b.err = f.startWriteback(b.started)
		b.started += writebackChunk
	}
	return b.err
}

// startWriteback starts to write the chunk at off, and drops the chunk that leaves the cached tail.
// It makes nothing durable: only fsync also writes the metadata.
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
		return faultError("write", f.f.Name(), err) // any error is a fault, whatever its number
	}
	unix.Fadvise(fd, off, writebackChunk, unix.FADV_DONTNEED)
	return nil
}

// isUnsupported reports whether err says that this kernel, file system or sandbox does not support
// sync_file_range. Any other error may be the disk's, which has many numbers for a failed write.
func isUnsupported(err error) bool {
	return IsAny(err, unix.ENOSYS, unix.EINVAL, unix.ESPIPE, unix.EPERM)
}
