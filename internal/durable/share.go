package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// groupAccess are the mode bits with which a group can list, enter and change a directory.
const groupAccess = unix.S_IRWXG

// ShareDir gives the directory name in d to a group, and lets the group list, enter and change it.
// It reports whether that needed a change. Owner, other bits and everything in the directory stay
// as they are.
//
// The process may have more rights than those who can write in d. ShareDir changes only what it has
// open, which is a directory in d on the mount of d. For any other name, or one that is replaced
// meanwhile, it returns an error of [OpenBeneath]; see [IsNotDirBeneath].
func (d *Dir) ShareDir(name string, gid int) (bool, error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	// This only avoids opening most directories.
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && isShared(st, gid) {
		return false, nil
	}
	fd, err := OpenBeneath(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK)
	if err != nil {
		return false, &os.PathError{Op: "open", Path: d.Path(name), Err: err}
	}
	f := os.NewFile(uintptr(fd), d.Path(name))
	defer f.Close()
	return shareOpen(f, gid)
}

// shareOpen is [Dir.ShareDir] for an open directory. It changes the group first: an unprivileged
// chmod of a directory of another group would remove the setgid bit.
func shareOpen(f *os.File, gid int) (changed bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, &os.PathError{Op: "share", Path: f.Name(), Err: unix.ENOTDIR}
	}
	if int(st.Gid) != gid {
		if err := unix.Fchown(int(f.Fd()), -1, gid); err != nil {
			return false, &os.PathError{Op: "chgrp", Path: f.Name(), Err: err}
		}
		changed = true
	}
	if st.Mode&groupAccess != groupAccess {
		if err := unix.Fchmod(int(f.Fd()), st.Mode&0o7777|groupAccess); err != nil {
			return changed, &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
		}
		changed = true
	}
	return changed, nil
}

// isShared reports whether [Dir.ShareDir] has nothing to change.
func isShared(st unix.Stat_t, gid int) bool {
	return st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Gid) == gid && st.Mode&groupAccess == groupAccess
}

// ShareFile lets a group read the file name in d, which must be root's. It changes only what it has
// open: a regular file in d with one link.
func (d *Dir) ShareFile(name string, gid int) error {
	f, err := d.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Uid != 0 || st.Nlink != 1 {
		return &os.PathError{Op: "share", Path: f.Name(), Err: unix.EPERM}
	}
	if err := unix.Fchown(int(f.Fd()), -1, gid); err != nil {
		return &os.PathError{Op: "chgrp", Path: f.Name(), Err: err}
	}
	if err := unix.Fchmod(int(f.Fd()), st.Mode&0o7777|unix.S_IRGRP); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return nil
}
