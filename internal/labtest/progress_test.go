package labtest_test

import (
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// startOnTerminal starts a program on a terminal, where Ctrl-C interrupts it.
func startOnTerminal(t *testing.T, term *fixture.Terminal, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(cmd.Environ(), "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.File, term.File, term.File
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	fixture.Must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd
}

// exitCode waits for the end of a program.
func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok && exit.ExitCode() < 0 {
		t.Fatalf("it ended with %v", err)
	}
	return cmd.ProcessState.ExitCode()
}

// wantLines checks that each line on a screen, except empty ones, has one of the given beginnings.
func wantLines(t *testing.T, screen string, begins ...string) {
	t.Helper()
	for line := range strings.Lines(screen) {
		known := strings.TrimSpace(line) == ""
		for _, begin := range begins {
			// The time of a log line has 8 characters.
			known = known || strings.HasPrefix(line, begin) || len(line) > 9 && strings.HasPrefix(line[9:], begin)
		}
		if !known {
			t.Errorf("the screen has the line %q", line)
		}
	}
}

// slowHost returns a host on which a pass takes a while.
func slowHost(t *testing.T) (*labtest.Lab, *labtest.Host) {
	t.Helper()
	l := labtest.New(t)
	h := l.Host("lab-01")
	h.Set("bandwidth_limit", `"128KiB"`)
	h.Set("senders", "4") // half of them for large archives
	for i, name := range []string{"run-1", "run-2"} {
		h.Episode(name, labtest.File{Name: "blob", Body: string(fixture.Noise(4<<20, byte(i)))})
	}
	return l, h
}

// A pass shows its transfers below its log, and an interrupt leaves the log and the error.
func TestPassShowsTransfersAndEndsClean(t *testing.T) {
	t.Parallel()
	for _, width := range []int{200, 40} {
		l, h := slowHost(t)
		term := fixture.NewTerminal(t, width, 200)
		cmd := startOnTerminal(t, term, l.Program("shipper"), "--config", h.Path("lab-host.toml"), "--once")
		screen := term.WaitFor(t, "two transfers with a rate", func(screen string) bool {
			return strings.Count(screen, " sending ") == 2 && strings.Contains(screen, "/s") && strings.Contains(screen, "INFO packed")
		})
		t.Logf("%d columns:\n%s", width, screen)
		rows := strings.Split(strings.TrimSuffix(screen, "\n"), "\n")
		rows = rows[len(rows)-3:]
		if !strings.HasPrefix(rows[0], "episodes 0/2  ") || !strings.HasPrefix(rows[1], "  run-") || !strings.HasPrefix(rows[2], "  run-") {
			t.Errorf("%d columns: got the rows %q", width, rows)
		}
		for _, row := range rows {
			if len(row) >= width {
				t.Errorf("%q does not fit into %d columns", row, width)
			}
		}
		term.Type(t, "\x03")
		if code := exitCode(t, cmd); code != 1 {
			t.Errorf("exit code %d after Ctrl-C, want 1", code)
		}
		screen = term.WaitFor(t, "the end of the error", func(screen string) bool { return strings.HasSuffix(screen, "unchanged\n") })
		if strings.Contains(screen, "  run-") || strings.Contains(screen, "episodes 0/2") || strings.Contains(screen, "^C") {
			t.Errorf("after Ctrl-C the screen has rows of progress:\n%s", screen)
		}
		if width == 200 {
			t.Log(screen)
			wantLines(t, screen, "INFO ", "WARN ", "scanned=", "shipper: interrupted; episodes that were not reached are ")
		}
	}
}

// A command that reads archives shows its progress, and removes it on SIGTERM.
func TestScrubShowsProgressAndEndsClean(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	h := l.Host("lab-01")
	h.Episode("run-1", labtest.File{Name: "blob", Body: string(fixture.Noise(8<<20, 1))})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Stop()
	term := fixture.NewTerminal(t, 100, 24)
	cmd := startOnTerminal(t, term, l.Program("receiver"), "--config", l.Path("receiver.toml"), "scrub", "--rate", "256KiB")
	screen := term.WaitFor(t, "progress with a total and a rate", func(screen string) bool {
		return strings.Contains(screen, "reading archives 0/1  [") && strings.Contains(screen, "/8.0 MiB  ") && strings.HasSuffix(screen, " left\n")
	})
	t.Log(screen)
	fixture.Must(t, cmd.Process.Signal(syscall.SIGTERM))
	exitCode(t, cmd)
	screen = term.WaitFor(t, "the error", func(screen string) bool { return strings.Contains(screen, "receiver: ") })
	wantLines(t, screen, "read=", "receiver: ")
	for _, args := range [][]string{{"index", "verify", "--deep"}, {"scrub", "--json"}} {
		result := l.Receiver(append([]string{"--config", l.Path("receiver.toml")}, args...)...).MustExit(t, 0)
		if strings.ContainsAny(result.Stdout+result.Stderr, "\x1b\r") {
			t.Errorf("%q writes control sequences into a pipe: %q", args, result.Stderr)
		}
	}
}

// JSON that a program reads from a terminal has no control sequences.
func TestJSONOnATerminalIsBare(t *testing.T) {
	t.Parallel()
	l := labtest.New(t)
	h := l.Host("lab-01")
	h.Episode("run-1", labtest.File{Name: "blob", Body: string(fixture.Noise(4<<20, 1))})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	term := fixture.NewTerminal(t, 100, 24)
	cmd := startOnTerminal(t, term, l.Program("receiver"), "--config", l.Path("receiver.toml"), "scrub", "--json", "--rate", "2MiB")
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if out := term.Output(); strings.Contains(out, "\x1b") {
		t.Errorf("the terminal got %q", out)
	}
}
