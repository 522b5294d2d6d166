package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

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
	return func(name string) bool {
		for _, n := range names {
			if n == name {
				return true
			}
		}
		return false
	}
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
		entry := layout.findEntry(e.Name())
		if entry == nil {
			continue
		}
		err := d.handOver(e.Name(), entry, uid, gid)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && len(errs) < maxHandOverErrors {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// maxHandOverErrors bounds the errors that [Dir.HandOver] returns of one directory.
const maxHandOverErrors = 10

func (l Layout) findEntry(name string) *LayoutEntry {
	for i := range l {
		if l[i].Match(name) {
			return &l[i]
		}
	}
	return nil
}

// handOver hands over one entry and what is below it.
func (d *Dir) handOver(name string, entry *LayoutEntry, uid, gid int) error {
	// A path descriptor does not affect what it names, such as a device or a lease.
	at, err := OpenBeneath(d.fd(), name, unix.O_PATH)
	if isLinkOrMount(err) {
		return nil
	}
	if err != nil {
		return opError("hand over", d.Path(name), err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return opError("hand over", d.Path(name), err)
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
		return opError("hand over", d.Path(name), err)
	}
	sub := newDir(os.NewFile(uintptr(fd), d.Path(name)))
	defer sub.Close()
	return sub.handOverOpen(st, entry, uid, gid)
}

// handOverOpen hands over d, an open directory or file, if st still describes it.
func (d *Dir) handOverOpen(st unix.Stat_t, entry *LayoutEntry, uid, gid int) error {
	var now unix.Stat_t
	if err := unix.Fstat(d.fd(), &now); err != nil {
		return opError("hand over", d.f.Name(), err)
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
		return opError("stat", d.f.Name(), err)
	}
	if st.Uid != 0 {
		return nil
	}
	if err := chownFromRoot(d.f, st, perm, uid, gid); err != nil {
		return opError("chown", d.f.Name(), err)
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
