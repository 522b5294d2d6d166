// Package crashtest simulates power loss, and makes every step fail, under the real programs.
//
// [Isolate] gives a test process mounts of its own, a [Disk] is a file system that can be cut
// off like a disk without power, and an [Overlay] builds the programs from sources that were
// changed on purpose. The tests are in power_test.go and in the packages failpoint, mutation
// and soak below; `make crash` and `make soak` run them at length.
//
// Invariant: what a test mounts ends with its process, however that ends. No loop device or
// mount is left after a panic.
package crashtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv is set in the process that [Isolate] started.
const insideEnv = "CRASHTEST_INSIDE"

// scratch is where the tests' files are: a file system in memory that only they
// see.
const scratch = "/dev/shm"

// ErrNotRoot reports that this process may not mount.
var ErrNotRoot = errors.New("mounting needs root")

// Isolate runs the program once more, in a mount and a process namespace of its own, and
// returns its exit code and true. In that process it makes the scratch file system, sets TMPDIR
// to it and returns false: the caller continues. It returns [ErrNotRoot] unless it runs as
// root.
//
// The process namespace guarantees the cleanup: when its first process ends, the kernel kills
// all others in it, the mounts end with the last one, and with them the loop devices.
func Isolate() (int, bool, error) {
	if os.Getenv(insideEnv) != "" {
		return 0, false, enter()
	}
	if os.Geteuid() != 0 {
		return 0, false, ErrNotRoot
	}
	parent, child, err := socketpair()
	if err != nil {
		return 0, false, err
	}
	defer parent.Close()
	defer child.Close()
	go workshop(parent)
	runtime.LockOSThread() // Pdeathsig is of the thread
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.ExtraFiles = []*os.File{child} // workshopFD
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS, // Go makes all mounts private then
		Pdeathsig:    unix.SIGKILL,
	}
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return 0, false, fmt.Errorf("make namespaces: %w", err)
	}
	return cmd.ProcessState.ExitCode(), true, nil
}

// socketpair returns two connected sockets that preserve message boundaries.
func socketpair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "workshop")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, nil, errors.Join(err, unix.Close(fds[1]))
	}
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "workshop"), nil
}

func enter() error {
	if os.Getpid() != 1 {
		return nil // a child of the tests that runs the same program
	}
	unix.CloseOnExec(workshopFD)
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", scratch, "tmpfs", 0, "size=6g"); err != nil {
		return fmt.Errorf("mount %s: %w", scratch, err)
	}
	return os.Setenv("TMPDIR", scratch)
}

// Isolated reports whether this process may mount without leaving anything.
func Isolated() bool { return os.Getenv(insideEnv) != "" }
