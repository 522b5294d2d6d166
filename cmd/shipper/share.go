package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/hostdir"
)

// shareCommand returns the command that a unit runs with capabilities over other users'
// files. It is hidden: operators start the unit.
func shareCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:    "share-episodes [DIR]",
		Hidden: true,
		Short:  "Let the shipper move the directories of experiments",
		Long: `Share-episodes gives each directory in the episodes directory, but not its
contents, to the group of the experiments, and grants that group read, write and
execute permission on it. So the shipper can move an episode that a program
created with a mode of its own (cp -r, install -d, mkdtemp). It follows no link
and enters no mount. DIR defaults to episodes_dir of the configuration.

cis490-episodes.service runs it with the capabilities that it needs; to run it
by hand, start that unit. A directory that cannot be shared is reported, and the
others are shared; the exit code is then 1.`,
		Example: `  systemctl start cis490-episodes
  shipper share-episodes /var/lib/cis490/data/episodes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				cfg, err := o.loadConfig()
				if err != nil {
					return err
				}
				args = []string{string(cfg.EpisodesDir)}
			}
			done, err := hostdir.ShareEpisodes(c.Context(), args[0])
			if err != nil {
				return err
			}
			if o.json {
				return cli.WriteJSON(c.OutOrStdout(), done)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "shared=%d failed=%d\n", done.Shared, done.Failed)
			return err
		},
	}
}
