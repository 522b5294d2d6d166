package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file that nobody but its writer relies on yet. It ends with one of
// [File.Commit], [File.Publish] and [File.Discard]; after an error of the
// first two, Discard is still due unless the error is an [ErrFault].
type File struct {
	dir       *Dir
	name      string
	f         *os.File
	synced    bool
	writeback writeback
}

// Create makes a new file in d, which must not hold the name yet. Its mode is perm,
// whatever the umask is.
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

// Continue opens a file of d that was left with [File.Close], to go on behind its
// first size bytes. What follows them is cut off. It returns an error wrapping
// [fs.ErrNotExist] if there is no file of so many bytes.
func (d *Dir) Continue(name string, size int64) (*File, error) {
	f, err := d.open(name, unix.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := truncateTo(f, size); err != nil {
		f.Close()
		return nil, err
	}
	return &File{dir: d, name: name, f: f, writeback: writeback{size: size, started: size}}, nil
}

func truncateTo(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return opError("stat", f.Name(), err)
	}
	if !info.Mode().IsRegular() || info.Size() < size {
		return fmt.Errorf("%s is no file of %d bytes or more: %w", f.Name(), size, fs.ErrNotExist)
	}
	if err := f.Truncate(size); err != nil {
		return opError("truncate", f.Name(), err)
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return opError("seek", f.Name(), err)
	}
	return nil
}

// Checkpoint makes the bytes that were written so far durable, and then an
// attribute that speaks of them: whoever finds the attribute after a power cut
// finds the bytes.
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

// Name returns the name that the file has until it is committed.
func (f *File) Name() string { return f.name }

func (f *File) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	if err != nil {
		return n, opError("write", f.f.Name(), err)
	}
	return n, f.trackWrite(n)
}

// File returns the open file. It belongs to f.
func (f *File) File() *os.File { return f.f }

// ReadAt reads what was written.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// SetAttr sets an extended attribute, which the next sync makes durable with
// the bytes. It returns [ErrNoAttr] on a file system that has none.
func (f *File) SetAttr(name string, value []byte) error {
	return SetAttr(f.f, name, value)
}

// RemoveAttr removes an extended attribute. A power cut may bring it back.
func (f *File) RemoveAttr(name string) error { return RemoveAttr(f.f, name) }

// sync makes the bytes durable, once.
func (f *File) sync() error {
	if f.synced || f.writeback.err != nil {
		return f.writeback.err
	}
	yieldBeforeSync()
	if err := f.f.Sync(); err != nil {
		return faultError("sync", f.f.Name(), err)
	}
	f.synced = true
	return nil
}

// Publish makes the bytes durable and then shows them under a second name in
// another directory, durably. The first name stays, as the record that the
// file is on its way; [File.UnlinkStaged] takes it away. Publish never replaces: it
// returns an error wrapping [fs.ErrExist] if name is taken.
func (f *File) Publish(to *Dir, name string) error {
	if err := f.sync(); err != nil {
		return err
	}
	return f.dir.Link(f.name, to, name)
}

// UnlinkStaged ends a published file: it closes it and unlinks the first name. The
// unlink is not synced: if it is undone, whoever lists the staging place sees
// two links and finds nothing left to do.
func (f *File) UnlinkStaged() error {
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	return f.dir.Unlink(f.name)
}

// Close closes a published file and leaves its first name for recovery.
func (f *File) Close() error { return f.f.Close() }

// Commit makes the bytes durable, gives them their name in the same directory,
// durably, and closes the file. It never replaces: it returns an error wrapping
// [fs.ErrExist] if name is taken.
func (f *File) Commit(name string) error {
	if err := f.sync(); err != nil {
		return err
	}
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	return f.dir.Rename(f.name, f.dir, name)
}

// Discard closes and unlinks a file that shall not be.
func (f *File) Discard() error {
	f.f.Close() // the bytes are unwanted: there is nothing that an error could lose
	return f.dir.Unlink(f.name)
}

// ReadAtMost reads r, which is the file called name, to its end. It returns an error if there
// are more than maxBytes bytes.
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

// WriteFile makes name hold data, whole or not at all, whatever it held before.
// It is for small files that one process writes.
//
// The file keeps the owner of the one that it replaces. A new one that everybody may
// read gets the owner of d, also if root writes it.
func (d *Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := d.writeTemp(name, data, perm)
	if err != nil {
		return err
	}
	if err := f.sync(); err != nil {
		return err
	}
	if err := f.replace(name); err != nil {
		return err
	}
	return d.Sync()
}

// WriteFileNoSync is [Dir.WriteFile] without a sync, for what may as well be lost: after a power
// cut the file may be the one before, or be empty.
func (d *Dir) WriteFileNoSync(name string, data []byte, perm fs.FileMode) error {
	f, err := d.writeTemp(name, data, perm)
	if err != nil {
		return err
	}
	return f.replace(name)
}

// writeTemp writes what name is to hold under another name.
func (d *Dir) writeTemp(name string, data []byte, perm fs.FileMode) (*File, error) {
	temp := TempName(name)
	if err := d.Unlink(temp); err != nil { // left by a crash
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
		f.Discard() // the first error is the one to tell
		return nil, err
	}
	return f, nil
}

// replace closes the file and gives it a name, which may be taken.
func (f *File) replace(name string) error {
	if err := f.f.Close(); err != nil {
		return faultError("close", f.f.Name(), err)
	}
	if err := unix.Renameat(f.dir.fd(), f.name, f.dir.fd(), name); err != nil {
		return opError("rename", f.dir.Path(name), err)
	}
	return nil
}
