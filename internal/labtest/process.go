package labtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// maxWait is the maximum time that a lab waits for anything. Only a failing test waits this
// long.
const maxWait = time.Minute

// stopTimeout is how long a daemon may take to end after SIGTERM.
const stopTimeout = 5 * time.Second

// Eventually waits until ok, and fails the test if that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Within(t, maxWait, what, ok)
}

// Within is [Eventually] for what may take longer than usual.
func Within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		began := time.Now()
		if ok() {
			return
		}
		// A check that starts a program must leave processor time to the program it checks.
		pause := min(max(2*time.Millisecond, 9*time.Since(began)), 500*time.Millisecond)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			t.Fatalf("waited %v, and it is still not so: %s", limit, what)
		}
	}
}

// Result is the result of a program that has ended.
type Result struct {
	Code           int
	Stdout, Stderr string
	State          *os.ProcessState // what it has used
}

// MustExit fails the test if the program ended with another code.
func (r Result) MustExit(t testing.TB, code int) Result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.Code, code, r.Stdout, r.Stderr)
	}
	return r
}

func runProgram(t testing.TB, path string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 15*maxWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("run %s: %v", filepath.Base(path), err)
	}
	r := Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), cmd.ProcessState}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s %s: exit code %d\n%s%s", filepath.Base(path), strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
	})
	return r
}

// Process is a program that runs.
type Process struct {
	name  string
	cmd   *exec.Cmd
	said  fixture.Log
	ended chan struct{}
}

// StartProgram starts a program that is killed when the test ends.
func StartProgram(t testing.TB, name string, argv ...string) *Process {
	t.Helper()
	p := &Process{name: name, cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait() // the code is read from the state
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s (pid %d): %v\n%s", name, p.cmd.Process.Pid, p.cmd.ProcessState, p.said.String())
		}
	})
	return p
}

// Output returns the output of the program so far.
func (p *Process) Output() string { return p.said.String() }

// Running reports whether the program has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Signal sends a signal.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("signal %s: %v", p.name, err)
	}
}

// Wait waits for the end and returns the exit code, -1 after a signal.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(maxWait):
		t.Fatalf("%s has not ended", p.name)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop sends SIGTERM. The exit code must be 0 within the time that a daemon has. One that takes longer
// shows what it waits for: SIGQUIT prints its goroutines.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		t.Errorf("%s has not ended within %v of SIGTERM", p.name, stopTimeout)
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended meanwhile
	}
	if code := p.Wait(t); code != 0 {
		t.Errorf("%s ended with %d after SIGTERM, want 0\n%s", p.name, code, p.Output())
	}
}

// Shoot sends SIGKILL and does not wait. It may be called by any goroutine.
func (p *Process) Shoot() { p.cmd.Process.Kill() }

// Kill sends SIGKILL and waits for the end.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.Shoot() // it may have ended by itself
	p.Wait(t)
}

// WaitLine waits for a line of the output that has text in it, and returns it.
func (p *Process) WaitLine(t testing.TB, text string) string {
	t.Helper()
	found := ""
	Eventually(t, p.name+" says "+text, func() bool {
		found = p.said.FindLine(text)
		if found == "" && !p.Running() && p.said.FindLine(text) == "" {
			t.Fatalf("%s ended with %d and did not say %q\n%s", p.name, p.cmd.ProcessState.ExitCode(), text, p.Output())
		}
		return found != ""
	})
	return found
}

// Pid returns the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
