// Package durable is package os whose changes are on the disk when a call returns.
//
// A [Dir] is a directory held open. Every name below it is one path segment, opened without
// following a link, so that no one with write access to the directory can lead the program out of
// it. A file is created hidden or in a staging directory with [Dir.Create], written, and made
// visible as a whole by [File.CommitTo] or [File.Commit]. Those write, fsync the file, link or
// rename it without replacing, and fsync the directory. Power loss leaves the old state or the new
// one.
//
// A [Log] only grows, and a [Lock] excludes other processes. What root creates belongs to the user
// who needs it (owner.go). What a file system cannot do is found before it matters (probe.go).
//
// Invariant: a failed fsync is never retried. The kernel reports a failed writeback once, marks the
// pages clean, and returns success the next time (on ext4, xfs and btrfs). Therefore the process
// must stop acknowledging, exit, and start again from what is on the disk. Such an error is
// [ErrFault].
//
// BUG(durable): after a fault and a restart without a reboot the page cache may still have bytes
// that are not on the disk. A reader that acknowledges stored bytes must therefore use
// [Dir.OpenUncached].
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
	"sync"

	"golang.org/x/sys/unix"
)

// ErrLeased says that a file cannot be opened now because another process holds a lease on it
// (F_SETLEASE). The kernel has asked that process to release it, so a retry may succeed.
var ErrLeased = errors.New("another process holds a lease on it")

// Dir is a directory held open. It must be closed. Its methods take a name,
// never a path, and are safe for concurrent use.
type Dir struct {
	f     *os.File
	syncs *syncGroup
}

// NewDir returns a Dir for the open directory f, and takes ownership of f.
func NewDir(f *os.File) *Dir { return &Dir{f, newSyncGroup()} }

// Open opens the directory at path and follows links. The path must come from the operator.
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
	return NewDir(f), nil
}

// Create opens the directory at path. It first creates the directory and its parents if they are
// missing. The directory is durable in its parent, even if another process created it and ended
// before its fsync.
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
		return nil // then none of our programs created the directory
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// Close closes the directory. There is nothing to flush.
func (d *Dir) Close() error { return d.f.Close() }

// Path returns the path of name, for messages and for other programs.
func (d *Dir) Path(name string) string { return filepath.Join(d.f.Name(), name) }

// File returns the open directory. It belongs to d.
func (d *Dir) File() *os.File { return d.f }

func (d *Dir) fd() int { return int(d.f.Fd()) }

// Sync makes the names in the directory durable. Concurrent calls share an fsync.
func (d *Dir) Sync() error {
	return d.syncs.syncShared(func() error {
		if err := d.f.Sync(); err != nil {
			return faultError("sync", d.f.Name(), err)
		}
		return nil
	})
}

// OpenDir opens a directory in d without following a link. It returns an error wrapping
// [fs.ErrNotExist] if there is none.
func (d *Dir) OpenDir(name string) (*Dir, error) {
	f, err := d.open(name, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return NewDir(f), nil
}

// MakeDir opens a directory in d. It first creates the directory, durably, if it is missing. It
// always syncs d: an earlier call may have lost power between mkdir and fsync.
func (d *Dir) MakeDir(name string) (*Dir, error) { return d.MakeDirMode(name, 0o750) }

// MakeDirMode is [Dir.MakeDir] with a mode other than 0750 for a new directory. The mode of an
// existing directory stays.
func (d *Dir) MakeDirMode(name string, perm fs.FileMode) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	err := unix.Mkdirat(d.fd(), name, uint32(perm.Perm()))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, OpError("mkdir", d.Path(name), err)
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

// Open opens a file for reading. It refuses a link with [unix.ELOOP], and does not block on a FIFO
// or device.
func (d *Dir) Open(name string) (*os.File, error) {
	return d.open(name, unix.O_NOFOLLOW, 0)
}

// open opens name below d with flags. It never waits: not for the other end of a FIFO, and not for
// the holder of a lease, for which it returns [ErrLeased].
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
		return nil, OpError("open", d.Path(name), err)
	}
	return os.NewFile(uintptr(fd), d.Path(name)), nil
}

// checkName refuses a name that is not one path segment.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return &fs.PathError{Op: "open", Path: fmt.Sprintf("%+q", name), Err: fs.ErrInvalid}
	}
	return nil
}

// Lstat describes name without following a link.
func (d *Dir) Lstat(name string) (Stat, error) {
	if err := checkName(name); err != nil {
		return Stat{}, err
	}
	var s Stat
	if err := unix.Fstatat(d.fd(), name, &s.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Stat{}, OpError("stat", d.Path(name), err)
	}
	return s, nil
}

// namesPerRead bounds how many names [Dir.Names] holds in memory.
const namesPerRead = 1024

// Names yields the entries of the directory in no particular order. It may or may not yield names
// that are created or removed meanwhile.
func (d *Dir) Names() iter.Seq2[fs.DirEntry, error] {
	return func(yield func(fs.DirEntry, error) bool) {
		f, err := d.open(".", unix.O_DIRECTORY, 0) // a descriptor with an offset of its own
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
				yield(nil, OpError("read", d.f.Name(), err))
				return
			}
		}
	}
}

// Link gives the file old a second name in another directory, durably. It never replaces: it
// returns an error wrapping [fs.ErrExist] if name exists.
func (d *Dir) Link(old string, to *Dir, name string) error {
	if err := errors.Join(checkName(old), checkName(name)); err != nil {
		return err
	}
	if err := unix.Linkat(d.fd(), old, to.fd(), name, 0); err != nil {
		return OpError("link", to.Path(name), err)
	}
	return to.Sync()
}

// Rename moves old, a file or a directory, to another directory, durably. It never replaces: it
// returns an error wrapping [fs.ErrExist] if name exists. It syncs the new name before the removal
// of the old one.
func (d *Dir) Rename(old string, to *Dir, name string) error {
	if err := errors.Join(checkName(old), checkName(name)); err != nil {
		return err
	}
	if err := unix.Renameat2(d.fd(), old, to.fd(), name, unix.RENAME_NOREPLACE); err != nil {
		return OpError("rename", to.Path(name), err)
	}
	if err := to.Sync(); err != nil {
		return err
	}
	if to == d {
		return nil
	}
	return d.Sync()
}

// Exchange swaps two names in the directory, durably. Each exists at every moment.
func (d *Dir) Exchange(a, b string) error {
	if err := errors.Join(checkName(a), checkName(b)); err != nil {
		return err
	}
	if err := unix.Renameat2(d.fd(), a, d.fd(), b, unix.RENAME_EXCHANGE); err != nil {
		return OpError("exchange", d.Path(a), err)
	}
	return d.Sync()
}

// CheckExchange returns an error if [Dir.Exchange] cannot work for a directory in d: it is a mount
// point, or the file system does not have that operation.
func (d *Dir) CheckExchange(name string) error {
	st, err := d.Lstat(name)
	if err != nil {
		return err
	}
	self, err := d.Stat()
	if err != nil {
		return err
	}
	if st.st.Dev != self.st.Dev {
		return fmt.Errorf("%s is a mount point, which cannot be exchanged with another directory", d.Path(name))
	}
	const none = ".cis490-none"
	if err := unix.Renameat2(d.fd(), none, d.fd(), none, unix.RENAME_EXCHANGE); !errors.Is(err, fs.ErrNotExist) {
		return OpError("exchange", d.Path(name), err)
	}
	return nil
}

// RenameFree is [Dir.Rename] to the first free name of name, name~2, name~3 and so on to name~last.
// It returns that name, or an error wrapping [fs.ErrExist] if all of them exist.
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

// Remove unlinks a file, durably. It returns nil if the file does not exist.
func (d *Dir) Remove(name string) error {
	if err := d.Unlink(name); err != nil {
		return err
	}
	return d.Sync()
}

// Unlink is [Dir.Remove] without the fsync, for a name whose return after power loss does no harm.
func (d *Dir) Unlink(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := unix.Unlinkat(d.fd(), name, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return OpError("remove", d.Path(name), err)
	}
	return nil
}

// syncGroup lets concurrent callers share an fsync of one directory. A call during an fsync gets
// the next one, with all others that arrive meanwhile, because the running fsync may have begun
// before its name existed.
type syncGroup struct {
	mu                 sync.Mutex // guards the fields below
	cond               *sync.Cond
	started, completed int   // number of syncs that have begun, and that have ended
	err                error // of the first sync that failed; no later one counts
}

func newSyncGroup() *syncGroup {
	s := new(syncGroup)
	s.cond = sync.NewCond(&s.mu)
	return s
}

// syncShared returns after a sync that began after the call. It returns an error if that sync or an
// earlier one failed.
func (s *syncGroup) syncShared(sync func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for want := s.started + 1; s.completed < want && s.err == nil; {
		if s.started > s.completed {
			s.cond.Wait()
			continue
		}
		s.started++
		s.mu.Unlock()
		err := sync()
		s.mu.Lock()
		s.completed, s.err = s.started, err
		s.cond.Broadcast()
	}
	return s.err
}
