package labtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// What a privileged program does in a directory where another user can exchange names.
// cis490-episodes.service runs here without its sandbox; in the real one (make system) it can
// reach less.

// An exchanger exchanges two names continuously.
type exchanger struct {
	t     *testing.T
	stop  chan struct{}
	ended chan error
}

// startExchange exchanges a and b until end. Before each tenth exchange it calls reset.
func startExchange(t *testing.T, a, b string, reset func() error) *exchanger {
	x := &exchanger{t, make(chan struct{}), make(chan error, 1)}
	go func() {
		for n := 0; ; n++ {
			select {
			case <-x.stop:
				x.ended <- nil
				return
			default:
			}
			var err error
			if n%10 == 0 && reset != nil {
				err = reset()
			}
			err = errors.Join(err, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
			if err != nil {
				x.ended <- err
				return
			}
		}
	}()
	return x
}

func (x *exchanger) stopAndWait() {
	x.t.Helper()
	close(x.stop)
	fixture.Must(x.t, <-x.ended)
}

// A unit is the part of a unit file that decides the rights of a command.
type unitFile struct {
	commands [][]string
	caps     []uintptr
}

// readUnit reads one of our unit files for a lab: programs are the lab's, and the lab's group
// is that of the service user.
func readUnit(t *testing.T, l *labtest.Lab, name string) unitFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "etc", name))
	fixture.Must(t, err)
	known := map[string]uintptr{"CAP_CHOWN": unix.CAP_CHOWN, "CAP_FOWNER": unix.CAP_FOWNER, "CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH}
	var u unitFile
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "ExecStart":
			value = strings.NewReplacer("/usr/bin/cis490-", filepath.Dir(l.Program("shipper"))+"/",
				"cis490-lab", fmt.Sprint(serviceUID), `\;`, ";").Replace(strings.TrimPrefix(value, "-"))
			u.commands = append(u.commands, strings.Fields(value))
		case "AmbientCapabilities":
			for name := range strings.FieldsSeq(value) {
				c, ok := known[name]
				if !ok {
					t.Fatalf("%s: %s is new to this test", name, name)
				}
				u.caps = append(u.caps, c)
			}
		}
	}
	if len(u.commands) == 0 || len(u.caps) == 0 {
		t.Fatalf("%s has no command, or no capability: %+v", name, u)
	}
	return u
}

// run runs the unit's commands in a directory as the service user.
func (u unitFile) run(dir string) ([]byte, error) {
	var all []byte
	var errs []error
	for _, argv := range u.commands {
		c := exec.Command(argv[0], argv[1:]...)
		c.Dir, c.Env = dir, os.Environ() // with no PWD that leads there, as under systemd
		c.SysProcAttr = &syscall.SysProcAttr{
			Credential:  &syscall.Credential{Uid: serviceUID, Gid: serviceUID},
			AmbientCaps: u.caps,
		}
		out, err := c.CombinedOutput()
		all, errs = append(all, out...), append(errs, err)
	}
	return all, errors.Join(errs...)
}

func modeAndGroup(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	fixture.Must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%04o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
}

// recorderUID is the user that records episodes, with a group of its own.
const recorderUID = 4343

// newSharedLab returns a lab with an episodes folder as the installer makes it, and the unit.
func newSharedLab(t *testing.T) (*labtest.Lab, *labtest.Host, unitFile) {
	t.Helper()
	l, h := newServiceLab(t)
	chownToService(l, h)
	fixture.Must(t, os.Chmod(h.Episodes(), 0o2770))
	return l, h, readUnit(t, l, "cis490-episodes.service")
}

func mkdirAs(t *testing.T, path string, mode os.FileMode, uid, gid int) {
	t.Helper()
	fixture.Must(t, os.Mkdir(path, 0o700))
	fixture.Must(t, os.Chown(path, uid, gid))
	fixture.Must(t, os.Chmod(path, mode))
}

// TestEpisodesUnitSharesFoldersOfAnyUser, with any mode, and nothing else.
func TestEpisodesUnitSharesFoldersOfAnyUser(t *testing.T) {
	t.Parallel()
	_, h, u := newSharedLab(t)
	mkdirAs(t, h.Episodes("closed"), 0o700, recorderUID, recorderUID)
	mkdirAs(t, h.Episodes("none"), 0, recorderUID, recorderUID)
	mkdirAs(t, h.Episodes("roots"), 0o755, 0, 0)
	mkdirAs(t, h.Episodes("setgid"), os.ModeSetgid|0o750, recorderUID, serviceUID)
	mkdirAs(t, h.Episodes("closed", "inside"), 0o700, recorderUID, recorderUID)
	fixture.Must(t, os.WriteFile(h.Episodes("file"), nil, 0o600))
	fixture.Must(t, unix.Mkfifo(h.Episodes("fifo"), 0o600))
	mkdirAs(t, h.Path("outside"), 0o700, 0, 0)
	fixture.Must(t, os.Symlink(h.Path("outside"), h.Episodes("link")))
	if out, err := u.run(h.Episodes()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for path, want := range map[string]string{
		h.Episodes("closed"):           "0770 4343:4242",
		h.Episodes("none"):             "0070 4343:4242",
		h.Episodes("roots"):            "0775 0:4242",
		h.Episodes("setgid"):           "2770 4343:4242",
		h.Episodes("closed", "inside"): "0700 4343:4343",
		h.Episodes("file"):             "0600 0:0",
		h.Episodes("fifo"):             "0600 0:0",
		h.Path("outside"):              "0700 0:0",
	} {
		if got := modeAndGroup(t, path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

// TestExchangedNamesLeadEpisodesUnitNowhere: while the unit runs, a user who can write in the
// episodes folder exchanges a folder for a link to one of root's.
func TestExchangedNamesLeadEpisodesUnitNowhere(t *testing.T) {
	t.Parallel()
	const runs = 40 // the former implementation failed in a tenth of these
	_, h, u := newSharedLab(t)
	victim, x, y := h.Path("roots"), h.Episodes("x"), h.Episodes("y")
	mkdirAs(t, victim, 0o700, 0, 0)
	mkdirAs(t, x, 0o700, recorderUID, recorderUID)
	fixture.Must(t, os.Symlink(victim, y))
	fixture.Must(t, os.Lchown(y, recorderUID, recorderUID))
	for n := range 20 { // so that each run takes a while
		mkdirAs(t, h.Episodes(fmt.Sprint("other-", n)), 0o700, recorderUID, recorderUID)
	}
	own, err := os.Open(x)
	fixture.Must(t, err)
	defer own.Close()
	attack := startExchange(t, x, y, func() error {
		return errors.Join(own.Chown(recorderUID, recorderUID), own.Chmod(0o700))
	})
	for n := range runs {
		out, err := u.run(h.Episodes())
		if got := modeAndGroup(t, victim); got != "0700 0:0" {
			t.Errorf("run %d: root's directory became %s", n+1, got)
			break
		}
		if err != nil {
			t.Errorf("run %d: %v\n%s", n+1, err, out)
			break
		}
	}
	attack.stopAndWait()
	// The attack did not prevent the others from being shared.
	for n := range 20 {
		if got := modeAndGroup(t, h.Episodes(fmt.Sprint("other-", n))); got != "0770 4343:4242" {
			t.Errorf("other-%d is %s", n, got)
		}
	}
}

// TestEpisodesUnitSharesItsOwnFolderOnly: the service user, who owns the folder above,
// leads the unit to another one.
func TestEpisodesUnitSharesItsOwnFolderOnly(t *testing.T) {
	t.Parallel()
	_, h, u := newSharedLab(t)
	elsewhere := h.Path("roots")
	mkdirAs(t, elsewhere, 0o755, 0, 0)
	mkdirAs(t, filepath.Join(elsewhere, "closed"), 0o700, 0, 0)
	fixture.Must(t, os.Rename(h.Episodes(), h.Path("data", "away")))
	fixture.Must(t, os.Symlink(elsewhere, h.Episodes()))
	fixture.Must(t, os.Lchown(h.Episodes(), serviceUID, serviceUID))
	if out, err := u.run(h.Episodes()); err == nil || !strings.Contains(string(out), "belongs to uid 0") {
		t.Errorf("got %v, %s, want %q in it", err, out, "belongs to uid 0")
	}
	u.commands[0][len(u.commands[0])-1] = h.Episodes() // named by its whole path
	if out, err := u.run("/"); err == nil || !strings.Contains(string(out), "is a link of uid 4242 to a directory of root") {
		t.Errorf("got %v, %s, want %q in it", err, out, "is a link of uid 4242 to a directory of root")
	}
	if got := modeAndGroup(t, filepath.Join(elsewhere, "closed")); got != "0700 0:0" {
		t.Errorf("root's directory became %s", got)
	}
	// An operator's own link, to a folder of root, leads on.
	fixture.Must(t, os.Lchown(h.Episodes(), 0, 0))
	if out, err := u.run("/"); err != nil {
		t.Errorf("%v, %s", err, out)
	}
	if got := modeAndGroup(t, filepath.Join(elsewhere, "closed")); got != "0770 0:4242" {
		t.Errorf("the folder became %s", got)
	}
}

// TestAFolderThatCannotBeSharedKeepsNoOther: without the unit's rights, only the user's own
// folders can be shared.
func TestAFolderThatCannotBeSharedKeepsNoOther(t *testing.T) {
	t.Parallel()
	_, h, u := newSharedLab(t)
	u.caps = nil
	for n := range 30 {
		uid := serviceUID
		if n%2 == 0 {
			uid = recorderUID
		}
		mkdirAs(t, h.Episodes(fmt.Sprintf("run-%02d\x1b", n)), 0o755, uid, uid)
	}
	out, err := u.run(h.Episodes())
	said := string(out)
	if err == nil || strings.Count(said, "\n") != 11 || !strings.Contains(said, `\x1b": operation not permitted`) || !strings.Contains(said, "5 more could not be shared") {
		t.Errorf("got %v, %s", err, out)
	}
	for n := 1; n < 30; n += 2 {
		if got := modeAndGroup(t, h.Episodes(fmt.Sprintf("run-%02d\x1b", n))); got != "0775 4242:4242" {
			t.Errorf("run-%02d is %s", n, got)
		}
	}
}

// TestShareEpisodesOfRoot gives the folders to the group of the episodes folder.
func TestShareEpisodesOfRoot(t *testing.T) {
	t.Parallel()
	_, h, _ := newSharedLab(t)
	mkdirAs(t, h.Episodes("closed"), 0o700, recorderUID, recorderUID)
	h.Run("share-episodes").MustExit(t, 0)
	if got := modeAndGroup(t, h.Episodes("closed")); got != "0770 4343:4242" {
		t.Errorf("the folder is %s", got)
	}
	mkdirAs(t, h.Path("private"), 0o755, 0, 0)
	h.Run("share-episodes", h.Path("private")).MustExit(t, 1)
}
