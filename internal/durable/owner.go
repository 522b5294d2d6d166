package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// setExactMode gives a new file or directory the mode perm. The umask may have removed bits, and
// other programs could not read the file. The setuid, setgid and sticky bits stay as inherited from
// the parent directory.
func setExactMode(f *os.File, perm fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return OpError("stat", f.Name(), err)
	}
	mode := st.Mode&0o7000 | uint32(perm.Perm())
	if st.Mode&0o7777 == mode {
		return nil
	}
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
		return OpError("chmod", f.Name(), err)
	}
	return nil
}

// keepOwner gives a new file of d the owner of the file that it will replace, so that a command of
// root does not take files away from their owners. In a directory that others can write to, only
// root and the directory's owner count: others could create a file there to become owner of the new
// one. It does nothing unless the process is root.
func (d *Dir) keepOwner(f *os.File, name string, perm fs.FileMode) error {
	if os.Geteuid() != 0 {
		return nil
	}
	old, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.shareOwner(f, perm)
	}
	if err != nil || !old.IsRegular() {
		return err
	}
	var dir unix.Stat_t
	if err := unix.Fstat(d.fd(), &dir); err != nil {
		return OpError("stat", d.f.Name(), err)
	}
	if dir.Mode&0o022 != 0 && old.st.Uid != 0 && old.st.Uid != dir.Uid {
		return nil
	}
	return chownLike(f, old.st)
}

// shareOwner is giveToOwner for a file that everybody may read. Secrets stay root's.
func (d *Dir) shareOwner(f *os.File, perm fs.FileMode) error {
	if perm&0o004 == 0 {
		return nil
	}
	return d.giveToOwner(f)
}

// giveToOwner gives what root has just created in d to the owner of d, who could not use it
// otherwise. It does nothing unless the process is root.
func (d *Dir) giveToOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var dir unix.Stat_t
	if err := unix.Fstat(d.fd(), &dir); err != nil {
		return OpError("stat", d.f.Name(), err)
	}
	if dir.Uid == 0 {
		return nil
	}
	return chownLike(f, dir)
}

func chownLike(f *os.File, like unix.Stat_t) error {
	if err := unix.Fchown(int(f.Fd()), int(like.Uid), int(like.Gid)); err != nil {
		return OpError("chown", f.Name(), err)
	}
	return nil
}

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

// Layout describes the names that our programs create in a directory. The first entry that matches
// a name counts. A name that matches none belongs to other programs.
type Layout []LayoutEntry

// LayoutEntry describes a set of names of a [Layout].
type LayoutEntry struct {
	Match func(name string) bool
	Perm  fs.FileMode // minimum mode
	Dir   bool        // the name is a directory
	Below Layout      // of a directory: its names
}

// MatchNames returns a function that matches exactly these names.
func MatchNames(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

// TempName returns the temporary name under which [Dir.WriteFile] writes the content of name.
func TempName(name string) string { return "." + name + ".tmp" }

// HandOver gives root's files in d to a user, so that the daemon, which runs as that user, can use
// them. The process must be root. HandOver changes only what layout describes, and only directories
// and regular files with one link that belong to root. It follows no link and crosses no mount,
// even if other users can write in d. It continues after an entry that it cannot hand over, and returns all
// errors. It syncs nothing: what power loss undoes, the next command of root does again.
//
// It also hands over a file of root that d's owner renamed to a name of the layout: root should
// keep no files in a directory of another user.
func (d *Dir) HandOver(layout Layout, uid, gid int) error {
	var errs []error
	for e, err := range d.Names() {
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		i := slices.IndexFunc(layout, func(entry LayoutEntry) bool { return entry.Match(e.Name()) })
		if i < 0 {
			continue
		}
		err := d.handOver(e.Name(), &layout[i], uid, gid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && len(errs) < maxHandOverErrors {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// maxHandOverErrors bounds the errors that [Dir.HandOver] returns of one directory.
const maxHandOverErrors = 10

// handOver hands over one entry and what is below it.
func (d *Dir) handOver(name string, entry *LayoutEntry, uid, gid int) error {
	// A path descriptor does not affect what it names, such as a device or a lease.
	at, err := OpenBeneath(d.fd(), name, unix.O_PATH)
	if isLinkOrMount(err) {
		return nil
	}
	if err != nil {
		return OpError("hand over", d.Path(name), err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return OpError("hand over", d.Path(name), err)
	}
	mode, links := uint32(unix.S_IFREG), uint64(st.Nlink)
	flags := uint64(unix.O_RDONLY | unix.O_NONBLOCK)
	if entry.Dir {
		mode, links = unix.S_IFDIR, 1
		flags = unix.O_RDONLY | unix.O_DIRECTORY
	}
	if st.Mode&unix.S_IFMT != mode || links != 1 || st.Uid != 0 && len(entry.Below) == 0 {
		return nil
	}
	fd, err := OpenBeneath(d.fd(), name, flags)
	if err != nil {
		return OpError("hand over", d.Path(name), err)
	}
	sub := NewDir(os.NewFile(uintptr(fd), d.Path(name)))
	defer sub.Close()
	return sub.handOverOpen(st, entry, uid, gid)
}

// handOverOpen hands over d, an open directory or file, if st still describes it.
func (d *Dir) handOverOpen(st unix.Stat_t, entry *LayoutEntry, uid, gid int) error {
	var now unix.Stat_t
	if err := unix.Fstat(d.fd(), &now); err != nil {
		return OpError("hand over", d.f.Name(), err)
	}
	if now.Ino != st.Ino || now.Dev != st.Dev || !entry.Dir && now.Nlink != 1 {
		return nil // replaced meanwhile
	}
	if now.Uid == 0 {
		if err := chownFromRoot(d.f, now, entry.Perm, uid, gid); err != nil {
			return fmt.Errorf("hand over %s: %w", d.f.Name(), err)
		}
	}
	if len(entry.Below) == 0 || now.Uid != 0 && int(now.Uid) != uid {
		return nil
	}
	return d.HandOver(entry.Below, uid, gid)
}

// chownFromRoot changes the owner of a file of root. It changes the group only if that is root's:
// any other group was inherited from the directory or set by the operator.
func chownFromRoot(f *os.File, st unix.Stat_t, perm fs.FileMode, uid, gid int) error {
	if st.Gid != 0 {
		gid = int(st.Gid)
	}
	// The mode comes first: afterwards the user decides about the file.
	if mode := st.Mode&0o7777 | uint32(perm.Perm()); mode != st.Mode&0o7777 {
		if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
			return err
		}
	}
	return unix.Fchown(int(f.Fd()), uid, gid)
}

// ChownFromRoot gives d to a user if it belongs to root, with at least the mode perm. The process
// must be root, and must have just created d for that user.
func (d *Dir) ChownFromRoot(uid, gid int, perm fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return OpError("stat", d.f.Name(), err)
	}
	if st.Uid != 0 {
		return nil
	}
	if err := chownFromRoot(d.f, st, perm, uid, gid); err != nil {
		return OpError("chown", d.f.Name(), err)
	}
	return nil
}

// isLinkOrMount reports whether err says that a name is a link or a mount point.
func isLinkOrMount(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR)
}

// IsNotDirBeneath reports whether err says that a name is not a directory on the mount of the open
// one: it is missing, a file, a link or a mount point.
func IsNotDirBeneath(err error) bool { return errors.Is(err, fs.ErrNotExist) || isLinkOrMount(err) }
