package systemd_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/systemd"
)

// manager is the socket on which a service manager listens.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	fixture.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{t, conn}
}

// heard returns what has arrived by now, without waiting.
func (m manager) heard() []string {
	m.t.Helper()
	raw, err := m.conn.SyscallConn()
	fixture.Must(m.t, err)
	var all []string
	buf := make([]byte, 4096)
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT)
			if err != nil {
				return true
			}
			all = append(all, string(buf[:n]))
		}
	})
	fixture.Must(m.t, err)
	return all
}

func TestManagerHearsEachState(t *testing.T) {
	m := newManager(t)
	for _, c := range []struct {
		say  func() error
		want string // a pattern
	}{
		{func() error { return systemd.NotifyReady("serving :8443") }, `READY=1\nSTATUS=serving :8443`},
		{func() error { return systemd.NotifyStatus("2 held") }, `STATUS=2 held`},
		{func() error { return systemd.NotifyStatus("x\nWATCHDOG=1\u202e\xff") }, `STATUS=x\\nWATCHDOG=1\\u202e\\xff`},
		{systemd.NotifyReloading, `RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n`},
		{systemd.NotifyStopping, `STOPPING=1`},
		{func() error { return systemd.ExtendTimeout(10 * time.Minute) }, `EXTEND_TIMEOUT_USEC=600000000`},
	} {
		fixture.Must(t, c.say())
		got := m.heard()
		if len(got) != 1 || !regexp.MustCompile(`^`+c.want+`$`).MatchString(got[0]) {
			t.Errorf("heard %q, want %s", got, c.want)
		}
	}
}

func TestWithoutManagerNothingHappens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	t.Setenv("LISTEN_FDS", "")
	for _, say := range []func() error{
		func() error { return systemd.NotifyReady("") }, func() error { return systemd.NotifyStatus("") }, systemd.NotifyReloading, systemd.NotifyStopping,
		func() error { return systemd.RunWatchdog(t.Context(), nil) },
	} {
		if err := say(); err != nil {
			t.Error(err)
		}
	}
	if got, err := systemd.InheritedListeners(); err != nil || len(got) != 0 {
		t.Errorf("Listeners = %v, %v", got, err)
	}
}

func TestDeafManagerIsAnError(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := systemd.NotifyReady(""); err == nil || !strings.HasPrefix(err.Error(), "notify the service manager: ") {
		t.Errorf("got %v, want prefix %q", err, "notify the service manager: ")
	}
}

func TestWatchdogIsFedByProgress(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var alive, slow atomic.Bool
		var asked atomic.Int32
		ended := make(chan error)
		go func() {
			ended <- systemd.RunWatchdog(ctx, func(ctx context.Context) bool {
				asked.Add(1)
				if slow.Load() {
					<-ctx.Done()
				}
				return alive.Load()
			})
		}()
		for _, c := range []struct {
			story       string
			alive, slow bool
			pass        time.Duration
			fed, asked  int
		}{
			{"before a third", true, false, 9 * time.Second, 0, 0},
			{"progress", true, false, 21 * time.Second, 3, 3},
			{"no progress", false, false, 30 * time.Second, 0, 3},
			{"an answer that comes too late", true, true, 9 * time.Second, 0, 0},
			{"the same, after its end", true, true, 12 * time.Second, 0, 2},
			{"progress again", true, false, 39 * time.Second, 4, 4},
		} {
			alive.Store(c.alive)
			slow.Store(c.slow)
			asked.Store(0)
			time.Sleep(c.pass)
			synctest.Wait()
			fed := m.heard()
			for _, s := range fed {
				if s != "WATCHDOG=1" {
					t.Errorf("%s: heard %q", c.story, s)
				}
			}
			if len(fed) != c.fed || int(asked.Load()) != c.asked {
				t.Errorf("%s: fed %d times, asked %d times; want %d and %d", c.story, len(fed), asked.Load(), c.fed, c.asked)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchdogOfAnotherProcessIsLeftAlone(t *testing.T) {
	newManager(t)
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()+1))
	if err := systemd.RunWatchdog(t.Context(), nil); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := systemd.RunWatchdog(t.Context(), nil); err == nil {
		t.Error("an interval that is no number was accepted")
	}
}

// TestListenersAreThoseOfTheUnit runs itself again, since the sockets must be the process's
// descriptors from 3 on, and carry its process id.
func TestListenersAreThoseOfTheUnit(t *testing.T) {
	if os.Getenv("TEST_ACTIVATED") != "" {
		t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		listeners, err := systemd.InheritedListeners()
		for _, l := range listeners {
			os.Stdout.WriteString("listens on " + l.Addr().String() + "\n")
		}
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
		}
		return
	}
	stream, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer stream.Close()
	packet, err := net.ListenPacket("udp", "127.0.0.1:0")
	fixture.Must(t, err)
	defer packet.Close()
	tcp, err := stream.(*net.TCPListener).File()
	fixture.Must(t, err)
	defer tcp.Close()
	udp, err := packet.(*net.UDPConn).File()
	fixture.Must(t, err)
	defer udp.Close()
	for _, c := range []struct {
		files []*os.File
		want  string
	}{
		{[]*os.File{tcp}, "listens on " + stream.Addr().String() + "\n"},
		{[]*os.File{tcp, udp}, "socket 2 of the service manager takes no connections: use ListenStream= in its unit\n"},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestListenersAreThoseOfTheUnit$")
		cmd.Env = append(os.Environ(), "TEST_ACTIVATED=1", "LISTEN_FDS="+strconv.Itoa(len(c.files)))
		cmd.ExtraFiles = c.files
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("got %s, %v; want %s", out, err, c.want)
		}
	}
}
