package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os/exec"
	"syscall"
	"time"

	"cis490/internal/durable"
	"cis490/internal/retry"
)

// Limits of a command.
const (
	commandTimeout = time.Minute
	pipeTimeout    = 5 * time.Second // for its output to end, after it has
	maxOutput      = 64 << 10        // bytes of output of one run
	maxAttempts    = 20              // after which an event is dropped
	emptyWait      = 5 * time.Second // while the directory contains only what is not an event
)

// attemptsFile is the file that counts failures with the oldest event.
const attemptsFile = "attempts"

// Runner runs a command for each event of a queue.
type Runner struct {
	Dir      string
	Command  []string      // its first word is an absolute path
	StateDir string        // where attempts are counted across restarts; empty: nowhere
	Timeout  time.Duration // of one run; 0 means a minute
	Output   io.Writer     // of the command
	Log      *slog.Logger
}

// attempts counts how often the command has failed with an event.
type attempts struct {
	Event string `json:"event"` // its file
	Count int    `json:"count"`
}

// Run runs the command until the directory is empty or ctx ends. An event is removed after the command has
// ended with 0, or has failed 20 times. Run ends no earlier, because the path unit would start it again at
// once.
func (r *Runner) Run(ctx context.Context) error {
	dir, err := durable.Open(r.Dir)
	if err != nil {
		return err
	}
	dir.Close()
	q := newQueue(func() (*durable.Dir, error) { return durable.Open(r.Dir) }, r.Log)
	q.shared = true
	defer q.Close()
	tried, notStarted := r.loadAttempts(), 0
	for ctx.Err() == nil {
		entry, text, err := q.oldest()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if empty, err := q.isEmpty(); empty || err != nil {
				return err
			}
			retry.Sleep(ctx, emptyWait)
		case err != nil:
			return err
		default:
			if tried.Event != entry.Name {
				tried = attempts{Event: entry.Name}
			}
			err := r.handleEvent(ctx, q, entry, text, &tried)
			if !errors.Is(err, errNotStarted) {
				notStarted = 0
				continue
			}
			wait := backoff(notStarted)
			notStarted++
			r.Log.Warn("command not started", "err", err, "next_attempt", time.Now().Add(wait).UTC().Format(time.RFC3339),
				"hint", "the event is kept; correct the command, then restart cis490-hook.service")
			retry.Sleep(ctx, wait)
		}
	}
	return nil
}

// errNotStarted says that the command could not be started: it is missing, say, or there are too many
// processes. The event is not the cause.
var errNotStarted = errors.New("start the command")

// handleEvent runs the command for an event, and waits if it fails. It returns an error, which wraps
// errNotStarted, only if the command could not be started.
func (r *Runner) handleEvent(ctx context.Context, q *Queue, e Entry, text []byte, tried *attempts) error {
	err := r.runCommand(ctx, text)
	switch {
	case ctx.Err() != nil:
		return nil // it is run again: at least once
	case errors.Is(err, errNotStarted):
		return err
	case err == nil:
		q.remove(e)
		return nil
	}
	tried.Count++
	r.saveAttempts(*tried)
	log := r.Log.With("event", e.Name, "attempt", tried.Count, "err", err)
	if tried.Count >= maxAttempts {
		log.Error("event dropped", "hint", "the command has failed too often with this event")
		q.remove(e)
		return nil
	}
	wait := backoff(tried.Count - 1)
	log.Warn("command failed", "next_attempt", time.Now().Add(wait).UTC().Format(time.RFC3339))
	retry.Sleep(ctx, wait)
	return nil
}

// runCommand runs the command with an event on stdin. Nothing of the event is in its arguments or its
// environment. It then kills what the command has left running.
func (r *Runner) runCommand(ctx context.Context, text []byte) error {
	limit := r.Timeout
	if limit == 0 {
		limit = commandTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	cmd.Stdin = io.MultiReader(bytes.NewReader(text), bytes.NewReader([]byte("\n")))
	out := &limitedWriter{to: r.Output, left: maxOutput}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipeTimeout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", errNotStarted, err)
	}
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("it did not end within %v", limit)
	case errors.Is(err, exec.ErrWaitDelay): // it has ended with 0, and something holds its output open
		return nil
	}
	return err
}

// limitedWriter discards everything after a number of bytes.
type limitedWriter struct {
	to   io.Writer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n > 0 {
		_, _ = w.to.Write(p[:n]) // the command must not fail because its output cannot be written
	}
	return len(p), nil
}

func (r *Runner) loadAttempts() (a attempts) {
	if r.StateDir == "" {
		return a
	}
	dir, err := durable.Open(r.StateDir)
	if err != nil {
		return a
	}
	defer dir.Close()
	if !readState(dir, attemptsFile, MaxEvent, &a) {
		return attempts{}
	}
	return a
}

func (r *Runner) saveAttempts(a attempts) {
	if r.StateDir == "" {
		return
	}
	if dir, err := durable.Open(r.StateDir); err == nil {
		writeState(dir, attemptsFile, a, r.Log)
		dir.Close()
	}
}
