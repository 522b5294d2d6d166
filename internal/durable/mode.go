package durable

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// setExactMode gives a file or directory that this process has just created the
// mode that its caller stated. The umask of whoever started the process may have
// taken bits away, and then other programs could not read the file. The bits of
// setuid, setgid and sticky stay as the parent directory passed them on.
func setExactMode(f *os.File, perm fs.FileMode) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return opError("stat", f.Name(), err)
	}
	mode := st.Mode&0o7000 | uint32(perm.Perm())
	if st.Mode&0o7777 == mode {
		return nil
	}
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
		return opError("chmod", f.Name(), err)
	}
	return nil
}

// keepOwner gives a new file of d the owner of the file that it will replace, so that
// a command of root takes no file away from its owner. In a directory that others can
// write to, an owner counts only if it is root or that of the directory: others could
// put a file there to be given the next. It does nothing unless the process is root.
func (d *Dir) keepOwner(f *os.File, name string, perm fs.FileMode) error {
	if os.Geteuid() != 0 {
		return nil
	}
	old, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.shareOwner(f, perm)
	}
	if err != nil || !old.Regular() {
		return err
	}
	var dir unix.Stat_t
	if err := unix.Fstat(d.fd(), &dir); err != nil {
		return opError("stat", d.f.Name(), err)
	}
	if dir.Mode&0o022 != 0 && old.st.Uid != 0 && old.st.Uid != dir.Uid {
		return nil
	}
	return chown(f, old.st)
}

// shareOwner is giveToOwner for what everybody may read: a secret stays root's.
func (d *Dir) shareOwner(f *os.File, perm fs.FileMode) error {
	if perm&0o004 == 0 {
		return nil
	}
	return d.giveToOwner(f)
}

// giveToOwner gives what root has just made in d to the owner of d, who could not work
// with it otherwise. It does nothing unless the process is root.
func (d *Dir) giveToOwner(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var dir unix.Stat_t
	if err := unix.Fstat(d.fd(), &dir); err != nil {
		return opError("stat", d.f.Name(), err)
	}
	if dir.Uid == 0 {
		return nil
	}
	return chown(f, dir)
}

func chown(f *os.File, like unix.Stat_t) error {
	if err := unix.Fchown(int(f.Fd()), int(like.Uid), int(like.Gid)); err != nil {
		return opError("chown", f.Name(), err)
	}
	return nil
}
