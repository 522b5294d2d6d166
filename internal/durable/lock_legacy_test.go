package durable_test

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
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// What other users can do to locks and files, and what older programs do.

// otherDir makes the test binary a process of another user that looks at the lock in
// a directory and tries to take it.
const otherDir = "DURABLE_TEST_OTHER_DIR"

const otherUID = 65534

func actAsOtherUser(path string) {
	d, err := durable.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, state, err := d.Holder("lock", "former")
	fmt.Println(state == durable.LockUnknown, err)
	_, err = d.Lock("lock", "other")
	fmt.Println(errors.Is(err, fs.ErrPermission), err)
}

// runAsOther runs the test binary as another user and returns what it prints.
func runAsOther(t *testing.T, path string) string {
	t.Helper()
	fixture.RequireRoot(t)
	for at := path; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		fixture.Must(t, os.Chmod(at, 0o755)) // a test's directory is closed to others
	}
	program := filepath.Join(path, "program")
	fixture.Must(t, runCommand("cp", os.Args[0], program)) // go test builds in a directory that others cannot enter
	defer os.Remove(program)
	c := exec.Command(program)
	c.Env = append(os.Environ(), otherDir+"="+path)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUID, Gid: otherUID}}
	out, err := c.CombinedOutput()
	fixture.Must(t, err)
	return string(out)
}

// lockFile takes a lock of a kind on the file at path, as another process would.
func lockFile(t *testing.T, path string, kind int16) (release func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	fixture.Must(t, err)
	fixture.Must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind}))
	t.Cleanup(func() { f.Close() })
	return func() { f.Close() }
}

func isLocked(err error) bool {
	_, locked := errors.AsType[*durable.LockedError](err)
	return locked
}

// wantNoWait fails the test if do waits.
func wantNoWait(t *testing.T, what string, do func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("%s waits", what)
		return nil
	}
}

func TestLockFilesAreTheirOwnersUnderAnyUmask(t *testing.T) {
	for _, umask := range []int{0, 0o027, 0o077, 0o777} {
		d, path := openTemp(t)
		before := syscall.Umask(umask)
		l, err := d.Lock("lock", "us", "former")
		var log *durable.Log
		if err == nil {
			log, err = d.OpenLog("log", 0o640)
		}
		syscall.Umask(before)
		fixture.Must(t, err)
		for _, name := range []string{"lock", "former", durable.LogLockName("log")} {
			info, err := os.Stat(filepath.Join(path, name))
			fixture.Must(t, err)
			if info.Mode() != 0o600 {
				t.Errorf("umask %03o: %s has mode %v", umask, name, info.Mode())
			}
		}
		fixture.Must(t, errors.Join(l.Unlock(), log.Close()))
	}
}

func TestLockFileThatOthersMayOpenIsClosedToThem(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "lock"), "")
	fixture.Must(t, os.Chmod(filepath.Join(path, "lock"), 0o666))
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	defer l.Unlock()
	if info, err := os.Stat(filepath.Join(path, "lock")); err != nil || info.Mode() != 0o600 {
		t.Errorf("it has mode %v, %v", info.Mode(), err)
	}
}

func TestLockFileOfAnotherUserIsRefused(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "lock"), "")
	fixture.RequireMount(t, os.Chown(filepath.Join(path, "lock"), otherUID, otherUID))
	if _, err := d.Lock("lock", "us"); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("got %v, want the owner's name", err)
	}
	fixture.Must(t, os.Chown(path, otherUID, otherUID)) // the directory's owner may have it
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	fixture.Must(t, l.Unlock())
}

func TestWhoMayNotOpenALockCannotTell(t *testing.T) {
	d, path := openTemp(t)
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	defer l.Unlock()
	said := strings.Split(runAsOther(t, path), "\n")
	if said[0] != "true <nil>" {
		t.Errorf("another user is told %q of the holder", said[0])
	}
	if !strings.Contains(said[1], "permission denied") { // package serviceuser explains it
		t.Errorf("another user who takes the lock is told %q", said[1])
	}
}

// TestLockThatRootMadeIsTheDirectorysOwners: otherwise that user could never take it.
func TestLockThatRootMadeIsTheDirectorysOwners(t *testing.T) {
	d, path := openTemp(t)
	fixture.RequireMount(t, os.Chown(path, otherUID, otherUID))
	l, err := d.Lock("lock", "root", "former")
	fixture.Must(t, err)
	fixture.Must(t, l.Unlock())
	wantOwner(t, filepath.Join(path, "lock"), fmt.Sprintf("0600 %d:%d", otherUID, otherUID))
	wantOwner(t, filepath.Join(path, "former"), fmt.Sprintf("0600 %d:%d", otherUID, otherUID))
}

// TestWhatIsNoLockFileIsNeverWaitedFor: others replace a lock by something that blocks a
// process which opens it.
func TestWhatIsNoLockFileIsNeverWaitedFor(t *testing.T) {
	for what, put := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("target", path) },
		"socket":    func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			d, path := openTemp(t)
			fixture.Must(t, put(filepath.Join(path, "bad")))
			fixture.Must(t, put(filepath.Join(path, durable.LogLockName("log"))))
			for call, do := range map[string]func() error{
				"Lock":    func() error { _, err := d.Lock("bad", "us"); return err },
				"Holder":  func() error { _, _, err := d.Holder("bad"); return err },
				"OpenLog": func() error { _, err := d.OpenLog("log", 0o600); return err },
			} {
				if err := wantNoWait(t, call, do); err == nil {
					t.Errorf("%s took a %s for a lock", call, what)
				}
			}
			err := wantNoWait(t, "Lock", func() error {
				l, err := d.Lock("lock", "us", "bad")
				if err == nil {
					err = l.Unlock()
				}
				return err
			})
			_, state, herr := d.Holder("lock", "bad")
			if err != nil || herr != nil || state != durable.LockFree {
				t.Errorf("at an old name it keeps us out: %v, %v, %v", err, herr, state)
			}
		})
	}
}

// TestReadLockOnAnOldNameBlocksNoProcess: a reader does what a group reader of an older
// version's lock file can do.
func TestReadLockOnAnOldNameBlocksNoProcess(t *testing.T) {
	d, path := openTemp(t)
	writeFile(t, filepath.Join(path, "former"), "pid 4711 (older)")
	release := lockFile(t, filepath.Join(path, "former"), unix.F_RDLCK)
	if who, state, err := d.Holder("lock", "former"); state != durable.LockFree || err != nil {
		t.Errorf("the holder is %q, %v, %v", who, state, err)
	}
	l, err := d.Lock("lock", "us", "former")
	fixture.Must(t, err)
	if who, state, err := d.Holder("lock", "former"); who != "us" || state != durable.LockHeld || err != nil {
		t.Errorf("the holder is %q, %v, %v", who, state, err)
	}
	fixture.Must(t, l.Unlock())
	release()
	l, err = d.Lock("lock", "us", "former")
	fixture.Must(t, err)
	defer l.Unlock()
	if _, err := d.Lock("former", "an older program"); err == nil {
		t.Error("an older program does not meet our lock")
	}
}

func TestOlderProgramHasTheLock(t *testing.T) {
	d, path := openTemp(t)
	older, err := d.Lock("former", "pid 4711 (older)")
	fixture.Must(t, err)
	_, err = d.Lock("lock", "us", "former")
	locked, ok := errors.AsType[*durable.LockedError](err)
	if !ok || locked.Holder != "pid 4711 (older)" || locked.Path != filepath.Join(path, "former") {
		t.Fatalf("got %v", err)
	}
	if who, state, err := d.Holder("lock", "former"); who != "pid 4711 (older)" || state != durable.LockHeld || err != nil {
		t.Errorf("the holder is %q, %v, %v", who, state, err)
	}
	if _, state, err := d.Holder("lock"); state != durable.LockFree || err != nil {
		t.Errorf("the attempt left the new lock taken: %v, %v", state, err)
	}
	fixture.Must(t, older.Unlock())
	l, err := d.Lock("lock", "us", "former")
	fixture.Must(t, err)
	fixture.Must(t, l.Unlock())
}

// TestLogNeverWaitsForALockOnItself: any reader can lock the data.
func TestLogNeverWaitsForALockOnItself(t *testing.T) {
	for _, kind := range []int16{unix.F_RDLCK, unix.F_WRLCK} {
		d, path := openTemp(t)
		writeFile(t, filepath.Join(path, "log"), "one\ntorn")
		lockFile(t, filepath.Join(path, "log"), kind)
		var cut error
		fixture.Must(t, wantNoWait(t, "a writer", func() error {
			l, err := d.OpenLog("log", 0o600)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.Lock(); err != nil {
				return err
			}
			cut = l.Truncate(4)
			return errors.Join(l.Append([]byte("two\n")), l.Unlock())
		}))
		want := "one\ntwo\n"
		if kind == unix.F_WRLCK { // an older program appends, and the tail may be its row
			want = "one\ntorntwo\n"
		}
		if got := fixture.ReadFile(t, filepath.Join(path, "log")); got != want || isLocked(cut) != (kind == unix.F_WRLCK) {
			t.Errorf("beside a lock of kind %d it holds %q, and Cut says %v", kind, got, cut)
		}
	}
}

// TestOlderAppenderWaitsForUs guards the rows of a receiver against a backfill of an older
// version.
func TestOlderAppenderWaitsForUs(t *testing.T) {
	d, path := openTemp(t)
	l, err := d.OpenLog("log", 0o600)
	fixture.Must(t, err)
	defer l.Close()
	f, err := os.OpenFile(filepath.Join(path, "log"), os.O_RDWR, 0)
	fixture.Must(t, err)
	defer f.Close()
	try := func() error {
		return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	fixture.Must(t, l.Lock())
	if err := try(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("an older program gets the lock beside us: %v", err)
	}
	fixture.Must(t, l.Unlock())
	fixture.Must(t, try())
}

// TestOpeningNeverWaitsForALease opens every kind of file on which another process may hold a
// lease. The kernel would wait for lease-break-time, 45 s.
func TestOpeningNeverWaitsForALease(t *testing.T) {
	d, path := openTemp(t)
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	fixture.Must(t, l.Unlock())
	for name, call := range map[string]func(n string) error{
		"file":     func(n string) error { _, err := d.Open(n); return err },
		"uncached": func(n string) error { _, err := d.OpenUncached(n); return err },
		"part":     func(n string) error { _, err := d.ContinueFile(n, 0); return err },
		"log":      func(n string) error { _, err := d.OpenLog(n, 0o600); return err },
		"lock":     func(n string) error { _, err := d.Lock(n, "us"); return err },
		"holder":   func(n string) error { _, _, err := d.Holder(n); return err },
	} {
		writeFile(t, filepath.Join(path, name), "")
		fixture.TakeLease(t, filepath.Join(path, name))
		if err := wantNoWait(t, name, func() error { return call(name) }); !errors.Is(err, durable.ErrLeased) {
			t.Errorf("%s: got %v, want ErrLeased", name, err)
		}
	}
}
