package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// run runs a program that has one command, do, and returns its output.
func run(do func(*cobra.Command) error, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	root := &cobra.Command{Use: "prog"}
	root.SetOut(&out)
	root.SetErr(&err)
	root.SetArgs(args)
	root.AddCommand(cli.VersionCommand(), &cobra.Command{
		Use: "do", Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return do(c) },
	})
	return cli.Main(root), out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	exit := func(code int) error { return &cli.ExitError{Code: code, Err: fmt.Errorf("why %d", code)} }
	fault := fmt.Errorf("sync: %w", durable.ErrFault)
	locked := fmt.Errorf("start: %w", &durable.LockedError{Path: "p", Holder: "h"})
	plain := errors.New("plain")
	for _, c := range []struct {
		what string
		err  error
		want int
	}{
		{"done", nil, 0},
		{"plain", plain, cli.Failed},
		{"misuse", cli.UsageError(plain), cli.Misuse},
		{"no misuse: a fault", cli.UsageError(fmt.Errorf("x: %w", durable.ErrFault)), cli.StorageFault},
		{"no misuse: a bad sector", cli.UsageError(fmt.Errorf("x: %w", syscall.EIO)), cli.StorageFault},
		{"no misuse: no descriptors", cli.UsageError(fmt.Errorf("x: %w", syscall.EMFILE)), cli.Failed},
		{"wrapped", fmt.Errorf("load: %w", exit(cli.SomeHeld)), cli.SomeHeld},
		{"locked", locked, cli.Locked},
		{"fault", fault, cli.StorageFault},
		{"fault in an exit", &cli.ExitError{Code: cli.SomeHeld, Err: fault}, cli.StorageFault},
		// Of several codes the first of 74, 5, 2, 4, 3, 1 wins, in any order of errors.
		{"3 and 74", errors.Join(exit(3), fault), 74},
		{"74 and 5", errors.Join(locked, fault), 74},
		{"2 and 5", errors.Join(exit(2), locked), 5},
		{"4 and 2", errors.Join(exit(4), exit(2)), 2},
		{"2 and 4", errors.Join(exit(2), exit(4)), 2},
		{"3 and 4", errors.Join(exit(3), exit(4)), 4},
		{"4 and 3", errors.Join(exit(4), exit(3)), 4},
		{"1 and 3", errors.Join(exit(1), exit(3)), 3},
		{"plain and 3", errors.Join(plain, exit(3)), 3},
	} {
		got, _, _ := run(func(*cobra.Command) error { return c.err }, "do")
		if got != c.want {
			t.Errorf("%s: exit code %d, want %d", c.what, got, c.want)
		}
	}
}

func TestErrorsGoToStderrUnderTheProgramsName(t *testing.T) {
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"done", nil, ""},
		{"failed", errors.New("open f: denied"), "prog: open f: denied\n"},
		{"said already", &cli.ExitError{Code: 3}, ""},
		{"said already, and more", errors.Join(&cli.ExitError{Code: 3}, errors.New("unlock: broken")), "unlock: broken"},
	} {
		_, stdout, stderr := run(func(*cobra.Command) error { return c.err }, "do")
		if stdout != "" {
			t.Errorf("%s: stdout has %q", c.what, stdout)
		}
		if !strings.Contains(stderr, c.want) || c.want == "" && stderr != "" {
			t.Errorf("%s: stderr has %q, want %q", c.what, stderr, c.want)
		}
	}
}

func TestWrongCommandLineIsMisuse(t *testing.T) {
	for _, args := range [][]string{{"none"}, {"do", "more"}, {"do", "--none"}, {"--none"}} {
		code, _, stderr := run(func(*cobra.Command) error { t.Errorf("%v ran", args); return nil }, args...)
		if code != cli.Misuse || !strings.HasPrefix(stderr, "prog: ") || !strings.Contains(stderr, "--help") {
			t.Errorf("%v: %d, %q", args, code, stderr)
		}
	}
	// An error of a command that has started is not a usage error.
	if code, _, stderr := run(func(*cobra.Command) error { return errors.New("x") }, "do"); code != cli.Failed || strings.Contains(stderr, "--help") {
		t.Errorf("%d, %q", code, stderr)
	}
}

func TestSignalEndsTheCommand(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		code, _, stderr := run(func(c *cobra.Command) error {
			self, err := os.FindProcess(os.Getpid())
			if err != nil {
				return err
			}
			if err := self.Signal(sig); err != nil {
				return err
			}
			<-c.Context().Done()
			return nil
		}, "do")
		if code != 0 {
			t.Errorf("%v: got %d, %q, want code 0", sig, code, stderr)
		}
	}
}

func TestVersion(t *testing.T) {
	_, plain, _ := run(nil, "version")
	if plain != "prog "+cli.Version()+"\n" || cli.Version() == "" {
		t.Errorf("got %q", plain)
	}
	_, asJSON, _ := run(nil, "version", "--json")
	var doc struct{ Version string }
	if err := json.Unmarshal([]byte(asJSON), &doc); err != nil || doc.Version != cli.Version() {
		t.Errorf("%q, %v", asJSON, err)
	}
}

// TestReloadHappensAtEachHangup: a failed reload does not prevent the next ones.
func TestReloadHappensAtEachHangup(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	ctx, cancel := context.WithCancel(t.Context())
	reloads, stopped := make(chan int), make(chan struct{})
	n := 0
	// Before Run installs its handler, a hangup would end the test.
	early := make(chan os.Signal, 1)
	signal.Notify(early, syscall.SIGHUP)
	defer signal.Stop(early)
	go func() {
		defer close(stopped)
		r := cli.Reloader{Log: slog.New(slog.DiscardHandler), Load: func() error {
			n++
			reloads <- n
			return errors.New("bad file")
		}}
		r.Run(ctx, cli.NotifyHangup())
	}()
	for want := 1; want <= 3; want++ {
		if got := hangUp(t, reloads); got != want {
			t.Errorf("reload %d, want %d", got, want)
		}
	}
	cancel()
	for {
		select {
		case <-reloads: // of a signal that was sent twice
			continue
		case <-stopped:
		}
		return
	}
}

// hangUp sends SIGHUP until a reload follows: the first signal may come before the handler is
// installed.
func hangUp(t *testing.T, reloads <-chan int) int {
	t.Helper()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for range 1000 {
		fixture.Must(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
		select {
		case n := <-reloads:
			return n
		case <-again.C:
		}
	}
	t.Fatal("no reload")
	return 0
}

func TestExitUnwraps(t *testing.T) {
	plain := errors.New("plain")
	err := cli.UsageError(plain)
	if !errors.Is(err, plain) || cli.UsageError(nil) != nil || (&cli.ExitError{Code: 3}).Error() == "" {
		t.Errorf("%v", err)
	}
	if h := cli.LockHolder("once"); !strings.Contains(h, fmt.Sprint(os.Getpid())) || !strings.Contains(h, "once") {
		t.Errorf("holder %q", h)
	}
}
