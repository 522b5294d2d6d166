package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"cis490/internal/serviceuser"
)

// BecomeServiceUser makes a command that root runs the user of the daemon. Each command
// that works with a program's state must call it, once it has read what root alone may
// read. See [serviceuser.Become].
func BecomeServiceUser(c *cobra.Command, s serviceuser.State) error {
	_, notes, err := serviceuser.Become(s)
	if notes != nil {
		fmt.Fprintf(c.ErrOrStderr(), "%s: note: %v\n", c.Root().Name(), notes)
	}
	return err
}

// CheckLine returns the command line that hands over what root left, with the
// configuration that c was given.
func CheckLine(c *cobra.Command) string {
	line := c.Root().Name() + " check"
	if f := c.Root().PersistentFlags().Lookup("config"); f != nil && f.Changed {
		line += " --config " + f.Value.String()
	}
	return line
}
