package notify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/notify"
)

// newRunner returns a runner of a shell script, and its queue with some events.
func newRunner(t *testing.T, script string, events int) (*notify.Runner, *fixture.Log) {
	t.Helper()
	dir := t.TempDir()
	q := notify.OpenQueue(dir, silent)
	defer q.Close()
	for n := range events {
		q.Add(stored(n))
	}
	var log fixture.Log
	out := t.TempDir()
	return &notify.Runner{
		Dir: dir, Command: []string{"/bin/sh", "-c", "cd " + out + "; " + script, "hook"}, StateDir: t.TempDir(), Output: &log, Log: log.Logger(),
	}, &log
}

// outputDir returns the directory in which the script runs.
func outputDir(r *notify.Runner) string {
	dir, _, _ := strings.Cut(strings.TrimPrefix(r.Command[2], "cd "), ";")
	return dir
}

func TestCommandGetsEachEventOnStdinOnly(t *testing.T) {
	t.Setenv("SECRET_OF_THE_PARENT", "1")
	r, _ := newRunner(t, `cat >>events; env >>environment; echo "$# $PWD" >>arguments`, 3)
	fixture.Must(t, r.Run(t.Context()))
	lines := strings.Split(strings.TrimSpace(fixture.ReadFile(t, filepath.Join(outputDir(r), "events"))), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %q", lines)
	}
	for n, line := range lines {
		e, err := notify.ParseEvent([]byte(line))
		fixture.Must(t, err)
		if string(e.Data.Episode) != fmt.Sprintf("run-%d", n) {
			t.Errorf("event %d is of %s", n, e.Data.Episode)
		}
	}
	environment := fixture.ReadFile(t, filepath.Join(outputDir(r), "environment"))
	if strings.Contains(environment, "SECRET") || strings.Contains(environment, "run-") {
		t.Errorf("environment:\n%s", environment)
	}
	if entries, err := os.ReadDir(r.Dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// runUntilIdle runs a runner in a bubble until it waits, or has ended. Time stands still while a command
// runs.
func runUntilIdle(t *testing.T, r *notify.Runner) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	synctest.Wait()
	cancel()
	fixture.Must(t, <-ended)
}

// TestFailedCommandIsRetried: in order, after a wait, and the count of attempts survives a restart.
func TestFailedCommandIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRunner(t, `echo run >>runs; exit 1`, 2)
		runUntilIdle(t, r)
		runUntilIdle(t, r)
		if runs := fixture.ReadFile(t, filepath.Join(outputDir(r), "runs")); runs != "run\nrun\n" {
			t.Errorf("runs: %q, want two", runs)
		}
		for _, text := range []string{" attempt=1 ", " attempt=2 "} {
			if strings.Count(log.String(), text) != 1 {
				t.Errorf("no line, or more than one, with %q:\n%s", text, log.String())
			}
		}
		if strings.Count(log.String(), "command failed") != 2 {
			t.Errorf("want two failures:\n%s", log.String())
		}
		if entries, err := os.ReadDir(r.Dir); err != nil || len(entries) != 2 {
			t.Errorf("left: %v, %v, want both events", entries, err)
		}
	})
}

// TestCommandThatCannotStartDropsNoEvent: it may be missing for longer than an event is tried.
func TestCommandThatCannotStartDropsNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRunner(t, ``, 1)
		command := r.Command
		r.Command = []string{filepath.Join(t.TempDir(), "missing")}
		entries, err := os.ReadDir(r.Dir)
		fixture.Must(t, err)
		saved := fmt.Sprintf(`{"event":%q,"count":%d}`, entries[0].Name(), notify.MaxAttempts-1)
		fixture.WriteFile(t, filepath.Join(r.StateDir, "attempts"), saved)
		runUntilIdle(t, r)
		if !strings.Contains(log.String(), "command not started") {
			t.Errorf("log:\n%s", log.String())
		}
		if got := fixture.ReadFile(t, filepath.Join(r.StateDir, "attempts")); got != saved {
			t.Errorf("attempts: %s, want %s", got, saved)
		}
		r.Command = command
		fixture.Must(t, r.Run(t.Context()))
		if strings.Contains(log.String(), "event dropped") {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// TestEventIsDroppedAfterTooManyFailures: an event that the command cannot handle must not block others.
func TestEventIsDroppedAfterTooManyFailures(t *testing.T) {
	r, log := newRunner(t, `grep run-1`, 2)
	entries, err := os.ReadDir(r.Dir)
	fixture.Must(t, errors.Join(err, os.WriteFile(filepath.Join(r.StateDir, "attempts"),
		fmt.Appendf(nil, `{"event":%q,"count":%d}`, entries[0].Name(), notify.MaxAttempts-1), 0o600)))
	fixture.Must(t, r.Run(t.Context()))
	if !strings.Contains(log.String(), "event dropped") || !strings.Contains(log.String(), "run-1") {
		t.Errorf("log:\n%s", log.String())
	}
	if entries, err := os.ReadDir(r.Dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestHangingCommandIsKilledWithItsChildren: and so is what a command leaves running.
func TestHangingCommandIsKilledWithItsChildren(t *testing.T) {
	for script, ok := range map[string]bool{
		`sleep 1000 & echo $! >child; wait`: false,
		`sleep 1000 & echo $! >child`:       true,
	} {
		r, log := newRunner(t, script, 1)
		child := filepath.Join(outputDir(r), "child")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		if !ok {
			r.Timeout = 500 * time.Millisecond // if the shell takes longer, it is run again
		}
		go func() { ended <- r.Run(ctx) }()
		if !ok {
			labtest.Eventually(t, "the command is killed", func() bool {
				text, _ := os.ReadFile(child)
				return len(text) > 0 && strings.Contains(log.String(), "did not end within")
			})
			cancel()
		}
		fixture.Must(t, <-ended)
		if strings.Contains(log.String(), "did not end within") == ok {
			t.Errorf("%s:\n%s", script, log.String())
		}
		pid := strings.TrimSpace(fixture.ReadFile(t, child))
		labtest.Eventually(t, "the child "+pid+" ends: "+script, func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestOutputOfACommandIsBounded(t *testing.T) {
	r, log := newRunner(t, `head -c 10000000 /dev/zero; echo end`, 1)
	fixture.Must(t, r.Run(t.Context()))
	if n := log.Len(); n < 60<<10 || n > 70<<10 {
		t.Errorf("%d bytes of output", n)
	}
}

// TestRunnerStaysWhileItsDirectoryIsNotEmpty: a path unit would start it again at once.
func TestRunnerStaysWhileItsDirectoryIsNotEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newRunner(t, `true`, 1)
		dir := filepath.Join(r.Dir, "directory")
		fixture.Must(t, os.Mkdir(dir, 0o700))
		ended := make(chan error, 1)
		go func() { ended <- r.Run(t.Context()) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("it ended with %v, although a directory is left", err)
		default:
		}
		fixture.Must(t, os.Remove(dir))
		fixture.Must(t, <-ended)
	})
}
