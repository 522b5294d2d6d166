package serviceuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Folder describes a directory in which a program works.
type Folder struct {
	Path   string `json:"path"`
	Exists bool   `json:"exists"`
	Owner  string `json:"owner,omitempty"` // of the directory: USER:GROUP
	Mode   string `json:"mode,omitempty"`
	// MadeBy is the user that creates a missing directory at the next start.
	MadeBy string `json:"made_by,omitempty"`
	// Note is what to do if a unit should create the directory and cannot.
	Note string `json:"note,omitempty"`
}

// String describes f without its path.
func (f Folder) String() string {
	if f.Exists {
		return fmt.Sprintf("writable (%s, mode %s)", f.Owner, f.Mode)
	}
	return "missing: " + f.MadeBy + " makes it at the next start"
}

// stateDirectory is the directory that systemd creates for the units (StateDirectory=).
const stateDirectory = "/var/lib/cis490"

// ExamineFolder describes a directory. It returns an error if this process can neither work in it
// nor create it. wasRoot says that the process has given up root, and that a start by root creates
// what is missing. It changes nothing.
func ExamineFolder(path string, wasRoot bool) (Folder, error) {
	f := Folder{Path: path}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = f.findCreator(wasRoot)
		return f, err
	}
	if err != nil {
		return f, err
	}
	if !info.IsDir() {
		return f, fmt.Errorf("%s is not a directory", path)
	}
	f.Exists = true
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Owner, f.Mode = ownerOf(st), fmt.Sprintf("%04o", st.Mode&0o7777)
	}
	return f, checkWritable(path)
}

// checkWritable returns an error unless this process can list a directory, and create and remove
// names in it.
func checkWritable(path string) error {
	err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	if err != nil {
		return &fs.PathError{Op: "write in", Path: path, Err: err}
	}
	return nil
}

// findCreator finds out which user creates a missing directory.
func (f *Folder) findCreator(wasRoot bool) error {
	at := filepath.Dir(filepath.Clean(f.Path))
	for at != "/" && isMissing(at) {
		at = filepath.Dir(at)
	}
	err := checkWritable(at)
	us := Current()
	switch {
	case err == nil:
		f.MadeBy = us.Name()
	case isMissing(stateDirectory) && (f.Path == stateDirectory || strings.HasPrefix(f.Path, stateDirectory+"/")):
		f.MadeBy = "systemd"
	case wasRoot && isRootsAlone(at):
		f.MadeBy = "root"
		f.Note = fmt.Sprintf("a start by root makes %[1]s; %[2]s cannot, for a unit run install -d -o %[3]s -g %[4]s -m 0750 %[1]s",
			f.Path, us.Name(), ownerName(us), us.GroupName())
	default:
		return fmt.Errorf("%s is missing, and %s cannot make it: %w", f.Path, us.Name(), err)
	}
	return nil
}

// isRootsAlone reports whether only root can create a name in a directory.
func isRootsAlone(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Uid == 0 && st.Mode&0o022 == 0
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func ownerOf(st *syscall.Stat_t) string {
	return strings.TrimPrefix(userName(int(st.Uid)), "uid ") + ":" + groupName(int(st.Gid))
}

// Secret describes a file that only the daemon, root and the daemon's group should read.
type Secret struct {
	Path  string `json:"path"`
	Owner string `json:"owner"` // USER:GROUP
	Mode  string `json:"mode"`
	// Note is what should change, with the command for it. It is empty if the file is fine.
	Note string `json:"note,omitempty"`
}

// ErrExposed says that every user of the machine can read or change a secret.
var ErrExposed = errors.New("every user of this machine can")

// ExamineSecret describes mode and owner of a file for the user of this process. It returns an
// error wrapping [ErrExposed] if everybody can read or write the file, and a note for lesser
// faults. It returns a zero Secret for a credential of systemd, which only its unit sees.
func ExamineSecret(path string) (Secret, error) {
	if path == "" || isCredential(path) {
		return Secret{}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return Secret{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Secret{}, nil
	}
	s := Secret{Path: path, Owner: ownerOf(st), Mode: fmt.Sprintf("%04o", st.Mode&0o7777)}
	if st.Mode&0o006 != 0 && isReachable(path) {
		what := "read"
		if st.Mode&0o002 != 0 {
			what = "change"
		}
		return s, fmt.Errorf("%s (mode %s): %w %s it: run chmod 0%03o %s, and issue a new key if others use this machine",
			path, s.Mode, ErrExposed, what, st.Mode&0o750, path)
	}
	s.Note = describeExposure(path, st, Current())
	return s, nil
}

// describeExposure returns which others can access a secret, and how to prevent that.
func describeExposure(path string, st *syscall.Stat_t, us User) string {
	groups, _ := os.Getgroups()
	ourGroup := st.Gid == 0 || int(st.Gid) == us.GID || slices.Contains(groups, int(st.Gid))
	switch {
	case st.Uid != 0 && int(st.Uid) != us.UID:
		return fmt.Sprintf("%s belongs to %s, who can change it: run chown root:%s %[1]s && chmod 0640 %[1]s",
			path, userName(int(st.Uid)), us.GroupName())
	case st.Mode&0o060 != 0 && !ourGroup:
		return fmt.Sprintf("%s can be read by the group %s: run chgrp %s %[1]s && chmod 0640 %[1]s",
			path, groupName(int(st.Gid)), us.GroupName())
	case st.Mode&0o020 != 0:
		return fmt.Sprintf("%s can be changed by the group %s: run chmod g-w %[1]s", path, groupName(int(st.Gid)))
	case st.Mode&0o006 != 0:
		return fmt.Sprintf("%s is closed to others by its folder only: run chmod o-rw %[1]s", path)
	}
	return ""
}

// isReachable reports whether others can enter all directories above a file.
func isReachable(path string) bool {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		return true
	}
	for at != "/" && at != "." {
		at = filepath.Dir(at)
		if info, err := os.Stat(at); err == nil && info.Mode()&0o001 == 0 {
			return false
		}
	}
	return true
}
