package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"cis490/internal/suggestion"
)

// jsonAnnotation marks commands that can print JSON.
const jsonAnnotation = "cis490.json"

// PrintsJSON marks commands that support the flag --json of their root, and returns them. All
// others refuse the flag, because a script must not take text for JSON.
func PrintsJSON(commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[jsonAnnotation] = "yes"
	}
	return commands
}

// refuseJSON returns an error if c got --json and does not support it.
func refuseJSON(c *cobra.Command) error {
	f := c.InheritedFlags().Lookup("json")
	if f == nil || !f.Changed || c.Annotations[jsonAnnotation] != "" {
		return nil
	}
	return fmt.Errorf("'%s' prints no JSON: leave --json out", c.CommandPath())
}

// AliasFlag makes the former name of a flag a hidden alias of it: scripts that use it keep
// working, and help does not show it. The flag must be defined.
func AliasFlag(c *cobra.Command, former, name string) {
	alias := *c.Flags().Lookup(name)
	alias.Name, alias.Hidden = former, true
	c.Flags().AddFlag(&alias)
}

// suggestFlag adds the flag that was probably meant to the error about an unknown flag.
func suggestFlag(c *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	var known []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			known = append(known, "--"+f.Name)
		}
	})
	if question := suggestion.Question("--"+unknown.GetSpecifiedName(), known); question != "" {
		return fmt.Errorf("%w: %s", err, question)
	}
	return err
}
