// Shipper brings finished episodes from a lab host to the receiver.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/shipper"
)

func main() { os.Exit(cli.Main(command())) }

// options are the flags that every command has.
type options struct {
	config  string
	json    bool
	verbose bool
}

func (o *options) load() (shipper.Config, error) {
	c, err := shipper.LoadConfig(o.config)
	return c, cli.Wrong(err)
}

func command() *cobra.Command {
	var o options
	var once, ping bool
	root := &cobra.Command{
		Use:   "shipper",
		Short: "Bring finished episodes to the receiver",
		Long: `Shipper packs finished episodes, sends them to the receiver and moves them to
the shipped folder once the receiver says that it has them on its disk.
Without --once or --ping it does so until it is told to stop.

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 an episode
is held, 4 the receiver cannot be reached or refuses this host, 5 another
shipper runs, 74 the disk cannot be trusted.`,
		Example: `  shipper --ping                       # is everything set up?
  shipper --once                       # one pass, from cron
  shipper --config ./lab-host.toml     # the daemon`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case ping:
				return runPing(c, &o)
			case once:
				return runOnce(c, &o)
			}
			return runDaemon(c, &o)
		},
	}
	root.Flags().BoolVar(&once, "once", false, "try every waiting episode once, then exit")
	root.Flags().BoolVar(&ping, "ping", false, "check the way to the receiver, send nothing")
	root.MarkFlagsMutuallyExclusive("once", "ping")
	flags := root.PersistentFlags()
	flags.StringVar(&o.config, "config", shipper.DefaultConfigFile, "configuration `file`")
	flags.BoolVar(&o.json, "json", false, "print results as JSON")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "log each attempt")
	root.AddCommand(statusCommand(&o), heldCommand(&o), retryCommand(&o),
		verifyCommand(&o), resendCommand(&o), pruneCommand(&o), cli.VersionCommand(), cli.GenerateCommand())
	return root
}
