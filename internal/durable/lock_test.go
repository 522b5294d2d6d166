package durable_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// holderDir makes the test binary a process that takes a lock and holds it
// until its stdin ends.
const holderDir = "DURABLE_TEST_HOLDER_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(otherDir); path != "" {
		actAsOtherUser(path)
		os.Exit(0)
	}
	if path := os.Getenv(holderDir); path != "" {
		d, err := durable.Open(path)
		if err == nil {
			_, err = d.Lock("lock", "pid 4711 (another)")
		}
		fmt.Println("locked", err)
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startLockHolder starts a process that holds the lock in path.
func startLockHolder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), holderDir+"="+path)
	in, err := c.StdinPipe()
	fixture.Must(t, err)
	out, err := c.StdoutPipe()
	fixture.Must(t, err)
	fixture.Must(t, c.Start())
	t.Cleanup(func() { in.Close(); c.Process.Kill(); c.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	fixture.Must(t, err)
	if line != "locked <nil>\n" {
		t.Fatalf("the other process says %q", line)
	}
	return c
}

func TestLockNamesItsHolderAndDiesWithIt(t *testing.T) {
	d, path := openTemp(t)
	c := startLockHolder(t, path)
	_, err := d.Lock("lock", "us")
	locked, ok := errors.AsType[*durable.LockedError](err)
	if !ok || locked.Holder != "pid 4711 (another)" || locked.Path != filepath.Join(path, "lock") {
		t.Fatalf("the second taker gets %v", err)
	}
	if who, held, err := d.Holder("lock"); who != "pid 4711 (another)" || held != durable.LockHeld || err != nil {
		t.Errorf("the holder is %q, %v, %v", who, held, err)
	}
	fixture.Must(t, c.Process.Kill())
	c.Wait()
	if who, held, err := d.Holder("lock"); held != durable.LockFree || err != nil {
		t.Errorf("a dead process holds the lock: %q, %v", who, err)
	}
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	if who, _, _ := d.Holder("lock"); who != "us" {
		t.Errorf("the lock still names %q", who)
	}
	fixture.Must(t, l.Unlock())
}

func TestLockIsFreeAgain(t *testing.T) {
	d, _ := openTemp(t)
	if _, held, err := d.Holder("lock"); held != durable.LockFree || err != nil {
		t.Errorf("a lock that was never taken: %v, %v", held, err)
	}
	for range 2 {
		l, err := d.Lock("lock", "us")
		fixture.Must(t, err)
		fixture.Must(t, l.Unlock())
	}
}

// TestLookingDoesNotKeepTheTakerOut guards a daemon's start against a status command that
// examines the lock at the same time.
func TestLookingDoesNotKeepTheTakerOut(t *testing.T) {
	d, _ := openTemp(t)
	l, err := d.Lock("lock", "us")
	fixture.Must(t, err)
	fixture.Must(t, l.Unlock())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				d.Holder("lock")
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for n := range 2000 {
		l, err := d.Lock("lock", "us")
		if err != nil {
			t.Fatalf("start %d of 2000: %v", n, err)
		}
		fixture.Must(t, l.Unlock())
	}
}
