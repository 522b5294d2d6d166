// Package serviceuser lets a command that root runs become the user of the daemon, so that its
// files have the same owner, group and mode as the daemon's.
//
// The service user is the owner of the directory in which a program keeps its state. A program run
// by root reads its secrets first and then calls [Become], which hands over the files of earlier
// runs as root, and gives up root for good. [Explain] adds advice to a permission error.
//
// Invariant: as root, this package changes nothing by a path that another user can change. After
// [Become], no thread of the process can become root again.
package serviceuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
)

// DefaultName is the service user if the state directory does not exist yet.
const DefaultName = "cis490"

// Umask is the umask of both daemons: the group can read their files, others have no access.
// Programs set it themselves, so that the daemon can read a command's files whatever the umask of
// its caller is.
const Umask = 0o027

// User is a user with the groups of its processes.
type User struct {
	UID, GID int
	Groups   []int // supplementary groups
}

// State is where a program keeps its state.
type State struct {
	Dir    string         // its owner is the service user
	Layout durable.Layout // what the program creates in it
	// Dirs are further directories that the program creates.
	Dirs []string
	// Create says that the command creates missing directories.
	Create bool
}

// Current returns the user of this process.
func Current() User { return User{UID: os.Geteuid(), GID: os.Getegid()} }

// Name returns the user's name, or its number if it has none.
func (u User) Name() string { return userName(u.UID) }

// GroupName returns the name of the user's own group, or the number of its gid.
func (u User) GroupName() string {
	gid := strconv.Itoa(u.GID)
	if known, err := user.LookupId(strconv.Itoa(u.UID)); err == nil {
		gid = known.Gid
	}
	if n, err := strconv.Atoi(gid); err == nil {
		return groupName(n)
	}
	return gid
}

func groupName(gid int) string {
	id := strconv.Itoa(gid)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}

func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid " + id
}

// Become makes a process of root that of the service user of s. It does nothing in any other
// process. It returns the user of the process. That is still root if root owns the state directory,
// or if the directory does not exist and there is no user called [DefaultName].
//
// It first hands over the files of earlier runs as root. Notes are errors of that, which the
// command may be able to ignore.
func Become(s State) (u User, notes, err error) {
	if os.Geteuid() != 0 {
		return Current(), nil, nil
	}
	dir, u, err := findOwner(s.Dir)
	if errors.Is(err, unix.ENOTDIR) {
		return Current(), nil, nil // the command itself reports the error
	}
	if err != nil || u.UID == 0 {
		return Current(), nil, err
	}
	if dir != nil {
		defer dir.Close()
		notes = dir.HandOver(s.Layout, u.UID, u.GID)
	}
	for _, path := range append([]string{s.Dir}, s.Dirs...) {
		if err := prepareDir(path, u, s.Create); err != nil {
			notes = errors.Join(notes, fmt.Errorf("hand over %s: %w", path, err))
		}
	}
	return u, notes, dropPrivileges(u)
}

// GiveDir gives the directory at path, and what layout describes in it, to the service user of s, as
// far as it belongs to root. It is for a directory outside that of s, in which a command of root has
// written files for the daemon. In any other process it does nothing.
func GiveDir(s State, path string, layout durable.Layout) error {
	if os.Geteuid() != 0 {
		return nil
	}
	state, u, err := findOwner(s.Dir)
	if state != nil {
		state.Close()
	}
	if err != nil || u.UID == 0 {
		return err
	}
	dir, err := OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.HandOver(layout, u.UID, u.GID); err != nil {
		return err
	}
	return dir.ChownFromRoot(u.UID, u.GID, 0o700)
}

// ShareFile lets the group of the service user of s read a file of root in the directory at path,
// which only root may write to. In any process that is not root's it does nothing.
func ShareFile(s State, path, name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	state, u, err := findOwner(s.Dir)
	if state != nil {
		state.Close()
	}
	if err != nil || u.UID == 0 {
		return err
	}
	if known, err := user.LookupId(strconv.Itoa(u.UID)); err == nil {
		if gid, err := strconv.Atoi(known.Gid); err == nil {
			u.GID = gid
		}
	}
	dir, err := OpenDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.ShareFile(name, u.GID)
}

// findOwner opens a state directory and returns its service user. The directory is nil if it does
// not exist.
func findOwner(path string) (*durable.Dir, User, error) {
	at, err := resolvePath(path)
	if err != nil {
		return nil, User{}, err
	}
	defer at.close()
	owner, err := at.statOwner()
	if err != nil {
		return nil, User{}, err
	}
	if len(at.missing) > 0 {
		if owner.Uid == 0 {
			return nil, lookupName(DefaultName), nil
		}
		return nil, lookUpUser(int(owner.Uid), int(owner.Gid)), nil // only that user can create it
	}
	dir, err := at.open()
	return dir, lookUpUser(int(owner.Uid), int(owner.Gid)), err
}

// lookUpUser returns the user with these ids, which needs no name. It replaces the group of root,
// which a directory has that was given to a user by name alone.
func lookUpUser(uid, gid int) User {
	u := User{UID: uid, GID: gid, Groups: []int{gid}}
	known, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return u
	}
	if own, err := strconv.Atoi(known.Gid); err == nil && gid == 0 {
		u.GID, u.Groups = own, []int{own}
	}
	groups, err := known.GroupIds()
	if err != nil {
		return u
	}
	for _, g := range groups {
		if id, err := strconv.Atoi(g); err == nil && !slices.Contains(u.Groups, id) {
			u.Groups = append(u.Groups, id)
		}
	}
	return u
}

// lookupName returns a user by name, or root if there is no such user.
func lookupName(name string) User {
	known, err := user.Lookup(name)
	if err != nil {
		return User{}
	}
	uid, uerr := strconv.Atoi(known.Uid)
	gid, gerr := strconv.Atoi(known.Gid)
	if uerr != nil || gerr != nil {
		return User{}
	}
	return lookUpUser(uid, gid)
}

// dropPrivileges changes all threads of the process to u for good. The process must be root.
func dropPrivileges(u User) error {
	// Package syscall changes all threads, x/sys only one.
	if err := syscall.Setgroups(u.Groups); err != nil {
		return fmt.Errorf("take the groups of %s: %w", u.Name(), err)
	}
	if err := syscall.Setresgid(u.GID, u.GID, u.GID); err != nil {
		return fmt.Errorf("take the group of %s: %w", u.Name(), err)
	}
	if err := syscall.Setresuid(u.UID, u.UID, u.UID); err != nil {
		return fmt.Errorf("become %s: %w", u.Name(), err)
	}
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	if ruid != u.UID || euid != u.UID || suid != u.UID || rgid != u.GID || egid != u.GID || sgid != u.GID {
		return fmt.Errorf("become %s: the kernel says that this is %d:%d", u.Name(), euid, egid)
	}
	if syscall.Setresuid(0, 0, 0) == nil {
		return fmt.Errorf("become %s: this process can still become root", u.Name())
	}
	return nil
}

// IsHiddenCredential reports whether path is a credential of a unit that systemd hides from this
// process.
func IsHiddenCredential(path string) bool {
	if !isCredential(path) {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	f.Close() // nothing was read
	return false
}

// CheckReadable returns an error for each file that this process cannot read. After [Become] this
// process is the user of the daemon, which reads them without root. It skips credentials of
// systemd, which only their unit can read.
func CheckReadable(files []string, program string) error {
	var errs []error
	for _, path := range files {
		if path == "" || isCredential(path) {
			continue
		}
		f, err := os.Open(path)
		if err == nil {
			err = f.Close()
		}
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("the daemon cannot read it: %w", Explain(err, program))
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
