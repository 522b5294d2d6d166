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

// maxLinks is the maximum number of links that a path may lead through, as the
// kernel's own.
const maxLinks = 40

// resolvedPath is how far a path leads: to its end, or to the last directory that exists.
type resolvedPath struct {
	path    string
	fd      int      // a path descriptor
	missing []string // what follows and does not exist
	links   []link
}

// link is a symbolic link on the way.
type link struct {
	path string
	uid  uint32
}

// resolve follows a path step by step. Each step is taken from a descriptor of the
// one before, so that a directory that is swapped meanwhile changes nothing. A link
// counts only if root or the owner of the place that the path leads to has made it:
// everybody else could lead root to a directory of a third user.
func resolve(path string) (*resolvedPath, error) {
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

// replaceFD makes fd the descriptor of the place.
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

// readLink returns where a link leads, and goes back to the root directory if that is
// an absolute path.
func (p *resolvedPath) readLink(fd int, path string, uid uint32) (string, error) {
	p.links = append(p.links, link{path, uid})
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

// openPath opens a name without following a link. It asks for a directory first,
// which mounts one that systemd mounts on demand.
func openPath(dirfd int, name string) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dirfd, name, flags|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		fd, err = unix.Openat(dirfd, name, flags, 0)
	}
	return fd, err
}

// statOwner describes the directory of the place.
func (p *resolvedPath) statOwner() (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Path: p.path, Err: err}
	}
	return st, nil
}

// OpenDir opens the directory at path for a process that must not be led elsewhere by
// other users. A link on the way counts only if root or the owner of the directory
// made it; another one is an error. It returns an error wrapping [fs.ErrNotExist] if
// there is no such directory. A directory that this process may enter but not list is
// opened too: names in it can be used, and no more.
func OpenDir(path string) (*durable.Dir, error) {
	p, err := resolve(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if len(p.missing) > 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOENT}
	}
	p.path = path // in messages, it is called as the operator calls it
	return p.openToUse()
}

// OpenNearest is [OpenDir] for the last directory on the way to path that exists.
func OpenNearest(path string) (*durable.Dir, error) {
	p, err := resolve(path)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if len(p.missing) > 0 {
		p.path = strings.TrimSuffix(p.path, "/"+filepath.Join(p.missing...))
	}
	return p.openToUse()
}

// openToUse is open, but also for a directory that cannot be listed.
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

// open opens the directory of the place for reading.
func (p *resolvedPath) open() (*durable.Dir, error) {
	fd, err := unix.Openat(p.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return durable.NewDir(os.NewFile(uintptr(fd), p.path)), nil
}

// prepareDir makes sure that u can use the directory at path. One that root made in a
// directory of u is handed over. With create, the first directory that is missing is
// made for u if its parent is root's alone; u itself makes the others.
func prepareDir(path string, u User, create bool) error {
	p, err := resolve(path)
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
		return nil // u can make it, or nobody asked for it
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
	return made.ChownFromRoot(u.UID, u.GID)
}

// giveToUser gives u a directory of root's that is in a directory of u.
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
	return dir.ChownFromRoot(u.UID, u.GID)
}
