package durable

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// setExactMode gives a new file or directory the mode perm. The umask may have removed bits, and
// other programs could not read the file. The setuid, setgid and sticky bits stay as inherited from
// the parent directory.
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
		return opError("stat", d.f.Name(), err)
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
		return opError("stat", d.f.Name(), err)
	}
	if dir.Uid == 0 {
		return nil
	}
	return chownLike(f, dir)
}

func chownLike(f *os.File, like unix.Stat_t) error {
	if err := unix.Fchown(int(f.Fd()), int(like.Uid), int(like.Gid)); err != nil {
		return opError("chown", f.Name(), err)
	}
	return nil
}
