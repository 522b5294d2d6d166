package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/hostdir"
)

// shareCommand is the one command that a unit runs with rights over other users'
// files. It is hidden: a person starts the unit.
func shareCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:    "share-episodes [DIR]",
		Hidden: true,
		Short:  "Let the shipper move the directories of experiments",
		Long: `Share-episodes gives each directory in the episodes folder, and nothing in it,
to the group of the experiments, and lets that group list, enter and change it,
so that the shipper can move an episode that a program made with a mode of its
own (cp -r, install -d, mkdtemp). It follows no link and enters no mount. DIR is
episodes_dir of the configuration unless it is given.

cis490-episodes.service runs it with the rights to do so; to run it by hand,
start that unit. A directory that cannot be shared is named, and the others are
shared; the exit code is 1 then.`,
		Example: `  systemctl start cis490-episodes
  shipper share-episodes /var/lib/cis490/data/episodes`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				cfg, err := o.load()
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
