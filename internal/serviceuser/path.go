package serviceuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// maxLinks is the maximum number of links in a path, as in the kernel.
const maxLinks = 40

// resolvedPath is the end of a path, or its last directory that exists.
type resolvedPath struct {
	path    string
	fd      int      // a path descriptor
	missing []string // the rest of the path, which does not exist
	links   []symlink
}

// symlink is a symbolic link in a path.
type symlink struct {
	path string
	uid  uint32
}

// resolvePath follows a path step by step. It opens each name below the descriptor of the one
// before, so that a directory swapped meanwhile has no effect. It follows only links of root and of
// the owner of the final directory: any other user could lead root to a directory of a third user.
func resolvePath(path string) (*resolvedPath, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	p := &resolvedPath{path: path, fd: -1}
	if err := p.followLinks(); err != nil {
		p.close()
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	owner, err := p.statOwner()
	if err != nil {
		p.close()
		return nil, err
	}
	for _, l := range p.links {
		if l.uid != 0 && l.uid != owner.Uid {
			p.close()
			return nil, fmt.Errorf("%s is a link of %s to a directory of %s: remove the link, or name the directory itself",
				l.path, userName(int(l.uid)), userName(int(owner.Uid)))
		}
	}
	return p, nil
}

func (p *resolvedPath) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}

// replaceFD closes p.fd and sets it to fd.
func (p *resolvedPath) replaceFD(fd int) {
	p.close()
	p.fd = fd
}

func (p *resolvedPath) followLinks() error {
	root, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return err
	}
	p.fd = root
	at := "/" // the path of fd, for messages
	rest := splitPath(p.path)
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		next, err := openPath(p.fd, name)
		if errors.Is(err, unix.ENOENT) {
			p.missing = append([]string{name}, rest...)
			return nil
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(next, &st); err != nil {
			unix.Close(next)
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			p.replaceFD(next)
			at = filepath.Join(at, name)
			continue
		case unix.S_IFLNK:
		default:
			unix.Close(next)
			return unix.ENOTDIR
		}
		target, err := p.readLink(next, filepath.Join(at, name), st.Uid)
		unix.Close(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(splitPath(target), rest...)
	}
	return nil
}

// readLink returns the target of a link. For an absolute target it sets p.fd to the root directory.
func (p *resolvedPath) readLink(fd int, path string, uid uint32) (string, error) {
	p.links = append(p.links, symlink{path, uid})
	if len(p.links) > maxLinks {
		return "", unix.ELOOP
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err != nil {
		return "", err
	}
	target := string(b[:n])
	if !filepath.IsAbs(target) {
		return target, nil
	}
	root, err := openPath(unix.AT_FDCWD, "/")
	if err != nil {
		return "", err
	}
	p.replaceFD(root)
	return target, nil
}

func splitPath(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// openPath opens a name without following a link. It tries a directory first, which mounts a
// systemd automount.
func openPath(dirfd int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, name, flags|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		fd, err = unix.Openat(dirfd, name, flags, 0)
	}
	return fd, err
}

// statOwner describes the directory.
func (p *resolvedPath) statOwner() (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: p.path, Err: err}
	}
	return st, nil
}

// OpenDir opens the directory at path for a process that other users must not lead elsewhere. It
// returns an error for a link in the path unless root or the owner of the directory created it, and
// an error wrapping [fs.ErrNotExist] if there is no such directory. It also opens a directory that
// this process may enter but not list.
func OpenDir(path string) (*durable.Dir, error) {
	p, err := resolvePath(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if len(p.missing) > 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	p.path = path // messages show the path as the operator wrote it
	return p.openToUse()
}

// OpenNearest is [OpenDir] for the last directory of path that exists.
func OpenNearest(path string) (*durable.Dir, error) {
	p, err := resolvePath(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if len(p.missing) > 0 {
		p.path = strings.TrimSuffix(p.path, "/"+filepath.Join(p.missing...))
	}
	return p.openToUse()
}

// CheckPrivate returns an error wrapping [fs.ErrPermission] if this process is root and other users can
// change a directory: they could lead what root creates there elsewhere.
func CheckPrivate(dir *durable.Dir) error {
	if os.Geteuid() != 0 {
		return nil
	}
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	if uid, _ := st.Owner(); uid != 0 || st.Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be changed by others than root: %w", dir.Path(""), fs.ErrPermission)
	}
	return nil
}

// openToUse is open that also opens a directory which cannot be listed.
func (p *resolvedPath) openToUse() (*durable.Dir, error) {
	dir, err := p.open()
	if !errors.Is(err, fs.ErrPermission) {
		return dir, err
	}
	fd, err := openPath(p.fd, ".")
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return durable.NewDir(os.NewFile(uintptr(fd), p.path)), nil
}

// open opens the directory for reading.
func (p *resolvedPath) open() (*durable.Dir, error) {
	fd, err := unix.Openat(p.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return durable.NewDir(os.NewFile(uintptr(fd), p.path)), nil
}

// prepareDir makes sure that u can use the directory at path. It hands over a directory of root
// that is in a directory of u. With create, it creates the first missing directory for u if only
// root can write to its parent; u itself creates the others.
func prepareDir(path string, u User, create bool) error {
	p, err := resolvePath(path)
	if err != nil {
		return err
	}
	defer p.close()
	owner, err := p.statOwner()
	if err != nil || owner.Uid != 0 {
		return err
	}
	if len(p.missing) == 0 {
		return p.giveToUser(u)
	}
	if !create || owner.Mode&0o022 != 0 {
		return nil // u can create it, or the command creates none
	}
	parent, err := p.open()
	if err != nil {
		return err
	}
	defer parent.Close()
	made, err := parent.MakeDir(p.missing[0])
	if err != nil {
		return err
	}
	defer made.Close()
	return made.ChownFromRoot(u.UID, u.GID, 0o750)
}

// giveToUser gives u a directory of root that is in a directory of u.
func (p *resolvedPath) giveToUser(u User) error {
	var parent unix.Stat_t
	if err := unix.Fstatat(p.fd, "..", &parent, 0); err != nil {
		return err
	}
	if int(parent.Uid) != u.UID {
		return nil
	}
	dir, err := p.open()
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.ChownFromRoot(u.UID, u.GID, 0o750)
}
