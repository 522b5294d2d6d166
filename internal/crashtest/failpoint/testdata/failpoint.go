// Stands in package durable when package failpoint's tests build the programs:
// each call that changes the disk or opens a file goes through step. What fails
// is said by the file "fail" beside the configuration, as in "7 eio"; without
// one, nothing does.

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

type failPlan struct {
	dir  string
	at   int // which step, counted from 1; 0 means none, and that all are noted
	kind string
}

var failing = struct {
	sync.Mutex
	steps int
	plan  func() failPlan
}{plan: sync.OnceValue(readFailPlan)}

func readFailPlan() failPlan {
	var p failPlan
	for i, arg := range os.Args[:len(os.Args)-1] {
		if arg == "--config" {
			p.dir = filepath.Dir(os.Args[i+1])
		}
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "fail")); err == nil && p.dir != "" {
		fmt.Sscan(string(b), &p.at, &p.kind)
	}
	return p
}

// step does one step, or what the plan has for it.
func step(op, path string, do func() error) error {
	p := failing.plan()
	if p.kind == "" {
		return do()
	}
	failing.Lock()
	failing.steps++
	mine := failing.steps == p.at
	if mine || p.at == 0 {
		p.noteStep(op, path)
	}
	failing.Unlock()
	if !mine {
		return do()
	}
	switch p.kind {
	case "kill":
		die()
	case "kill-after":
		do()
		die()
	case "eio-after":
		do()
		return unix.EIO
	}
	return map[string]error{"eio": unix.EIO, "enospc": unix.ENOSPC, "emfile": unix.EMFILE}[p.kind]
}

// noteStep records a step: all of them in one file, or the one that fails, as a whole.
func (p failPlan) noteStep(op, path string) {
	to := filepath.Join(p.dir, "failed")
	name := to
	if p.at != 0 {
		name += ".new"
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	fmt.Fprintf(f, "%s %s\n", op, stepName(path))
	f.Close()
	if p.at != 0 {
		os.Rename(name, to)
	}
}

// stepName is the same each time: the name that [Dir.CheckMove] asks for is not.
func stepName(path string) string {
	name := filepath.Base(path)
	if IsProbe(name) && !MatchNames(probeFrom, probeTo, linkFrom, linkTo)(name) {
		return probePrefix + "none"
	}
	return name
}

func die() {
	unix.Kill(unix.Getpid(), unix.SIGKILL)
	select {}
}

func fpWrite(f *os.File, b []byte) (n int, err error) {
	if p := failing.plan(); p.kind == "short" {
		whole := false
		err = step("write", f.Name(), func() error { whole = true; n, err = f.Write(b); return err })
		if !whole {
			n, _ = f.Write(b[:len(b)/2])
			err = &fs.PathError{Op: "write", Path: f.Name(), Err: unix.ENOSPC}
		}
		return n, err
	}
	err = step("write", f.Name(), func() error { n, err = f.Write(b); return err })
	return n, err
}

func fpWriteAt(f *os.File, b []byte, off int64) (n int, err error) {
	err = step("write", f.Name(), func() error { n, err = f.WriteAt(b, off); return err })
	return n, err
}

func fpSync(f *os.File) error { return step("fsync", f.Name(), f.Sync) }

func fpClose(f *os.File) error {
	err := step("close", f.Name(), f.Close)
	f.Close()
	return err
}

func fpTruncate(f *os.File, size int64) error {
	return step("truncate", f.Name(), func() error { return f.Truncate(size) })
}

func fpFdatasync(fd int) error {
	return step("fdatasync", nameOf(fd), func() error { return unix.Fdatasync(fd) })
}

func fpFsetxattr(fd int, name string, value []byte, flags int) error {
	return step("setxattr", nameOf(fd), func() error { return unix.Fsetxattr(fd, name, value, flags) })
}

func fpMkdirat(fd int, name string, mode uint32) error {
	return step("mkdir", name, func() error { return unix.Mkdirat(fd, name, mode) })
}

func fpLinkat(from int, old string, to int, name string, flags int) error {
	return step("link", name, func() error { return unix.Linkat(from, old, to, name, flags) })
}

func fpRenameat(from int, old string, to int, name string) error {
	return step("rename", name, func() error { return unix.Renameat(from, old, to, name) })
}

func fpRenameat2(from int, old string, to int, name string, flags uint) error {
	return step("rename", name, func() error { return unix.Renameat2(from, old, to, name, flags) })
}

func fpUnlinkat(fd int, name string, flags int) error {
	return step("unlink", name, func() error { return unix.Unlinkat(fd, name, flags) })
}

func fpOpenat(at int, name string, flags int, perm uint32) (fd int, err error) {
	fd = -1
	err = step("open", name, func() error { fd, err = unix.Openat(at, name, flags, perm); return err })
	if err != nil && fd >= 0 {
		unix.Close(fd)
	}
	return fd, err
}

func fpOpenFile(path string, flags int, perm fs.FileMode) (f *os.File, err error) {
	err = step("opendir", path, func() error { f, err = os.OpenFile(path, flags, perm); return err })
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

func nameOf(fd int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	return path
}
