package labtest_test

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// What a reader, or the experiments' user, can lock, and which processes that delays.

// lockerDirs makes the test binary a process that locks everything it can in some directories,
// and holds the locks until its stdin ends.
const lockerDirs = "LABTEST_LOCKER_DIRS"

// lockAll takes a shared lock of each kind on every file and directory that it may open, an
// exclusive one where it can, and prints what it holds.
func lockAll(dirs []string) {
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() && !e.Type().IsRegular() {
				return nil
			}
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
			if err != nil {
				return nil
			}
			posix := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
			flock := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
			_, lease := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
			fmt.Println(path, posix == nil, flock == nil, lease == nil)
			return nil
		})
	}
	fmt.Println("locked")
	io.Copy(io.Discard, os.Stdin)
}

// groupReader is uid 65534, in the group of the lab's files.
var groupReader = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 0}}

// makeReachable gives other users access to the lab, as far as the modes of its files permit.
func makeReachable(t *testing.T, l *labtest.Lab) {
	t.Helper()
	for at := l.Dir; at != filepath.Clean(os.TempDir()) && at != "/"; at = filepath.Dir(at) {
		fixture.Must(t, os.Chmod(at, 0o755))
	}
}

// copyProgram copies a program to a place that other users can reach.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// startLocker makes a group reader lock everything it can in dirs, and returns what it holds.
func startLocker(t *testing.T, l *labtest.Lab, dirs ...string) string {
	t.Helper()
	program := l.Path("locker")
	copyProgram(t, os.Args[0], program)
	c := exec.Command(program)
	c.Env = append(os.Environ(), lockerDirs+"="+strings.Join(dirs, string(filepath.ListSeparator)))
	c.SysProcAttr = groupReader
	in, err := c.StdinPipe()
	fixture.Must(t, err)
	out, err := c.StdoutPipe()
	fixture.Must(t, err)
	fixture.Must(t, c.Start())
	t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	has := ""
	for lines := bufio.NewScanner(out); lines.Scan(); has += lines.Text() + "\n" {
		if lines.Text() == "locked" {
			return has
		}
	}
	t.Fatalf("the reader ended: %s", has)
	return ""
}

// TestLocksOfAGroupReaderDelayNothing has a store and an outbox that an older version left,
// with lock files that the group may read.
func TestLocksOfAGroupReaderDelayNothing(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Stop()
	older := []string{l.Path("data", ".lock"), h.Outbox(".lock")}
	for _, path := range older {
		fixture.WriteFile(t, path, "")
		fixture.Must(t, os.Chmod(path, 0o640))
	}
	makeReachable(t, l)
	has := startLocker(t, l, l.Path("data"), h.Outbox(), h.Shipped(), l.Path("pki"))
	for _, path := range append(older, l.Path("data", "index.jsonl")) {
		mustContain(t, "the reader", has, path+" true true false\n")
	}
	for line := range strings.Lines(has) {
		if strings.Contains(line, ".lock ") && !strings.Contains(line, "/.lock ") {
			t.Errorf("a reader opened a lock file: %s", line)
		}
	}
	l.Start()
	h.Episode("run-2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if second := l.Receiver("--config", l.Path("receiver.toml")); second.Code != 5 {
		t.Errorf("exit code %d of a second receiver, want 5\n%s", second.Code, second.Stderr)
	}
	l.Receiver("index", "backfill", "--config", l.Path("receiver.toml")).MustExit(t, 0)
	l.Receiver("pki", "revoke", "lab-01", "--dir", l.Path("pki")).MustExit(t, 0)
	// The reader still has its locks: a program that waited for one of them would wait here.
	l.Settled(t)
}

// TestStatusOfAGroupReaderCannotTell which process holds a folder, and says so.
func TestStatusOfAGroupReaderCannotTell(t *testing.T) {
	t.Parallel()
	fixture.RequireRoot(t)
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	makeReachable(t, l)
	for program, config := range map[string]string{"receiver": l.Path("receiver.toml"), "shipper": h.Path("lab-host.toml")} {
		copyProgram(t, l.Program(program), l.Path(program))
		for args, want := range map[string]string{"status": "unknown: only root and", "status --json": `"running_unknown":true`} {
			c := exec.Command(l.Path(program), append([]string{"--config", config}, strings.Fields(args)...)...)
			c.SysProcAttr = groupReader
			out, err := c.CombinedOutput()
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s %s says %v, want %q:\n%s", program, args, err, want, out)
			}
		}
	}
	l.Settled(t)
}

// leaseWait is less than what one open of a leased file would wait, lease-break-time, and more than
// a busy machine needs.
const leaseWait = 40 * time.Second

// TestLeasesDelayNoOtherEpisode: as many leased episodes as there are packers come before an
// ordinary one.
func TestLeasesDelayNoOtherEpisode(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	var releases []func()
	for _, name := range []string{"a-1", "a-2", "a-3"} {
		releases = append(releases, fixture.TakeLease(t, filepath.Join(h.Episode(name), "telemetry.jsonl")))
	}
	h.Episode("b-good")
	begun := time.Now()
	d := h.Daemon()
	h.WaitShipped("b-good")
	if took := time.Since(begun); took > leaseWait {
		t.Errorf("the honest episode took %v", took)
	}
	wantNoHolds(t, h)
	d.Stop(t)
	for _, release := range releases {
		release()
	}
	l.Check(t)
}

// TestLeasedEpisodeIsTriedAgain: a pass counts it and reports why, and the next one after the
// lease delivers it.
func TestLeasedEpisodeIsTriedAgain(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	release := fixture.TakeLease(t, filepath.Join(h.Episode("run-1"), "telemetry.jsonl"))
	h.Episode("run-2")
	begun := time.Now()
	p := h.Once().Must(t, 1, labtest.Tally{Scanned: 2, Shipped: 1, Transient: 1})
	if took := time.Since(begun); took > leaseWait {
		t.Errorf("the pass took %v", took)
	}
	mustContain(t, "the pass", p.Stderr, "run-1", "telemetry.jsonl", "lease", "1 episode could not be shipped now")
	wantNoHolds(t, h)
	release()
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

// TestEveryLockFileIsItsOwnersUnderAnyUmask runs each command that takes a lock, one after the
// other.
func TestEveryLockFileIsItsOwnersUnderAnyUmask(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Stop()
	receiver := []string{l.Program("receiver"), "--config", l.Path("receiver.toml")}
	for _, umask := range []string{"000", "027", "077"} {
		locks := []string{
			l.Path("data", ".receiver.lock"), l.Path("data", ".lock"), l.Path("data", ".index.jsonl.lock"),
			h.Outbox(".shipper.lock"), h.Outbox(".lock"), l.Path("pki", ".pki.lock"),
		}
		for _, path := range append(locks, l.Path("data", "index.jsonl")) {
			fixture.Must(t, os.Remove(path))
		}
		for _, argv := range [][]string{
			append(receiver, "index", "backfill"),
			append(receiver, "scrub", "--set-aside"),
			{l.Program("receiver"), "pki", "renew", "--dir", l.Path("pki")},
			{l.Program("shipper"), "--config", h.Path("lab-host.toml"), "--once"},
		} {
			c := exec.Command("sh", append([]string{"-c", "umask " + umask + `; exec "$@"`, "sh"}, argv...)...)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", argv, err, out)
			}
		}
		for _, path := range locks {
			if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("umask %s: %s: %v, %v", umask, path, info, err)
			}
		}
	}
	l.Settled(t)
}
