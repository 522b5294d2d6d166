package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"cis490/internal/printable"
	"cis490/internal/serviceuser"
)

// Exit codes of a command with --check: those of monitoring plugins (Nagios, Icinga, Checkmk).
const (
	MonitorOK       = 0
	MonitorWarning  = 1
	MonitorCritical = 2
	MonitorUnknown  = 3 // also for misuse, and for a configuration that is not valid
)

// MonitorResult is what a command with --check reports, in one line. As an error it has the exit
// code.
type MonitorResult struct {
	Service string   // such as "HOSTS"
	Code    int      // one of the above
	Summary string   // for an operator
	Values  []string // performance data, as name=value
}

// Add adds something that was found. The result has what is worst.
func (m *MonitorResult) Add(code int, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case code > m.Code:
		m.Code, m.Summary = code, text
	case code == m.Code && code > MonitorOK:
		m.Summary += "; " + text
	}
}

func (m *MonitorResult) Error() string {
	state := [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[m.Code]
	line := fmt.Sprintf("%s %s: %s", m.Service, state, strings.ReplaceAll(printable.Text(m.Summary), "|", "/"))
	if len(m.Values) > 0 {
		line += " | " + strings.Join(m.Values, " ")
	}
	return line
}

// ExitCode returns the code.
func (m *MonitorResult) ExitCode() int { return m.Code }

// AddCheck adds --check to a command, which then prints the result of check and nothing else.
func AddCheck(c *cobra.Command, check func(c *cobra.Command) (MonitorResult, error)) {
	on := false
	c.Flags().BoolVar(&on, "check", false, "print one line for a monitoring system, exit 0 to 3")
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !on {
			return run(c, args)
		}
		result, err := check(c)
		if err != nil {
			return err // see [Main]
		}
		if err := printf(c.OutOrStdout(), "%s\n", result.Error()); err != nil {
			return err
		}
		if result.Code == MonitorOK {
			return nil
		}
		return &ExitError{Code: result.Code}
	}
}

func printf(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

// isMonitored reports whether the arguments ask for a [MonitorResult].
func isMonitored(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		flag, value, given := strings.Cut(arg, "=")
		on, err := strconv.ParseBool(value)
		return flag == "--check" && (!given || err == nil && on)
	})
}

// printUnknown prints that a check could not be made, and returns the exit code.
func printUnknown(root *cobra.Command, err error) int {
	if exit, ok := errors.AsType[*ExitError](err); ok && exit.Err == nil {
		return exit.Code // the result is printed
	}
	text := strings.Join(strings.Split(serviceuser.Explain(err, CheckLine(root)).Error(), "\n"), "; ")
	result := MonitorResult{Service: strings.ToUpper(root.Name()), Code: MonitorUnknown, Summary: text}
	fmt.Fprintln(root.OutOrStdout(), result.Error())
	return MonitorUnknown
}
