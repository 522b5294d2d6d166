package cli

import (
	"errors"
	"fmt"
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

// MonitorResult is what a command with --check reports.
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

// String returns the line for the monitoring system.
func (m *MonitorResult) String() string {
	state := [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[m.Code]
	line := fmt.Sprintf("%s %s: %s", m.Service, state, strings.ReplaceAll(printable.Text(m.Summary), "|", "/"))
	if len(m.Values) > 0 {
		line += " | " + strings.Join(m.Values, " ")
	}
	return line
}

// AddCheck adds --check to a command, which then prints the result of check and nothing else.
func AddCheck(c *cobra.Command, check func(c *cobra.Command) (MonitorResult, error)) {
	on := false
	c.Flags().BoolVar(&on, "check", false, "print one line for a monitoring system, exit 0 to 3")
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if !on {
			return run(c, args)
		}
		if err := refuseFlags(c, "check", "watch", "json"); err != nil {
			return err
		}
		result, err := check(c)
		if err != nil {
			return err // see [Main]
		}
		if _, err := fmt.Fprintln(c.OutOrStdout(), result.String()); err != nil {
			return err
		}
		if result.Code == MonitorOK {
			return nil
		}
		return &ExitError{Code: result.Code}
	}
}

// refuseFlags returns an error if one of some flags was given beside another one.
func refuseFlags(c *cobra.Command, flag string, others ...string) error {
	for _, other := range others {
		if f := c.Flag(other); f != nil && f.Changed {
			return UsageError(fmt.Errorf("--%s and --%s cannot be combined", flag, other))
		}
	}
	return nil
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
	fmt.Fprintln(root.OutOrStdout(), result.String())
	return MonitorUnknown
}
