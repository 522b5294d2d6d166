//go:build linux

// Command probe stands in for a daemon inside the daemon's own unit and tries
// what a daemon that was taken over would try. It prints one line for each act:
// its name, and "done" or the error's name. It judges nothing: box.sh does.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// acts are tried in order. Where a folder is named that root would have to
// write to, box.sh has made it writable for all, so that the box alone is asked.
var acts = []struct {
	name string
	do   func() error
}{
	{"read-root", read("/root/secret")},
	{"read-home", read("/home/someone/secret")},
	{"read-ca-key", read("/etc/cis490/pki/ca.key")},
	{"read-process-1", read("/proc/1/cmdline")},
	{"read-meminfo", read("/proc/meminfo")},
	{"read-kmsg", read("/dev/kmsg")},
	{"write-opt", write("/opt/anyone")},
	{"write-etc", write("/etc/anyone")},
	{"write-var", write("/var/lib/anyone")},
	{"write-data", write(os.Getenv("PROBE_DATA"))},
	{"write-identity", write("/var/lib/cis490-identity")},
	{"write-tmp", write("/tmp")},
	{"socket-inet", socket(unix.AF_INET, unix.SOCK_STREAM)},
	{"socket-inet6", socket(unix.AF_INET6, unix.SOCK_STREAM)},
	{"socket-unix", socket(unix.AF_UNIX, unix.SOCK_DGRAM)},
	{"socket-packet", socket(unix.AF_PACKET, unix.SOCK_RAW)},
	{"socket-netlink", socket(unix.AF_NETLINK, unix.SOCK_RAW)},
	{"socket-vsock", socket(unix.AF_VSOCK, unix.SOCK_STREAM)},
	{"socket-alg", socket(unix.AF_ALG, unix.SOCK_SEQPACKET)},
	{"execute-shell", func() error { return exec.Command("/bin/sh", "-c", "true").Run() }},
	{"execute-from-data", executeFrom(os.Getenv("PROBE_DATA"))},
	{"execute-from-identity", executeFrom("/var/lib/cis490-identity")},
	{"execute-from-tmp", executeFrom("/tmp")},
	{"execute-from-shm", executeFrom("/dev/shm")},
	{"map-write-and-execute", mapExecutable},
	{"make-setuid", makeSetuid},
	{"make-namespace", makeNamespace},
	{"set-personality", func() error { return call(unix.SYS_PERSONALITY, 0x0400000) }}, // READ_IMPLIES_EXEC
	{"set-priority", func() error { return call(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, 19) }},
	{"set-clock", func() error { return call(unix.SYS_CLOCK_SETTIME, unix.CLOCK_REALTIME, 0) }},
	{"raise-core-limit", func() error { return syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{Cur: 1, Max: 1}) }},
}

func main() {
	if os.Getenv("PROBE_DATA") == "" { // a child of ours: that it runs is all
		return
	}
	for _, act := range acts {
		fmt.Printf("%s %s\n", act.name, outcome(act.do()))
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println("status", outcome(err))
	}
	os.Stdout.Write(status)
}

// outcome is the errno's name, which tells a closed box from mere file modes.
func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "done"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

func read(name string) func() error {
	return func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		return f.Close()
	}
}

func write(dir string) func() error {
	return func() error {
		return os.WriteFile(filepath.Join(dir, "probe.txt"), []byte("probe\n"), 0o600)
	}
}

func socket(family, kind int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

// executeFrom does what a daemon that was made to write a program would do next.
func executeFrom(dir string) func() error {
	return func() error {
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		name := filepath.Join(dir, "program")
		defer os.Remove(name)
		if err := os.WriteFile(name, self, 0o700); err != nil {
			return err
		}
		return (&exec.Cmd{Path: name, Env: []string{}}).Run()
	}
}

func mapExecutable() error {
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	return unix.Munmap(b)
}

func makeSetuid() error {
	name := filepath.Join(os.Getenv("PROBE_DATA"), "setuid")
	defer os.Remove(name)
	if err := os.WriteFile(name, nil, 0o700); err != nil {
		return err
	}
	return unix.Chmod(name, 0o4700)
}

// makeNamespace asks for it in a process of its own: the runtime has threads, and
// a user namespace is for processes without.
func makeNamespace() error {
	return (&exec.Cmd{
		Path:        "/proc/self/exe",
		Env:         []string{},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER},
	}).Run()
}

func call(number uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, errno := syscall.Syscall(number, a[0], a[1], a[2]); errno != 0 {
		return errno
	}
	return nil
}
