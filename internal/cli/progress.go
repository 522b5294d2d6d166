package cli

import (
	"github.com/spf13/cobra"

	"cis490/internal/progress"
)

// NewDisplay returns a display of progress on stderr of a command. What the command prints while it
// is shown must go through [progress.Display.Above]. Nothing is shown if stderr is not a terminal,
// or if the command prints JSON on the same one: a program may read it there.
func NewDisplay(c *cobra.Command) *progress.Display {
	d := progress.NewDisplay(c.ErrOrStderr())
	if f := c.Flag("json"); f != nil && f.Value.String() == "true" && d.IsOn(c.OutOrStdout()) {
		return &progress.Display{}
	}
	return d
}
