package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Layout describes the names that our programs make in a directory. The first entry
// that matches a name counts. A name that none matches is not ours.
type Layout []LayoutEntry

// LayoutEntry describes some names of a [Layout].
type LayoutEntry struct {
	Match func(name string) bool
	Perm  fs.FileMode // the least mode of what has such a name
	Dir   bool        // it is a directory
	Below Layout      // of a directory: the names in it
}

// Named matches exactly these names.
func Named(names ...string) func(string) bool {
	return func(name string) bool {
		for _, n := range names {
			if n == name {
				return true
			}
		}
		return false
	}
}

// TempName returns the name under which [Dir.WriteFile] writes the next content of
// name.
func TempName(name string) string { return "." + name + ".tmp" }

// HandOver gives a user what root left in d, so that the daemon, which runs as that
// user, can work with it. It is for a process of root. Only what layout describes is
// handed over, and only regular files with one link and directories that belong to
// root. A link is not followed and a mount not crossed, whoever can write in d. An
// entry that cannot be handed over is reported with the others, and does not keep
// them back.
//
// A file of root that the owner of d moved to a name of the layout is handed over
// as well: nobody should keep root's files in a directory of another user.
func (d *Dir) HandOver(layout Layout, uid, gid int) error {
	var errs []error
	for e, err := range d.Names() {
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		entry := layout.find(e.Name())
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

// maxHandOverErrors bounds what [Dir.HandOver] reports of one directory.
const maxHandOverErrors = 10

func (l Layout) find(name string) *LayoutEntry {
	for i := range l {
		if l[i].Match(name) {
			return &l[i]
		}
	}
	return nil
}

// handOver hands one entry over, and what is below it.
func (d *Dir) handOver(name string, entry *LayoutEntry, uid, gid int) error {
	// A path descriptor has no effect on what it names, a device or a lease say.
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

// handOverOpen hands over what is open as d, a directory or a file, if it is still
// what st describes.
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

// chownFromRoot changes the owner of what root owns. The group changes only if it is root's:
// another one was inherited from the directory, or set by the operator.
func chownFromRoot(f *os.File, st unix.Stat_t, perm fs.FileMode, uid, gid int) error {
	if st.Gid != 0 {
		gid = int(st.Gid)
	}
	// The mode first: once the user owns the file, it is for the user to say.
	if mode := st.Mode&0o7777 | uint32(perm.Perm()); mode != st.Mode&0o7777 {
		if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
			return err
		}
	}
	return unix.Fchown(int(f.Fd()), uid, gid)
}

// ChownFromRoot gives d to a user if it belongs to root. It is for a process of root that
// has just made d for that user.
func (d *Dir) ChownFromRoot(uid, gid int) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return opError("stat", d.f.Name(), err)
	}
	if st.Uid != 0 {
		return nil
	}
	if err := chownFromRoot(d.f, st, 0o750, uid, gid); err != nil {
		return opError("chown", d.f.Name(), err)
	}
	return nil
}

// isLinkOrMount reports whether a name is a link or a mount.
func isLinkOrMount(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTDIR)
}

// IsNotDirBeneath reports whether err says that a name was no directory in the open
// one: it was missing, a file, a link or a mount.
func IsNotDirBeneath(err error) bool { return errors.Is(err, fs.ErrNotExist) || isLinkOrMount(err) }
