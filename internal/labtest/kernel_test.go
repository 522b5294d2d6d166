package labtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"cis490/internal/labtest"
)

// Kernels and containers that refuse a system call.

// refusedCalls makes the test binary a process that runs its arguments under a filter: the
// number of a call and the errno that it returns.
const refusedCalls = "LABTEST_REFUSED_CALLS"

// refuseAndExec does not return.
func refuseAndExec(call string) {
	var nr, errno uint32
	_, err := fmt.Sscan(call, &nr, &errno)
	if err == nil {
		err = refuseCall(nr, errno)
	}
	if err == nil {
		os.Unsetenv(refusedCalls)
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(99)
}

// refuseCall makes a call fail for this thread, and for what it executes.
func refuseCall(nr, errno uint32) error {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return errors.Join(
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0))
}

// runUnderFilter runs a program of the lab under a filter to its end, and returns its exit code
// and output.
func runUnderFilter(t *testing.T, l *labtest.Lab, nr int, errno syscall.Errno, name string, args ...string) (int, string) {
	t.Helper()
	c := filterCommand(l, nr, errno, name, args...)
	timeout := time.AfterFunc(20*time.Second, func() { c.Process.Kill() })
	defer timeout.Stop()
	out, err := c.CombinedOutput()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), string(out)
}

func filterCommand(l *labtest.Lab, nr int, errno syscall.Errno, name string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], append([]string{l.Program(name)}, args...)...)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", refusedCalls, nr, uint32(errno)))
	return c
}

func TestRefusedSystemCallEndsTheStart(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Stop()
	h.Episode("run-1")
	for name, nr := range map[string]int{
		"openat2": unix.SYS_OPENAT2, "statx": unix.SYS_STATX, "renameat2": unix.SYS_RENAMEAT2,
		"linkat": unix.SYS_LINKAT, "fsync": unix.SYS_FSYNC, "fdatasync": unix.SYS_FDATASYNC,
		"fsetxattr": unix.SYS_FSETXATTR, "fgetxattr": unix.SYS_FGETXATTR,
	} {
		for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
			t.Run(name+" "+errno.Error(), func(t *testing.T) {
				t.Parallel()
				for _, args := range [][]string{
					{"shipper"},
					{"shipper", "--once"},
					{"shipper", "check"},
					{"shipper", "check", "--disk"},
					{"receiver"},
					{"receiver", "check"},
					{"receiver", "check", "--disk"},
				} {
					config := h.Path("lab-host.toml")
					if args[0] == "receiver" {
						config = l.Path("receiver.toml")
						if name == "openat2" {
							continue // it needs none
						}
					}
					code, said := runUnderFilter(t, l, nr, errno, args[0], append(args[1:], "--config", config)...)
					want := fmt.Sprintf("%s: the system call %s is refused (%v), which is needed to ", args[0], name, errno)
					if code != 1 {
						t.Errorf("%q: exit code %d, want 1", args, code)
					}
					mustContain(t, fmt.Sprintf("%q", args), said, want)
				}
			})
		}
	}
	t.Cleanup(func() { wantNoHolds(t, h) })
}

// TestOptionalSystemCallsAreMadeUpFor: without them the programs are slower, and that is all.
func TestOptionalSystemCallsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	for name, nr := range map[string]int{
		"inotify_init1": unix.SYS_INOTIFY_INIT1, "sync_file_range": unix.SYS_SYNC_FILE_RANGE, "fadvise64": unix.SYS_FADVISE64,
		"flock": unix.SYS_FLOCK,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, h := newLab(t)
			h.Episode("run-1")
			if code, said := runUnderFilter(t, l, nr, unix.EPERM, "shipper", "--once", "--config", h.Path("lab-host.toml")); code != 0 {
				t.Errorf("exit code %d\n%s", code, said)
			}
			l.Settled(t)
		})
	}
}
