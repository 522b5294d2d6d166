package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file that only its writer uses. It must end with [File.Commit], [File.CommitTo] or
// [File.Discard]. After an error of Commit or CommitTo the caller must call Discard, unless the
// error is an [ErrFault].
type File struct {
	dir       *Dir
	name      string
	f         *os.File
	synced    bool
	writeback writebackState
}

// Create creates a file in d, which must not have the name yet. Its mode is perm, whatever the
// umask is.
func (d *Dir) Create(name string, perm fs.FileMode) (*File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(perm.Perm()))
	if err != nil {
		return nil, err
	}
	if err := setExactMode(f, perm); err != nil {
		return nil, errors.Join(err, f.Close(), d.Unlink(name))
	}
	return &File{dir: d, name: name, f: f}, nil
}

// ContinueFile opens a file of d that was left with [File.Close], truncates it to size, and
// continues there. It returns an error wrapping [fs.ErrNotExist] if there is no regular file of at
// least that size.
func (d *Dir) ContinueFile(name string, size int64) (*File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := truncateTo(f, size); err != nil {
		f.Close()
		return nil, err
	}
	return &File{dir: d, name: name, f: f, writeback: writebackState{size: size, started: size}}, nil
}

func truncateTo(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return OpError("stat", f.Name(), err)
	}
	if !info.Mode().IsRegular() || info.Size() < size {
		return fmt.Errorf("%s is not a regular file of at least %d bytes: %w", f.Name(), size, fs.ErrNotExist)
	}
	if err := f.Truncate(size); err != nil {
		return OpError("truncate", f.Name(), err)
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return OpError("seek", f.Name(), err)
	}
	return nil
}

// Checkpoint makes the bytes written so far durable, and then an attribute that describes them.
// After power loss, the bytes are there if the attribute is.
func (f *File) Checkpoint(attr string, value []byte) error {
	if f.writeback.err != nil {
		return f.writeback.err
	}
	if err := unix.Fdatasync(int(f.f.Fd())); err != nil {
		return faultError("sync", f.f.Name(), err)
	}
	if err := f.SetAttr(attr, value); err != nil {
		return err
	}
	if err := f.f.Sync(); err != nil {
		return faultError("sync", f.f.Name(), err)
	}
	return nil
}

// Name returns the name of the file before its commit.
func (f *File) Name() string { return f.name }

func (f *File) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	if err != nil {
		return n, OpError("write", f.f.Name(), err)
	}
	return n, f.trackWrite(n)
}

// File returns the open file. It belongs to f.
func (f *File) File() *os.File { return f.f }

// ReadAt reads bytes that were written.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// SetAttr sets an extended attribute. The next sync makes it durable with the bytes. It returns
// [ErrNoAttr] if the file system has no attributes.
func (f *File) SetAttr(name string, value []byte) error {
	return SetAttr(f.f, name, value)
}

// RemoveAttr removes an extended attribute. It may come back after power loss.
func (f *File) RemoveAttr(name string) error { return RemoveAttr(f.f, name) }

// syncOnce makes the bytes durable, once.
func (f *File) syncOnce() error {
	if f.synced || f.writeback.err != nil {
		return f.writeback.err
	}
	if err := f.f.Sync(); err != nil {
		return faultError("sync", f.f.Name(), err)
	}
	f.synced = true
	return nil
}

// CommitTo makes the bytes durable and gives them a second name in another directory, durably. The
// first name stays as a mark that the file is not finished, until [File.UnlinkStaged]. CommitTo
// never replaces: it returns an error wrapping [fs.ErrExist] if name exists.
func (f *File) CommitTo(to *Dir, name string) error {
	if err := f.syncOnce(); err != nil {
		return err
	}
	return f.dir.Link(f.name, to, name)
}

// UnlinkStaged closes a committed file and unlinks its first name. It does not sync the unlink: if
// the name comes back, recovery finds two links and nothing to do.
func (f *File) UnlinkStaged() error {
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	return f.dir.Unlink(f.name)
}

// Close closes a committed file and leaves its first name for recovery.
func (f *File) Close() error { return f.f.Close() }

// Commit makes the bytes durable, renames the file in its directory, durably, and closes it. It
// never replaces: it returns an error wrapping [fs.ErrExist] if name exists.
func (f *File) Commit(name string) error {
	if err := f.syncOnce(); err != nil {
		return err
	}
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	return f.dir.Rename(f.name, f.dir, name)
}

// Discard closes and unlinks the file.
func (f *File) Discard() error {
	f.f.Close() // the bytes are unwanted, so no error matters
	return f.dir.Unlink(f.name)
}

// ReadAtMost reads all of r, which is the file called name. It returns an error if r has more than
// maxBytes bytes.
func ReadAtMost(r io.Reader, name string, maxBytes int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case int64(len(b)) > maxBytes:
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxBytes)
	}
	return b, nil
}

// WriteFile makes data the content of name, all or nothing, and replaces what was there. It is for
// small files that one process writes.
//
// The file keeps the owner of the file that it replaces. A new file that everybody may read gets
// the owner of d, even if root writes it.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := d.writeTemp(name, data, perm)
	if err != nil {
		return err
	}
	if err := f.syncOnce(); err != nil {
		return err
	}
	if err := f.replaceName(name); err != nil {
		return err
	}
	return d.Sync()
}

// WriteFileNoSync is [Dir.WriteFile] without a sync, for a file that may be lost. After power loss
// it may have the old content, or be empty.
func (d *Dir) WriteFileNoSync(name string, data []byte, perm fs.FileMode) error {
	f, err := d.writeTemp(name, data, perm)
	if err != nil {
		return err
	}
	return f.replaceName(name)
}

// writeTemp writes the new content of name under a temporary name.
func (d *Dir) writeTemp(name string, data []byte, perm fs.FileMode) (*File, error) {
	temp := TempName(name)
	if err := d.Unlink(temp); err != nil { // left by power loss
		return nil, err
	}
	f, err := d.Create(temp, perm)
	if err != nil {
		return nil, err
	}
	if err := d.keepOwner(f.f, name, perm); err != nil {
		return nil, errors.Join(err, f.Discard())
	}
	if _, err := f.Write(data); err != nil {
		f.Discard() // the first error matters
		return nil, err
	}
	return f, nil
}

// replaceName closes the file and renames it, replacing what was there.
func (f *File) replaceName(name string) error {
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	if err := unix.Renameat(f.dir.fd(), f.name, f.dir.fd(), name); err != nil {
		return OpError("rename", f.dir.Path(name), err)
	}
	return nil
}

// attrPrefix begins the names of our extended attributes. Every user may set attributes in "user.".
const attrPrefix = "user.cis490."

// ErrNoAttr says that a file does not have the attribute, or that its file system has no
// attributes.
var ErrNoAttr = fmt.Errorf("no such attribute: %w", fs.ErrNotExist)

// SetAttr sets an extended attribute of an open file. The file's next sync makes it durable.
func SetAttr(f *os.File, name string, value []byte) error {
	err := unix.Fsetxattr(int(f.Fd()), attrPrefix+name, value, 0)
	if err == unix.ENOTSUP {
		return ErrNoAttr
	}
	if err != nil {
		return OpError("set attribute "+name, f.Name(), err)
	}
	return nil
}

// RemoveAttr removes an extended attribute of an open file. It returns nil if there is none.
func RemoveAttr(f *os.File, name string) error {
	err := unix.Fremovexattr(int(f.Fd()), attrPrefix+name)
	if err == nil || err == unix.ENODATA || err == unix.ENOTSUP {
		return nil
	}
	return OpError("remove attribute "+name, f.Name(), err)
}

// ReadAttr returns an extended attribute of an open file, or [ErrNoAttr].
func ReadAttr(f *os.File, name string) ([]byte, error) {
	b := make([]byte, 512) // all attributes of this program are smaller
	n, err := unix.Fgetxattr(int(f.Fd()), attrPrefix+name, b)
	if err == unix.ENODATA || err == unix.ENOTSUP || err == unix.ERANGE {
		return nil, ErrNoAttr
	}
	if err != nil {
		return nil, OpError("attribute "+name, f.Name(), err)
	}
	return b[:n], nil
}

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
		f.writeback.unsupported = isUnsupported(err)
		if f.writeback.unsupported {
			return nil
		}
		return faultError("write", f.f.Name(), err)
	}
	off -= cachedTail
	if off < 0 {
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
