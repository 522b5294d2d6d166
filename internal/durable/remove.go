package durable

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// ErrKept says that [Dir.RemoveTree] kept files at its caller's request.
var ErrKept = errors.New("kept what must not be deleted")

// RemoveTree removes the directory name and all in it. It follows no links and crosses no mounts.
// Before it unlinks a file, it calls may with the path below name and the current state of the
// file. If may returns false, the file stays, with the directories above it. RemoveTree continues
// after what it cannot remove.
//
// It returns the first error, or an error wrapping [ErrKept] if files were kept and there is no
// other error. It syncs nothing: removed files may come back after power loss. It holds one
// descriptor per level, up to 256 levels.
func (d *Dir) RemoveTree(ctx context.Context, name string, may func(path string, s Stat) bool) error {
	r := treeRemoval{ctx: ctx, mayRemove: may, links: make(map[uint64]linkTimes)}
	r.removeDir(d, name, "", maxDepth)
	return errors.Join(r.fatalErr, r.firstErr)
}

type treeRemoval struct {
	ctx       context.Context
	mayRemove func(path string, s Stat) bool
	links     map[uint64]linkTimes // of files with several names, by inode
	removed   int                  // number of names removed so far
	firstErr  error
	fatalErr  error // ends the removal
}

// maxListings bounds how often a directory is listed. A file system may omit names while others are
// removed, and other processes may add some.
const maxListings = 100

// linkTimes are the ctimes of a file before and after this process unlinked one of its names. The
// change between them is not a write.
type linkTimes struct {
	before, after unix.Timespec
}

func (r *treeRemoval) recordError(err error) {
	switch {
	case errors.Is(err, ErrFault), r.ctx.Err() != nil:
		r.fatalErr = err
	case r.firstErr == nil, errors.Is(r.firstErr, ErrKept) && !errors.Is(err, ErrKept):
		r.firstErr = err
	}
}

func (r *treeRemoval) removeDir(parent *Dir, name, path string, depth int) {
	if depth == 0 {
		r.recordError(fmt.Errorf("%s is nested too deeply to be removed", parent.Path(name)))
		return
	}
	dir, err := parent.openBeneath(name)
	if err != nil {
		r.recordError(err)
		return
	}
	defer dir.Close()
	defer dir.makeWritable()()
	for range maxListings {
		before := r.removed
		r.removeEntries(dir, path, depth)
		if r.fatalErr != nil {
			return
		}
		err = unix.Unlinkat(parent.fd(), name, unix.AT_REMOVEDIR)
		if err == nil || errors.Is(err, unix.ENOENT) {
			r.removed++
			return
		}
		if !errors.Is(err, unix.ENOTEMPTY) || r.removed == before {
			break
		}
	}
	if r.firstErr == nil || !errors.Is(err, unix.ENOTEMPTY) {
		r.recordError(OpError("remove", parent.Path(fmt.Sprintf("%+q", name)), err))
	}
}

// makeWritable lets this process remove names from a read-only directory of its own. It returns a
// function that restores the mode.
func (d *Dir) makeWritable() (restore func()) {
	nothing := func() {}
	if unix.Faccessat(d.fd(), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS) == nil {
		return nothing
	}
	st, err := d.Stat()
	if err != nil || unix.Fchmod(d.fd(), 0o700) != nil {
		return nothing
	}
	return func() { unix.Fchmod(d.fd(), st.st.Mode&0o7777) }
}

func (r *treeRemoval) removeEntries(dir *Dir, path string, depth int) {
	for e, err := range dir.Names() {
		if err == nil {
			err = r.ctx.Err()
		}
		if err != nil {
			r.recordError(err)
			return
		}
		r.removeEntry(dir, e.Name(), path, depth)
		if r.fatalErr != nil {
			return
		}
	}
}

func (r *treeRemoval) removeEntry(dir *Dir, name, path string, depth int) {
	st, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if path != "" {
		path += "/"
	}
	path += name
	switch {
	case err != nil:
		r.recordError(err)
	case st.IsDir():
		r.removeDir(dir, name, path, depth-1)
	default:
		r.removeFile(dir, name, path, st)
	}
}

func (r *treeRemoval) removeFile(dir *Dir, name, path string, st Stat) {
	kept := fmt.Errorf("%+q: %w", path, ErrKept)
	shown := st
	if times, ok := r.links[st.Inode()]; ok && st.st.Ctim == times.after {
		shown.st.Ctim = times.before
	}
	if !r.mayRemove(path, shown) {
		r.recordError(kept)
		return
	}
	if st.Links() < 2 {
		r.unlinkEntry(dir, name)
		return
	}
	f, err := dir.open(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		r.recordError(err)
		return
	}
	defer f.Close()
	var now unix.Stat_t
	if unix.Fstat(int(f.Fd()), &now) != nil || now.Ino != st.Inode() || now.Ctim != st.st.Ctim {
		r.recordError(kept)
		return
	}
	r.unlinkEntry(dir, name)
	if unix.Fstat(int(f.Fd()), &now) == nil {
		r.links[st.Inode()] = linkTimes{before: shown.st.Ctim, after: now.Ctim}
	}
}

func (r *treeRemoval) unlinkEntry(dir *Dir, name string) {
	err := unix.Unlinkat(dir.fd(), name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		r.recordError(OpError("remove", dir.Path(fmt.Sprintf("%+q", name)), err))
		return
	}
	r.removed++
}
