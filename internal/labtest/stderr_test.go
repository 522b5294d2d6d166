package labtest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/fixture"
)

// unreadDaemon starts a daemon whose log is a small pipe, and reads only up to a line.
func unreadDaemon(t *testing.T, line string, argv ...string) (*exec.Cmd, *os.File, string) {
	t.Helper()
	r, w, err := os.Pipe()
	fixture.Must(t, err)
	defer w.Close()
	t.Cleanup(func() { r.Close() })
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	fixture.Must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = w
	fixture.Must(t, cmd.Start())
	t.Cleanup(func() { cancel(); cmd.Wait() })
	lines := bufio.NewReader(r)
	for {
		got, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("it ended before %q: %v", line, err)
		}
		if strings.Contains(got, line) {
			return cmd, r, got
		}
	}
}

// TestDaemonsRunWithoutAReaderOfTheirLog: a full pipe, and then one without a reader.
func TestDaemonsRunWithoutAReaderOfTheirLog(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Stop()
	cmd, unread, started := unreadDaemon(t, "receiver started", l.Program("receiver"), "-v", "--config", l.Path("receiver.toml"))
	l.Proxy.Forward(regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(started)[1])
	client := h.Client(t)
	client.Timeout = 20 * time.Second
	store := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			if status, told := putArchive(t, l, client, fmt.Sprintf("/v1/episodes/lab-01/run-%d", n), []byte("x")); status != 201 {
				t.Fatalf("run-%d: %d %s", n, status, told)
			}
		}
	}
	store(0, 100)
	fixture.Must(t, unread.Close())
	store(100, 120)
	if got := len(l.Rows(t)); got != 120 {
		t.Errorf("there are %d rows, want 120", got)
	}
	begun := time.Now()
	fixture.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil || time.Since(begun) > 5*time.Second {
		t.Errorf("it ended %v after SIGTERM with %v", time.Since(begun), err)
	}
}

// TestShipperContinuesWhenItsLogIsNotRead is the same for the other daemon.
func TestShipperContinuesWhenItsLogIsNotRead(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	cmd, unread, _ := unreadDaemon(t, "shipper started", l.Program("shipper"), "-v", "--config", h.Path("lab-host.toml"))
	var names []string
	for n := range 50 {
		names = append(names, fmt.Sprint("run-", n))
		h.Episode(names[n])
	}
	h.WaitShipped(names...)
	fixture.Must(t, unread.Close())
	h.Episode("last")
	h.WaitShipped("last")
	h.WaitEmpty()
	begun := time.Now()
	fixture.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil || time.Since(begun) > 5*time.Second {
		t.Errorf("it ended %v after SIGTERM with %v", time.Since(begun), err)
	}
	l.Settled(t)
}

// TestLastWordsAreWaitedForInBoundedTime: when a program fails while its pipe is full.
func TestLastWordsAreWaitedForInBoundedTime(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t)
	r, w, err := os.Pipe()
	fixture.Must(t, err)
	defer r.Close()
	defer w.Close()
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096)
	fixture.Must(t, err)
	_, err = w.Write(make([]byte, 4096))
	fixture.Must(t, err)
	cmd := exec.Command(l.Program("receiver"), "--config", l.Path("none.toml"))
	cmd.Stderr = w
	fixture.Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		if code := cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("it ended with %d, want 2", code)
		}
	case <-time.After(20 * time.Second):
		cmd.Process.Kill()
		t.Error("it has not ended")
	}
	io.CopyN(io.Discard, r, 4096)
}
