package cli

import "github.com/spf13/cobra"

// AliasFlag makes the former name of a flag a hidden alias of it: scripts that use it keep
// working, and help does not show it. The flag must be defined.
func AliasFlag(c *cobra.Command, former, name string) {
	alias := *c.Flags().Lookup(name)
	alias.Name, alias.Hidden = former, true
	c.Flags().AddFlag(&alias)
}
