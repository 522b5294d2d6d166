package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// jsonAnnotation marks the commands that print JSON if they are asked to.
const jsonAnnotation = "cis490.json"

// PrintsJSON marks commands that honour a flag --json of their root, and returns them. Any
// other command refuses the flag: a script must not take text for JSON.
func PrintsJSON(commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[jsonAnnotation] = "yes"
	}
	return commands
}

// refuseJSON returns an error if c was given the flag --json of its root and does not
// honour it.
func refuseJSON(c *cobra.Command) error {
	f := c.InheritedFlags().Lookup("json")
	if f == nil || !f.Changed || c.Annotations[jsonAnnotation] != "" {
		return nil
	}
	return fmt.Errorf("'%s' prints no JSON: leave --json out", c.CommandPath())
}
