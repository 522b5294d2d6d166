package labtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
)

// Service makes the daemons of a lab run as another user, which needs no name, under the umask
// of their units, and all commands as root under umask 077. The test must be root. [Lab.Own]
// gives that user what it must own.
func Service(uid int) Option {
	return func(l *Lab) {
		l.uid = uid
		id := strconv.Itoa(uid)
		l.asDaemon = []string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--", "sh", "-c", `umask 027; exec "$@"`, "sh"}
		l.asPerson = []string{"sh", "-c", `umask 077; exec "$@"`, "sh"}
		for _, dir := range []string{l.bin, filepath.Dir(l.Dir), l.Dir} { // that user must get there
			fixture.Must(l.t, os.Chmod(dir, 0o755))
		}
	}
}

// ByHand makes the next daemons run as root, as if started by hand, or again as the service
// does.
func (l *Lab) ByHand(yes bool) { l.byHand = yes }

// daemonCommand returns the command line of a daemon.
func (l *Lab) daemonCommand(argv []string) []string {
	if l.byHand {
		return slices.Concat(l.asPerson, argv)
	}
	return slices.Concat(l.asDaemon, argv)
}

// Own makes directories of mode 0750, and gives them, or files that exist, to the user of the
// daemons.
func (l *Lab) Own(paths ...string) {
	l.t.Helper()
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			fixture.Must(l.t, os.MkdirAll(path, 0o755))
			fixture.Must(l.t, os.Chmod(path, 0o750))
		}
		l.chown(path, l.uid, l.uid)
	}
}

// OwnTree gives a directory and everything in it to the user of the daemons, as if that user
// had recorded it.
func (l *Lab) OwnTree(path string) {
	l.t.Helper()
	var paths []string
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	fixture.Must(l.t, err)
	// The directory comes last: from then on a daemon may move it.
	for _, path := range slices.Backward(paths) {
		l.chown(path, l.uid, l.uid)
	}
}

// ShareKey lets the daemons' group read a key, as the installers do.
func (l *Lab) ShareKey(path string) {
	l.t.Helper()
	l.chown(path, 0, l.uid)
	fixture.Must(l.t, os.Chmod(path, 0o640))
}

func (l *Lab) chown(path string, uid, gid int) {
	l.t.Helper()
	fixture.Must(l.t, os.Lchown(path, uid, gid))
}

// CheckOwners fails the test for everything below a directory that does not belong to the user
// of the daemons, or has a mode that the daemons would not have set. It skips names for which
// skip returns true, and what is in them.
func (l *Lab) CheckOwners(t testing.TB, dir string, skip func(rel string) bool) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if skip != nil && skip(rel) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return l.checkOwner(t, path)
	})
	fixture.Must(t, err)
}

func (l *Lab) checkOwner(t testing.TB, path string) error {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != l.uid || int(st.Gid) != l.uid {
		t.Errorf("%s belongs to %d:%d, want %d:%d", path, st.Uid, st.Gid, l.uid, l.uid)
	}
	want := []fs.FileMode{0o640}
	switch {
	case strings.Contains(path, "/identity"): // it is 0700 itself, certificates in it need not be secret
		want = []fs.FileMode{0o600, 0o644, fs.ModeDir | 0o700, fs.ModeDir | 0o755}
	case info.IsDir():
		want = []fs.FileMode{fs.ModeDir | 0o750}
	case strings.HasSuffix(path, "lock"):
		want = []fs.FileMode{0o600, 0o640}
	}
	if !slices.Contains(want, info.Mode()) {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
	return nil
}

// Commands returns all commands of a program as its help lists them, such as "index backfill".
// Hidden ones are not included.
func (l *Lab) Commands(t testing.TB, program string) []string {
	t.Helper()
	return l.commandsBelow(t, program, nil)
}

func (l *Lab) commandsBelow(t testing.TB, program string, path []string) []string {
	t.Helper()
	argv := slices.Concat([]string{filepath.Join(l.bin, program)}, path, []string{"--help"})
	help := runProgram(t, argv[0], argv[1:]...).MustExit(t, 0).Stdout
	_, list, _ := strings.Cut(help, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var commands []string
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		below := l.commandsBelow(t, program, append(slices.Clone(path), fields[0]))
		if len(below) == 0 {
			below = []string{strings.Join(append(slices.Clone(path), fields[0]), " ")}
		}
		commands = append(commands, below...)
	}
	if len(path) == 0 && len(commands) < 5 {
		t.Fatalf("found %d commands of %s only: %s", len(commands), program, fmt.Sprint(commands))
	}
	return commands
}
