package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/episode"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
)

// retryCommand returns "shipper retry".
func retryCommand(o *options) *cobra.Command {
	var accept, keepBoth bool
	c := &cobra.Command{
		Use:   "retry EPISODE...",
		Short: "Release held episodes, so that they are tried again",
		Long: `Retry releases held episodes. A running shipper tries them again at its next
scan.

With --accept, an episode that changed after it was packed is retired as it is
now, once the receiver confirms again that it has the packed archive.
With --keep-both, an episode that is held for a conflict or a change is packed
again and sent under a new name, EPISODE.conflict-SHA8. The receiver keeps its
copy; nothing is replaced.

Exit codes: 4 the receiver must be asked and cannot be reached.`,
		Example: "  shipper retry run-7\n  shipper retry --accept run-7\n  shipper retry --keep-both run-7",
		Args:    cobra.MinimumNArgs(1), ValidArgsFunction: cli.CompleteNames(false, o.findNames(heldEpisodes)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, up, err := o.openToAsk(c, keepBoth)
			if err != nil {
				return err
			}
			var errs []error
			for _, arg := range args {
				name, err := episode.ParseName(arg)
				if err != nil {
					errs = append(errs, cli.UsageError(err), o.printMoved(c, retriedEpisode{Episode: arg}, err, ""))
					continue
				}
				as, err := releaseEpisode(c.Context(), cfg, up, name, accept, keepBoth)
				errs = append(errs, err, o.printMoved(c, retriedEpisode{Episode: arg, Again: err == nil, As: as}, err, "tried again"))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&accept, "accept", false, "retire the episode as it is now, although it changed")
	c.Flags().BoolVar(&keepBoth, "keep-both", false, "send it under a second name, and keep the receiver's copy")
	cli.AliasFlag(c, "beside", "keep-both")
	c.MarkFlagsMutuallyExclusive("accept", "keep-both", "beside")
	return c
}

// releaseEpisode releases an episode and returns the second name that it gets with keepBoth.
func releaseEpisode(ctx context.Context, cfg shipper.Config, client uplink.InventoryClient, name episode.Name, accept, keepBoth bool) (string, error) {
	as := ""
	var err error
	if keepBoth {
		var other episode.Name
		other, err = shipped.KeepBoth(ctx, cfg.DirsConfig(), name, client)
		as = string(other)
	} else {
		err = shipped.ReleaseHold(cfg.DirsConfig(), name, accept)
	}
	if _, unreachable := errors.AsType[*uplink.UnreachableError](err); !unreachable && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s is not held%s: see 'shipper status'", name, suggestName(string(name), heldEpisodes(cfg)))
	}
	return as, auditError(cfg, err)
}
