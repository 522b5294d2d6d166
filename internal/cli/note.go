package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"cis490/internal/printable"
	"cis490/internal/terminal"
)

// Note prints a message on stderr that an operator should read, but that is not an error.
func Note(c *cobra.Command, format string, args ...any) {
	word := terminal.NewPainter(c.ErrOrStderr()).Paint("note", terminal.Fair)
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintf(c.ErrOrStderr(), "%s: %s: %s\n", c.Root().Name(), word, printable.Text(line))
	}
}

// printError prints an error on stderr. On a terminal the name of the program has the colour of an
// error, because messages begin with it and not with a word such as "error".
func printError(root *cobra.Command, text string) {
	name := terminal.NewPainter(root.ErrOrStderr()).Paint(root.Name()+":", terminal.Bad)
	for line := range strings.SplitSeq(text, "\n") { // the faults of a file are one error
		fmt.Fprintf(root.ErrOrStderr(), "%s %s\n", name, printable.Text(line))
	}
}
