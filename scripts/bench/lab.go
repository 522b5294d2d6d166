package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lab is the directory of a run, and the credentials in it.
//
//	disk         a file system of the lab's own, if the folder's is not fit; then the rest is in there
//	pki          both CAs, the servers' certificate
//	hosts/HOST   a host's certificate
//	work/NAME    the episodes, made once for each file system
//	run          one run: wiped after it
type lab struct {
	base    string
	bin     string
	unmount func()
}

// newLab makes the lab ready. It must be closed.
func newLab(ctx context.Context, o options) (*lab, error) {
	l := &lab{unmount: func() {}}
	var err error
	if l.base, err = filepath.Abs(o.dir); err != nil {
		return nil, err
	}
	if l.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	for _, program := range []string{"shipper", "receiver"} {
		if _, err := os.Stat(filepath.Join(l.bin, program)); err != nil {
			return nil, fmt.Errorf("%w: run make build", err)
		}
	}
	if err := os.MkdirAll(l.base, 0o755); err != nil {
		return nil, err
	}
	if !o.here && !journaled(l.base) {
		if l.unmount, err = l.mount(ctx); err != nil {
			return nil, err
		}
	}
	if err := l.credentials(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// credentials removes what another run left in the lab, and makes new CAs.
func (l *lab) credentials(ctx context.Context) error {
	for _, old := range []string{l.run(), l.path("pki"), l.path("hosts")} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	for _, dir := range []string{"hosts", "work"} {
		if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
			return err
		}
	}
	return l.receiver(ctx, "pki", "init", "--dir", l.path("pki"), "--name", "localhost,127.0.0.1")
}

// close removes the last run. The work stays, for the next time.
func (l *lab) close() {
	if err := os.RemoveAll(l.run()); err != nil {
		say("%v", err)
	}
	l.unmount()
}

func (l *lab) path(elem ...string) string { return filepath.Join(append([]string{l.base}, elem...)...) }

// run returns a path in the folder of the run.
func (l *lab) run(elem ...string) string { return l.path(append([]string{"run"}, elem...)...) }

func (l *lab) receiver(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, filepath.Join(l.bin, "receiver"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("receiver %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// host makes sure that a host has its credentials, and one file with certificate and key, as
// restic requires.
func (l *lab) host(ctx context.Context, name string) (dir string, err error) {
	dir = l.path("hosts", name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := l.receiver(ctx, "pki", "issue", name, "--dir", l.path("pki"), "--out", dir); err != nil {
		return "", err
	}
	var both []byte
	for _, part := range []string{".crt", ".key"} {
		b, err := os.ReadFile(filepath.Join(dir, name+part))
		if err != nil {
			return "", err
		}
		both = append(both, b...)
	}
	return dir, os.WriteFile(filepath.Join(dir, name+".pem"), both, 0o600)
}

// fresh empties the folder of the run and lets the disk settle: what a run left
// must not be deleted, and its blocks not be discarded, while the next is timed.
func (l *lab) fresh() error {
	if err := os.RemoveAll(l.run()); err != nil {
		return err
	}
	for _, dir := range []string{"data", "outbox", "shipped", "cache", "tmp"} {
		if err := os.MkdirAll(l.run(dir), 0o755); err != nil {
			return err
		}
	}
	return settle(l.base)
}

// settle writes the file system of a folder back to the disk. It does not use sync(2), which
// waits for all other file systems, even for one that hangs.
func settle(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// copyTree makes a copy of the episodes whose files are links to the work's:
// every run moves or deletes its own, and all read the same page cache.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if strings.HasPrefix(rel, ".") {
			return nil // the generator's stamp
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}

// stored returns the bytes of the files below a folder.
func stored(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// process is a server, or a daemon, of the bench.
type process struct {
	cmd  *exec.Cmd
	log  string
	exit chan error
}

// spawn starts a program that is to run until it is stopped.
func (l *lab) spawn(log string, argv ...string) (*process, error) {
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), log: log, exit: make(chan error, 1)}
	to, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer to.Close()
	p.cmd.Stdout, p.cmd.Stderr = to, to
	p.cmd.Env = append(os.Environ(), "RCLONE_CONFIG="+os.DevNull, "TMPDIR="+l.run("tmp"))
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.exit <- p.cmd.Wait() }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// until waits for something that a process does soon after its start.
func (p *process) until(ctx context.Context, what string, true func() bool) error {
	for deadline := time.Now().Add(time.Minute); !true(); time.Sleep(time.Millisecond) {
		select {
		case err := <-p.exit:
			p.exit <- err
			return fmt.Errorf("%s ended while we waited for %s: %w: %s", p.cmd.Path, what, err, tail(p.log))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited a minute for %s of %s: %s", what, p.cmd.Path, tail(p.log))
		}
	}
	return nil
}

// listens waits until a port takes connections.
func (p *process) listens(ctx context.Context, port int) error {
	return p.until(ctx, "port "+strconv.Itoa(port), func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// stop ends the process as a service manager would. The exit code is ignored: rsync's daemon
// reports a SIGTERM as an error.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exit:
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end on SIGTERM", p.cmd.Path), p.cmd.Process.Kill())
	}
}

func tail(log string) string {
	b, _ := os.ReadFile(log)
	return string(b[max(0, len(b)-1000):])
}

// freePort returns a free port. Another process may take it before it is used; then the run
// fails with an error.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
