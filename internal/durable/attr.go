package durable

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// attrPrefix begins the names of our extended attributes. Every user may set attributes in "user.".
const attrPrefix = "user.cis490."

// ErrNoAttr says that a file does not have the attribute, or that its file system has no
// attributes.
var ErrNoAttr = fmt.Errorf("no such attribute: %w", fs.ErrNotExist)

// SetAttr sets an extended attribute of an open file. The file's next sync makes it durable.
func SetAttr(f *os.File, name string, value []byte) error {
	err := unix.Fsetxattr(int(f.Fd()), attrPrefix+name, value, 0)
	if err == unix.ENOTSUP {
		return ErrNoAttr
	}
	if err != nil {
		return opError("set attribute "+name, f.Name(), err)
	}
	return nil
}

// RemoveAttr removes an extended attribute of an open file. It returns nil if there is none.
func RemoveAttr(f *os.File, name string) error {
	err := unix.Fremovexattr(int(f.Fd()), attrPrefix+name)
	if err == nil || err == unix.ENODATA || err == unix.ENOTSUP {
		return nil
	}
	return opError("remove attribute "+name, f.Name(), err)
}

// ReadAttr returns an extended attribute of an open file, or [ErrNoAttr].
func ReadAttr(f *os.File, name string) ([]byte, error) {
	b := make([]byte, 512) // all attributes of this program are smaller
	n, err := unix.Fgetxattr(int(f.Fd()), attrPrefix+name, b)
	if err == unix.ENODATA || err == unix.ENOTSUP || err == unix.ERANGE {
		return nil, ErrNoAttr
	}
	if err != nil {
		return nil, opError("attribute "+name, f.Name(), err)
	}
	return b[:n], nil
}
