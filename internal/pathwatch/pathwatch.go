// Package pathwatch finds out whether the path of an open directory still leads to it. A directory
// can be moved or removed, and something can be mounted over it or above it. What is written in it
// would then not be found under its path.
//
// Invariant: [Watch.Check] also finds mounts that this process cannot see.
package pathwatch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/printable"
)

// MovedError says that the path of an open directory no longer leads to it, so that nothing written
// in it is found under its path. The caller must stop acknowledging and end the process. The next
// start uses what is at the path then.
type MovedError struct {
	Path  string
	Cause string // what happened, as the end of a sentence that begins with the path
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("%s %s; the next start takes what is there", printable.Text(e.Path), e.Cause)
}

// The values of [MovedError.Cause].
const (
	causeOther   = "is another directory than the one that was opened (it was moved, or something was mounted over it)"
	causeGone    = "is gone (the directory that was opened was moved or removed, or something was mounted over one that it is in)"
	causeMounted = "is hidden by a mount that came after it was opened"
	causeUnmount = "is on a mount that was unmounted after it was opened"
)

// pathMask selects what identifies a directory. Kernels before 5.8 return no mount.
const pathMask = unix.STATX_TYPE | unix.STATX_INO | unix.STATX_MNT_ID

// Check returns a [*MovedError] if the path of a directory now leads to another directory, to
// another mount, or to nothing. Any other error says that it could not find out. Only a [Watch]
// detects mounts that this process cannot see.
func Check(d *durable.Dir) error {
	f := d.File()
	open, err := statOpen(f)
	if err != nil {
		return err
	}
	now, err := statPath(unix.AT_FDCWD, f.Name(), 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return &MovedError{Path: f.Name(), Cause: causeGone}
	case err != nil:
		return durable.OpError("stat", f.Name(), err)
	case !sameDirectory(open, now):
		return &MovedError{Path: f.Name(), Cause: causeOther}
	}
	return nil
}

// sameDirectory reports whether both are the same directory on the same mount.
func sameDirectory(a, b unix.Statx_t) bool {
	if a.Ino != b.Ino || a.Dev_major != b.Dev_major || a.Dev_minor != b.Dev_minor {
		return false
	}
	return a.Mask&b.Mask&unix.STATX_MNT_ID == 0 || a.Mnt_id == b.Mnt_id
}

func statOpen(f *os.File) (unix.Statx_t, error) {
	st, err := statPath(int(f.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		err = durable.OpError("stat", f.Name(), err)
	}
	return st, err
}

func statPath(fd int, path string, flags int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := durable.RetryEINTR(func() error { return unix.Statx(fd, path, flags, pathMask, &st) })
	return st, err
}

// Watch checks that the paths of open directories still lead to them. It also works if mounts
// of this process hide later ones, as for the state directory of a systemd service. Its methods are
// safe for concurrent use.
type Watch struct {
	dirs         []*durable.Dir
	mounts       *mountWatch // nil if the list of mounts cannot be watched
	mountListErr error       // why it cannot be watched
}

// New returns a watch of directories, which must stay open as long as the watch. The watch
// must be closed.
func New(dirs ...*durable.Dir) (*Watch, error) {
	w := &Watch{dirs: dirs}
	mounts, err := watchMounts(dirs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("watch the mounts: %w", err)
	}
	w.mounts, w.mountListErr = mounts, err
	// A change during the first read is found here or by the watch.
	if err := w.Check(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// MountListErr returns why the list of mounts is not watched, or nil if it is: for example, /proc
// is missing or not readable. Without the list, only mounts that a path leads to are detected.
func (w *Watch) MountListErr() error { return w.mountListErr }

// Check returns a [*MovedError] if one of the paths no longer leads to its directory. Any other
// error says that it could not find out, and should end the process too. It is cheap enough to call
// for each episode.
func (w *Watch) Check() error {
	for _, d := range w.dirs {
		if err := Check(d); err != nil {
			return err
		}
	}
	if w.mounts == nil {
		return nil
	}
	return w.mounts.checkUnmoved()
}

// Close ends the watch. It does not close the directories.
func (w *Watch) Close() error {
	if w.mounts == nil {
		return nil
	}
	return w.mounts.close()
}
