package serviceuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Explain adds advice to a permission error: who owns the directory, which user this process is,
// and the command that fixes it. Program is the command line with which root hands over its files,
// for example "receiver check". It returns any other error unchanged.
func Explain(err error, program string) error {
	path, ok := deniedPath(err)
	if !ok || os.Geteuid() == 0 {
		return err
	}
	b, ok := findObstacle(path)
	if !ok {
		return err
	}
	us := Current()
	return fmt.Errorf("%w; %s belongs to %s (mode %04o), and this process runs as %s: %s",
		err, b.path, userName(b.uid), b.mode, us.Name(), b.fixCommand(us, program))
}

// deniedPath returns the path of a permission error.
func deniedPath(err error) (string, bool) {
	if !errors.Is(err, fs.ErrPermission) {
		return "", false
	}
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Path, true
	}
	if at, ok := errors.AsType[*os.LinkError](err); ok {
		return at.New, true
	}
	return "", false
}

// obstacle is a directory or file that this process cannot access.
type obstacle struct {
	requestedPath string // the requested path
	path          string
	uid           int
	parent        int // the owner of the directory above
	mode          uint32
	isDir         bool
	enter         bool // the directory cannot be entered; otherwise it cannot be written to
}

// findObstacle returns the first directory above path that this process cannot enter. If there is
// none, it returns path itself, or the directory above if path does not exist.
func findObstacle(path string) (obstacle, bool) {
	path, err := filepath.Abs(path)
	if err != nil {
		return obstacle{}, false
	}
	at, parent := "/", 0
	last, found := obstacle{}, false
	for _, name := range append(splitPath(path), "") {
		b, ok := statObstacle(at)
		if !ok {
			break // it does not exist, so the directory above is the obstacle
		}
		b.requestedPath, b.parent = path, parent
		last, found = b, true
		if b.isDir && unix.Faccessat(unix.AT_FDCWD, at, unix.X_OK, unix.AT_EACCESS) != nil {
			last.enter = true
			break
		}
		parent = b.uid
		at = filepath.Join(at, name)
	}
	return last, found
}

func statObstacle(path string) (obstacle, bool) {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return obstacle{}, false
	}
	return obstacle{path: path, uid: int(st.Uid), mode: st.Mode & 0o7777, isDir: st.Mode&unix.S_IFMT == unix.S_IFDIR}, true
}

// fixCommand returns the command that gives access.
func (b obstacle) fixCommand(us User, program string) string {
	name := filepath.Base(strings.Fields(program)[0])
	switch {
	case isCredential(b.requestedPath):
		return "systemd shows it to its unit and to root only: run the command as root"
	case b.uid == us.UID:
		return "run chmod u+rwX " + b.path
	case b.uid != 0 && !isNumber(b.uid):
		return fmt.Sprintf("run the command as that user: runuser -u %s -- %s ...", userName(b.uid), name)
	case b.uid != 0:
		return "run the command as root: it becomes that user"
	case b.parent == us.UID:
		return fmt.Sprintf("an earlier run as root left it; run '%s' once as root, which hands over what is in the program's own directories (elsewhere: chown -h %s %s)",
			program, ownerName(us), b.path)
	case !b.isDir:
		return fmt.Sprintf("run chgrp %[1]s %[2]s && chmod 0640 %[2]s", us.GroupName(), b.path)
	case b.enter && b.mode&0o077 == 0: // private on purpose: others must not get in
		return fmt.Sprintf("run the command as root; if %[1]s is a directory of %[2]s's own, run chown -R %[3]s:%[4]s %[1]s, otherwise move %[5]s to one that it can enter",
			b.path, us.Name(), ownerName(us), us.GroupName(), filepath.Base(b.requestedPath))
	case b.enter:
		return fmt.Sprintf("move %s to a directory that %s can enter, or run chgrp %s %[4]s && chmod 0750 %[4]s",
			filepath.Base(b.requestedPath), us.Name(), us.GroupName(), b.path)
	case filepath.Dir(b.requestedPath) == b.path && !b.isOurs():
		return fmt.Sprintf("run install -d -o %s -g %s -m 0750 %s", ownerName(us), us.GroupName(), b.requestedPath)
	}
	return fmt.Sprintf("if %s should work there, run chown -h %s %s, then '%s' once as root", us.Name(), ownerName(us), b.path, program)
}

// isOurs reports whether a directory of root looks like one of our programs: closed to others.
func (b obstacle) isOurs() bool { return b.mode&0o007 == 0 }

func isNumber(uid int) bool { return strings.HasPrefix(userName(uid), "uid ") }

// ownerName returns a user as chown accepts it.
func ownerName(u User) string { return strings.TrimPrefix(u.Name(), "uid ") }

// isCredential reports whether path is a credential that systemd passes to a unit.
func isCredential(path string) bool { return strings.HasPrefix(path, "/run/credentials/") }
