package serviceuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Explain adds to an error about a permission who owns what is in the way, who this
// process is and which command fixes it. Program is how root runs the program so that
// it hands over what root left, "receiver check" say. Any other error is returned as
// it is.
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
		err, b.path, userName(b.uid), b.mode, us.Name(), b.fix(us, program))
}

// deniedPath returns the path that err, which must be about a permission, is about.
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

// obstacle is what keeps this process from a path.
type obstacle struct {
	want   string // the path that was asked for
	path   string
	uid    int
	parent int // the owner of the directory that it is in
	mode   uint32
	isDir  bool
	enter  bool // the directory cannot be entered; otherwise it is one to write to
}

// findObstacle returns the first directory on the way to path that this process cannot
// enter, or else path itself, or the directory that it would be in.
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
			break // it does not exist: what it would be in is in the way
		}
		b.want, b.parent = path, parent
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
	info, err := os.Stat(path)
	if err != nil {
		return obstacle{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return obstacle{}, false
	}
	return obstacle{path: path, uid: int(st.Uid), mode: st.Mode & 0o7777, isDir: info.IsDir()}, true
}

// fix returns the command that removes the obstacle.
func (b obstacle) fix(us User, program string) string {
	name := filepath.Base(strings.Fields(program)[0])
	switch {
	case isCredential(b.want):
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
	case b.enter:
		return fmt.Sprintf("move %s to a directory that %s can enter, or run chgrp %s %[4]s && chmod 0750 %[4]s",
			filepath.Base(b.want), us.Name(), us.GroupName(), b.path)
	case filepath.Dir(b.want) == b.path && !b.isOurs():
		return fmt.Sprintf("run install -d -o %s -g %s -m 0750 %s", ownerName(us), us.GroupName(), b.want)
	}
	return fmt.Sprintf("if %s should work there, run chown -h %s %s, then '%s' once as root", us.Name(), ownerName(us), b.path, program)
}

// isOurs reports whether a directory of root's looks like one that our programs made:
// closed to others.
func (b obstacle) isOurs() bool { return b.mode&0o007 == 0 }

func isNumber(uid int) bool { return strings.HasPrefix(userName(uid), "uid ") }

// ownerName returns what chown accepts for a user.
func ownerName(u User) string { return strings.TrimPrefix(u.Name(), "uid ") }

// isCredential reports whether systemd hands a file to a unit.
func isCredential(path string) bool { return strings.HasPrefix(path, "/run/credentials/") }
