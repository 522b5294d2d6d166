package cli

import (
	"github.com/spf13/cobra"

	"cis490/internal/serviceuser"
)

// BecomeServiceUser gives up root for the service user. Each command that works with a program's
// state must call it, once it has read what only root may read. See [serviceuser.Become].
func BecomeServiceUser(c *cobra.Command, s serviceuser.State) error {
	_, notes, err := serviceuser.Become(s)
	if notes != nil {
		Note(c, "%v", notes)
	}
	return err
}

// CheckLine returns the command line that hands over root's files, with the configuration of c.
func CheckLine(c *cobra.Command) string {
	line := c.Root().Name() + " check"
	if f := c.Root().PersistentFlags().Lookup("config"); f != nil && f.Changed {
		line += " --config " + f.Value.String()
	}
	return line
}
