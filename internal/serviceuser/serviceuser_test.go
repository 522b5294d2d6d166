package serviceuser_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/serviceuser"
)

// actEnv makes the test binary do one act and end: giving up root cannot be done in the process
// of the tests.
const actEnv = "SERVICEUSER_ACT"

func TestMain(m *testing.M) {
	if act := os.Getenv(actEnv); act != "" {
		syscall.Umask(serviceuser.Umask)
		if err := acts[act](os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var acts = map[string]func(args []string) error{
	"become": become,
	"open": func(args []string) error {
		_, err := os.ReadFile(args[0])
		return serviceuser.Explain(err, "prog check")
	},
	"folder": func(args []string) error {
		f, err := serviceuser.ExamineFolder(args[0], args[1] == "root")
		fmt.Println(f.Note)
		return serviceuser.Explain(err, "prog check")
	},
	"mkdir":    func(args []string) error { return serviceuser.Explain(os.Mkdir(args[0], 0o755), "prog check") },
	"readable": func(args []string) error { return serviceuser.CheckReadable(args, "prog check") },
}

// become makes the process the user of a state directory, leaves a file there and prints its
// user.
func become(args []string) error {
	u, notes, err := serviceuser.Become(serviceuser.State{
		Dir:    args[0],
		Layout: durable.Layout{{Match: durable.MatchNames(".lock"), Perm: 0o640}},
		Dirs:   args[1:],
		Create: true,
	})
	if err := errors.Join(notes, err); err != nil {
		return err
	}
	groups, err := os.Getgroups()
	fmt.Println(u.UID, u.GID, os.Getuid(), os.Getgid(), groups)
	if err != nil {
		return err
	}
	for _, dir := range args {
		d, err := durable.Create(dir)
		if err != nil {
			return err
		}
		if err := d.WriteFile("made", nil, 0o640); err != nil {
			return err
		}
	}
	return nil
}

// do runs an act in a process of its own, with the ids if they are not 0.
func do(t *testing.T, act string, uid uint32, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), actEnv+"="+act)
	cmd.Dir = "/"
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	b, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(b)), err == nil
}

// folder returns a directory that every user can enter.
func folder(t *testing.T) string {
	t.Helper()
	fixture.RequireRoot(t)
	dir := t.TempDir()
	fixture.Must(t, os.Chmod(filepath.Dir(dir), 0o755))
	// Another user must be able to run the test binary.
	fixture.Must(t, os.Chmod(dir, 0o755))
	return dir
}

func makeDir(t *testing.T, path string, uid, gid int) string {
	t.Helper()
	fixture.Must(t, os.MkdirAll(path, 0o755))
	fixture.Must(t, os.Chown(path, uid, gid))
	return path
}

func ownerOf(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
}

func wantOwner(t *testing.T, path, want string) {
	t.Helper()
	if got := ownerOf(t, path); got != want {
		t.Errorf("%s: got %s, want %s", path, got, want)
	}
}

// TestRootBecomesTheOwnerOfTheState: a uid without a name works too.
func TestRootBecomesTheOwnerOfTheState(t *testing.T) {
	dir := makeDir(t, filepath.Join(folder(t), "state"), 4242, 4243)
	fixture.Must(t, os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o600))
	out, ok := do(t, "become", 0, dir)
	if !ok || out != "4242 4243 4242 4243 [4243]" {
		t.Fatalf("got %q, want %q", out, "4242 4243 4242 4243 [4243]")
	}
	wantOwner(t, filepath.Join(dir, "made"), "0640 4242:4243")
	wantOwner(t, filepath.Join(dir, ".lock"), "0640 4242:4243")
}

// TestNamedUserBringsItsGroups: a directory that was given to a user by name alone still
// belongs to the group root, and a daemon's command must not become a member of it.
func TestNamedUserBringsItsGroups(t *testing.T) {
	dir := makeDir(t, filepath.Join(folder(t), "state"), 65534, 0) // an unprivileged user
	out, ok := do(t, "become", 0, dir)
	if !ok || !strings.HasPrefix(out, "65534 65534 65534 65534 [65534") {
		t.Fatalf("got %q, want prefix %q", out, "65534 65534 65534 65534 [65534")
	}
}

func TestRootStaysRootWhereRootOwnsTheState(t *testing.T) {
	dir := makeDir(t, filepath.Join(folder(t), "state"), 0, 0)
	out, ok := do(t, "become", 0, dir)
	if !ok || !strings.HasPrefix(out, "0 0 0 0") {
		t.Fatalf("got %q, want prefix %q", out, "0 0 0 0")
	}
}

// TestMissingFoldersAreTheServiceUsers, even if only root can create the first.
func TestMissingFoldersAreTheServiceUsers(t *testing.T) {
	base := folder(t)
	state := makeDir(t, filepath.Join(base, "state"), 4242, 4243)
	inRoots, inState := filepath.Join(base, "new", "shipped"), filepath.Join(state, "episodes")
	leftByRoot := filepath.Join(state, "left")
	fixture.Must(t, os.Mkdir(leftByRoot, 0o700))
	out, ok := do(t, "become", 0, state, inRoots, inState, leftByRoot)
	if !ok {
		t.Fatal(out)
	}
	for _, path := range []string{filepath.Dir(inRoots), inRoots, inState, leftByRoot} {
		wantOwner(t, path, "0750 4242:4243")
	}
	wantOwner(t, base, "0755 0:0")

	// A state directory that is missing in a directory of the user is the user's.
	out, ok = do(t, "become", 0, filepath.Join(state, "outbox"))
	if !ok || !strings.HasPrefix(out, "4242 4243 4242 4243") {
		t.Fatal(out)
	}
}

// TestLinkOfAnotherLeadsRootNowhere: the owner of a directory within the path could make root's
// command act as any third user.
func TestLinkOfAnotherLeadsRootNowhere(t *testing.T) {
	base := folder(t)
	victim := makeDir(t, filepath.Join(base, "victim"), 5555, 5555)
	attacker := makeDir(t, filepath.Join(base, "attacker"), 4242, 4242)
	link := filepath.Join(attacker, "outbox")
	fixture.Must(t, os.Symlink(victim, link))
	fixture.Must(t, os.Lchown(link, 4242, 4242))
	if out, ok := do(t, "become", 0, link); ok || !strings.Contains(out, "is a link of uid 4242 to a directory of uid 5555") {
		t.Errorf("got %q, want %q in it", out, "is a link of uid 4242 to a directory of uid 5555")
	}
	// The operator's own links are followed, and so are those of the user that root becomes.
	fixture.Must(t, os.Lchown(link, 0, 0))
	if out, ok := do(t, "become", 0, link); !ok || !strings.HasPrefix(out, "5555 ") {
		t.Errorf("got %q, want prefix %q", out, "5555 ")
	}
	fixture.Must(t, os.Lchown(link, 5555, 5555))
	if out, ok := do(t, "become", 0, filepath.Join(base, "attacker", "..", "attacker", "outbox")); !ok || !strings.HasPrefix(out, "5555 ") {
		t.Errorf("got %q, want prefix %q", out, "5555 ")
	}
}

func TestOthersStayWhoTheyAre(t *testing.T) {
	dir := makeDir(t, filepath.Join(folder(t), "state"), 4242, 4242)
	if out, ok := do(t, "become", 4242, dir); !ok || !strings.HasPrefix(out, "4242 4242 4242 4242") {
		t.Fatalf("got %q, want prefix %q", out, "4242 4242 4242 4242")
	}
}

// TestDeniedPermissionsAreExplained: the owner, the user of the process, and the command that
// fixes it.
func TestDeniedPermissionsAreExplained(t *testing.T) {
	base := folder(t)
	file := func(uid, gid int, mode fs.FileMode, elem ...string) string {
		path := filepath.Join(append([]string{base}, elem...)...)
		fixture.Must(t, os.WriteFile(path, nil, 0o600))
		fixture.Must(t, os.Chown(path, uid, gid))
		fixture.Must(t, os.Chmod(path, mode))
		return path
	}
	state := makeDir(t, filepath.Join(base, "state"), 4242, 4242)
	closed := makeDir(t, filepath.Join(base, "closed"), 0, 0)
	fixture.Must(t, os.Chmod(closed, 0o700))
	inClosed := file(0, 0, 0o644, "closed", "key")
	for _, c := range []struct {
		what, act, path string
		want            []string
	}{
		{"a key of root's", "open", file(0, 0, 0o600, "key"), []string{"belongs to root (mode 0600)", "runs as uid 4242", "chgrp 4242 " + base + "/key && chmod 0640 " + base + "/key"}},
		{"what root left", "open", file(0, 0, 0o600, "state", ".lock"), []string{"belongs to root", "run 'prog check' once as root"}},
		{"a file of a named user", "open", file(65534, 0, 0o600, "other"), []string{"belongs to nobody", "runuser -u nobody -- prog"}},
		{"a file of a user without a name", "open", file(5555, 0, 0o600, "nameless"), []string{"belongs to uid 5555", "run the command as root"}},
		{"a file of ours", "open", file(4242, 0, 0, "state", "ours"), []string{"chmod u+rwX"}},
		{"in a closed directory", "open", inClosed, []string{closed + " belongs to root (mode 0700)", "run the command as root", "chown -R 4242:4242 " + closed, "move key to one that it can enter"}},
		{"a directory to make", "mkdir", filepath.Join(base, "new"), []string{base + " belongs to root", "install -d -o 4242 -g 4242 -m 0750 " + base + "/new"}},
		{"a file that the daemon must read", "readable", base + "/key", []string{"the daemon cannot read it", "chmod 0640"}},
	} {
		out, ok := do(t, c.act, 4242, c.path)
		if ok {
			t.Errorf("%s: was permitted", c.what)
		}
		for _, want := range append(c.want, c.path, "permission denied") {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q does not say %q", c.what, out, want)
			}
		}
	}
	_ = state
	if out, ok := do(t, "open", 4242, filepath.Join(base, "none")); ok || strings.Contains(out, "belongs") {
		t.Errorf("another error was explained as well: %q", out)
	}
}
