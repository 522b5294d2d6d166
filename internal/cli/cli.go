// Package cli has what the command lines of both programs share: exit codes, messages, checks,
// reloads and the service user.
//
// Invariant: stdout is for results, stderr for people. A message begins with the program's name, in
// lower case, and ends with what to do.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/durable"
	"cis490/internal/logging"
	"cis490/internal/serviceuser"
)

// Exit codes. If several apply, the first of StorageFault, Locked, Misuse, Unreachable, SomeHeld,
// Failed counts.
const (
	Failed       = 1
	Misuse       = 2  // wrong arguments or configuration
	SomeHeld     = 3  // an episode needs operator action
	Unreachable  = 4  // the receiver is unreachable, or refuses this host
	Locked       = 5  // another process has the state directory
	StorageFault = 74 // the disk cannot be trusted; systemd does not restart
)

// ExitError is an error with the exit code of the program. A nil Err prints nothing.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns e.Err.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode returns e.Code.
func (e *ExitError) ExitCode() int { return e.Code }

// UsageError returns err with [Misuse], unless it says more about the machine: no change of a file
// fixes a broken disk or a lack of descriptors.
func UsageError(err error) error {
	switch {
	case err == nil, errors.Is(err, durable.ErrFault), durable.IsShortage(err):
		return err
	case errors.Is(err, syscall.EIO):
		return &ExitError{StorageFault, fmt.Errorf("%w; look at the disk ('dmesg', 'smartctl -a')", err)}
	}
	return &ExitError{Misuse, err}
}

// StartError returns the error of a daemon's start, with EROFS as a [Misuse]: usually the unit
// lacks a directory that the configuration names. Later, EROFS is a storage fault, because the
// kernel remounts a faulty disk read-only.
func StartError(err error) error {
	if !errors.Is(err, syscall.EROFS) {
		return err
	}
	// Not wrapped, or it would still be a fault.
	return &ExitError{Misuse, fmt.Errorf("%v; add the directory to ReadWritePaths= of the unit (systemctl edit), "+
		"or mount its file system for writing; if the kernel has made it read-only, 'dmesg' says why", err)}
}

// Main runs a program's command until it ends or gets SIGTERM or SIGINT, and returns the exit code.
// It sets the daemon's umask, so that a command's files have the modes of the daemon's.
func Main(root *cobra.Command) int {
	syscall.Umask(serviceuser.Umask)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return runCommand(ctx, root, os.Args[1:])
}

// runCommand runs a command with arguments, and returns the exit code.
func runCommand(ctx context.Context, root *cobra.Command, args []string) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = Version()
	root.SetFlagErrorFunc(suggestFlag)
	if isCompletion(args) {
		limitFileCompletion(root)
	}
	begun := false
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error {
		// cobra checks these later, when they look like failures.
		if err := errors.Join(c.ValidateRequiredFlags(), c.ValidateFlagGroups(), refuseJSON(c)); err != nil {
			return err
		}
		begun = true
		return nil
	}
	err := checkCommand(root, args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	} else {
		begun = true // the error says what to do
	}
	if err != nil && !begun { // cobra has no type for it
		err = &ExitError{Misuse, fmt.Errorf("%w; see '%s --help'", err, root.Name())}
	}
	if err != nil && isMonitored(args) {
		return printUnknown(root, err)
	}
	printErrors(root, err)
	return ExitCodeOf(err)
}

// printErrors prints each error on a line of its own. It gives up after [logging.FlushTimeout] if
// nothing reads.
func printErrors(root *cobra.Command, err error) {
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for _, e := range splitErrors(err) {
			if exit, ok := e.(*ExitError); !ok || exit.Err != nil {
				printError(root, serviceuser.Explain(e, CheckLine(root)).Error())
			}
		}
	}()
	select {
	case <-printed:
	case <-time.After(logging.FlushTimeout):
	}
}

// splitErrors returns the errors that were joined to err.
func splitErrors(err error) []error {
	if err == nil {
		return nil
	}
	several, ok := err.(interface{ Unwrap() []error })
	// Other errors unwrap to several too: fmt.Errorf with two of %w.
	if !ok || err.Error() != errors.Join(several.Unwrap()...).Error() {
		return []error{err}
	}
	var all []error
	for _, e := range several.Unwrap() {
		all = append(all, splitErrors(e)...)
	}
	return all
}

// precedence is the order of the codes: of several errors, the first code counts.
var precedence = [...]int{StorageFault, Locked, Misuse, Unreachable, SomeHeld, Failed}

// ExitCodeOf returns the exit code of a program that ends with err.
func ExitCodeOf(err error) int {
	worst := len(precedence)
	for _, e := range splitErrors(err) {
		at := slices.Index(precedence[:], singleCode(e))
		if at < 0 {
			at = len(precedence) - 1
		}
		worst = min(worst, at)
	}
	if worst == len(precedence) {
		return 0
	}
	return precedence[worst]
}

func singleCode(err error) int {
	if errors.Is(err, durable.ErrFault) {
		return StorageFault
	}
	if _, ok := errors.AsType[*durable.LockedError](err); ok {
		return Locked
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return Failed
}

// version is set by the linker.
var version string

// Version returns the version of the program.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" {
		return strings.Trim(info.Main.Version, "()")
	}
	return "devel"
}

// LockHolder returns how a process describes itself to others that want its lock.
func LockHolder(what string) string { return fmt.Sprintf("pid %d (%s)", os.Getpid(), what) }

// runDaily calls do now and then once a day until ctx ends.
func runDaily(ctx context.Context, do func()) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		do()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// LogNotifyError logs the error of a message to the service manager.
func LogNotifyError(log *slog.Logger, err error) {
	if err != nil {
		log.Warn("service manager not notified", "err", err)
	}
}

// VersionCommand prints the version.
func VersionCommand() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if asJSON {
				return WriteJSON(c.OutOrStdout(), map[string]string{"version": Version()})
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), c.Root().Name(), Version())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// checkCommand returns an error if args name an unknown command. Without it, cobra would answer
// --help and some others with the parent's help, and exit with 0.
func checkCommand(root *cobra.Command, args []string) error {
	if isCompletion(args) {
		return nil // the shell completes unfinished words
	}
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd(args...)
	c, rest, err := root.Find(args)
	if err != nil {
		return nil // Execute returns the error
	}
	isHelp := c.Name() == "help"
	if !isHelp && !c.HasAvailableSubCommands() {
		return nil // its words are arguments, and its flags must not be parsed twice
	}
	c.InitDefaultHelpFlag()
	c.InitDefaultVersionFlag()
	if c.ParseFlags(rest) != nil {
		return nil // Execute returns the error of a flag
	}
	if isHelp && refuseJSON(c) != nil { // its own hooks replace those of the root
		return &ExitError{Misuse, fmt.Errorf("%w; see '%s --help'", refuseJSON(c), root.Name())}
	}
	if c.Flags().NArg() == 0 {
		return nil
	}
	words := c.Flags().Args()
	if isHelp {
		if c, words, err = root.Find(words); err == nil && len(words) == 0 {
			return nil
		}
	}
	return unknownCommand(c, words)
}

// unknownCommand returns the error for the first of words, which is not a command of parent.
func unknownCommand(parent *cobra.Command, words []string) error {
	err := fmt.Errorf("unknown command %+q for %q", words[0], parent.CommandPath())
	parent.SuggestionsMinimumDistance = 2
	if near := parent.SuggestionsFor(words[0]); len(near) > 0 {
		err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, ", "))
	}
	return &ExitError{Misuse, fmt.Errorf("%w; see '%s --help'", err, parent.Root().Name())}
}
