package cli

import (
	"github.com/spf13/cobra"

	"cis490/internal/progress"
)

// NewDisplay returns a progress display on the stderr of a command. While it is shown, the command
// must print through [progress.Display.Above]. Nothing is shown if stderr is not a terminal, or if
// the command prints JSON on the same terminal, where a program may read it.
func NewDisplay(c *cobra.Command) *progress.Display {
	d := progress.NewDisplay(c.ErrOrStderr())
	if f := c.Flag("json"); f != nil && f.Value.String() == "true" && d.IsOn(c.OutOrStdout()) {
		return &progress.Display{}
	}
	return d
}
