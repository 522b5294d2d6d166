// Package durable is package os, but on the disk when it returns.
//
// A [Dir] is a directory held open; every name below it is one path segment,
// opened without following a link, so that nobody who can write in the
// directory leads us out of it. A file is born hidden or in a staging place
// with [Dir.Create], written, and shown whole by [File.Publish] or
// [File.Commit]: write, fsync, link or rename without replacing, fsync of the
// directory. What a power cut leaves is the old state or the new one.
//
// The law: an fsync that failed is never tried again. The kernel reports a
// failed write-back once, marks the pages clean and says OK the next time
// (ext4, xfs and btrfs alike), so the only honest answer is to stop
// acknowledging, exit and start anew from what the disk has. Such an error is
// [ErrFault].
//
// BUG(durable): after a fault and a restart without a reboot the page cache may
// still show bytes that the disk lost. A reader that acknowledges stored bytes
// must therefore use [Dir.OpenUncached].
package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLeased says that a file cannot be opened now: another process holds a lease on
// it (F_SETLEASE). The kernel has told it to give the lease up. Try again later.
var ErrLeased = errors.New("another process holds a lease on it")

// Dir is a directory held open. It must be closed. Its methods take a name,
// never a path, and are safe for concurrent use.
type Dir struct {
	f     *os.File
	syncs *syncGroup
}

func newDir(f *os.File) *Dir { return &Dir{f, newSyncGroup()} }

// NewDir returns the directory that is open as f, which then belongs to it.
func NewDir(f *os.File) *Dir { return newDir(f) }

// Open opens the directory at path, which the operator named: links on the way
// are followed.
func Open(path string) (*Dir, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, unix.EIO):
		return nil, faultError("open", path, err)
	case errors.Is(err, fs.ErrNotExist):
		return nil, cmp.Or(findDangling(path), err)
	case err != nil:
		return nil, err
	}
	return newDir(f), nil
}

// Create opens the directory at path and makes it first, and its parents, if
// they are missing. The directory is durable in its parent, also if it is there
// because a process made it that did not live to sync.
func Create(path string) (*Dir, error) {
	d, err := Open(path)
	if err == nil {
		return d, syncParent(path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	parent, err := Create(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	return parent.MakeDir(filepath.Base(path))
}

func syncParent(path string) error {
	parent, err := Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil // then it was not one of us who made the directory
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// Close closes the directory. There is nothing to lose.
func (d *Dir) Close() error { return d.f.Close() }

// Path returns the path of name, for messages and for programs that need one.
func (d *Dir) Path(name string) string { return filepath.Join(d.f.Name(), name) }

// File returns the open directory. It belongs to d.
func (d *Dir) File() *os.File { return d.f }

func (d *Dir) fd() int { return int(d.f.Fd()) }

// Sync makes the names in the directory durable. Calls at one time share a sync.
func (d *Dir) Sync() error {
	return d.syncs.do(func() error {
		if err := d.f.Sync(); err != nil {
			return faultError("sync", d.f.Name(), err)
		}
		return nil
	})
}

// OpenDir opens a directory in d, or returns an error wrapping
// [fs.ErrNotExist]. A link is not followed.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	f, err := d.open(name, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return newDir(f), nil
}

// MakeDir opens a directory in d and makes it first, durably, if it is
// missing. If a power cut came between the two, the next call finds the
// directory and syncs d again: no caller can know that it was not the first.
func (d *Dir) MakeDir(name string) (*Dir, error) { return d.MakeDirMode(name, 0o750) }

// MakeDirMode is [Dir.MakeDir] for a directory that gets another mode than 0750 if
// it is made. The mode of one that exists stays.
func (d *Dir) MakeDirMode(name string, perm fs.FileMode) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	err := unix.Mkdirat(d.fd(), name, uint32(perm.Perm()))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, opError("mkdir", d.Path(name), err)
	}
	made := err == nil
	if err := d.Sync(); err != nil {
		return nil, err
	}
	sub, err := d.OpenDir(name)
	if err != nil || !made {
		return sub, err
	}
	if err := errors.Join(setExactMode(sub.f, perm), d.shareOwner(sub.f, perm)); err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// Open opens a file for reading. A link is refused with [unix.ELOOP], and
// opening what is no regular file never blocks.
func (d *Dir) Open(name string) (*os.File, error) {
	return d.open(name, unix.O_NOFOLLOW, 0)
}

// open opens name below d with flags; the read-only open of package os, at a
// directory. It never waits: not for the other end of a FIFO, and not for whoever
// holds a lease, which gives [ErrLeased].
func (d *Dir) open(name string, flags int, perm uint32) (*os.File, error) {
	if name != "." {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	fd := -1
	err := RetryEINTR(func() (err error) {
		fd, err = unix.Openat(d.fd(), name, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, perm)
		return err
	})
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil, fmt.Errorf("open %s: %w: %w", d.Path(name), ErrLeased, err)
	case err != nil:
		return nil, opError("open", d.Path(name), err)
	}
	return os.NewFile(uintptr(fd), d.Path(name)), nil
}

// checkName refuses a name that leads out of the directory.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return &fs.PathError{Op: "open", Path: fmt.Sprintf("%+q", name), Err: fs.ErrInvalid}
	}
	return nil
}

// Lstat describes name itself, not what it links to.
func (d *Dir) Lstat(name string) (Stat, error) {
	if err := checkName(name); err != nil {
		return Stat{}, err
	}
	var s Stat
	if err := unix.Fstatat(d.fd(), name, &s.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, opError("stat", d.Path(name), err)
	}
	return s, nil
}

// namesPerRead is how many names [Dir.Names] reads at a time: memory stays the same
// however many there are.
const namesPerRead = 1024

// Names yields the entries of the directory in no order. Names that come or go
// meanwhile may be among them or not.
func (d *Dir) Names() iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		f, err := d.open(".", unix.O_DIRECTORY, 0) // its own offset
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		for {
			entries, err := f.ReadDir(namesPerRead)
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(nil, opError("read", d.f.Name(), err))
				return
			}
		}
	}
}

// Link gives the file old a second name in another directory, durably. It
// never replaces: it returns an error wrapping [fs.ErrExist] if name is taken.
func (d *Dir) Link(old string, to *Dir, name string) error {
	if err := errors.Join(checkName(old), checkName(name)); err != nil {
		return err
	}
	if err := unix.Linkat(d.fd(), old, to.fd(), name, 0); err != nil {
		return opError("link", to.Path(name), err)
	}
	return to.Sync()
}

// Rename moves old, a file or a directory, to another directory, durably. It
// never replaces: it returns an error wrapping [fs.ErrExist] if name is taken.
// The new name is on the disk before the old one is given up.
func (d *Dir) Rename(old string, to *Dir, name string) error {
	if err := errors.Join(checkName(old), checkName(name)); err != nil {
		return err
	}
	if err := unix.Renameat2(d.fd(), old, to.fd(), name, unix.RENAME_NOREPLACE); err != nil {
		return opError("rename", to.Path(name), err)
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if to == d {
		return nil
	}
	return d.Sync()
}

// RenameFree is [Dir.Rename] to the first name that is free of name, name~2, name~3 and
// so on to name~last, which it returns. It returns an error wrapping [fs.ErrExist] if
// all are taken.
func (d *Dir) RenameFree(old string, to *Dir, name string, last int) (string, error) {
	candidate := name
	for n := 2; ; n++ {
		err := d.Rename(old, to, candidate)
		if !errors.Is(err, fs.ErrExist) || n > last {
			return candidate, err
		}
		candidate = fmt.Sprintf("%s~%d", name, n)
	}
}

// Remove unlinks a file, durably. A file that is not there is no error: what
// is asked for is so already.
func (d *Dir) Remove(name string) error {
	if err := d.Unlink(name); err != nil {
		return err
	}
	return d.Sync()
}

// Unlink is [Dir.Remove] without the sync: for a name whose return after a
// power cut does no harm.
func (d *Dir) Unlink(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := unix.Unlinkat(d.fd(), name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return opError("remove", d.Path(name), err)
	}
	return nil
}
