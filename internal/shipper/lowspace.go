package shipper

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"cis490/internal/serviceuser"
)

// The directory of the low-space file may belong to the experiments' user, who can put anything
// there and replace it at any time. So the file is only created or unlinked by its name in a
// directory that is held open. An existing file is not opened: it could be a FIFO, have a lease, or
// be a hard link to another file.

// lowSpaceText is for people. The queue checks only whether the file exists.
const lowSpaceText = "the shipper has no space to pack episodes\n"

// writeLowSpaceFile makes sure that a regular file exists at path. On a full disk it may be empty.
func writeLowSpaceFile(path string) error {
	dir, err := serviceuser.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(path)
	f, err := dir.Create(name, 0o644) // for every user, whatever the umask
	if errors.Is(err, fs.ErrExist) {
		st, err := dir.Lstat(name)
		if err == nil && !st.IsRegular() {
			err = fmt.Errorf("%s is not a regular file: remove it", path)
		}
		return err
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(lowSpaceText))
	return errors.Join(err, f.Close())
}

// removeLowSpaceFile removes the file at path, if there is one.
func removeLowSpaceFile(path string) error {
	dir, err := serviceuser.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Unlink(filepath.Base(path))
}
