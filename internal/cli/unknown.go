package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// checkCommand returns an error if args name an unknown command. Without it, cobra would answer
// --help and some others with the parent's help, and exit with 0.
func checkCommand(root *cobra.Command, args []string) error {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
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
