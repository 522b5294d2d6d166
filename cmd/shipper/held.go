package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/outbox"
	"cis490/internal/terminal"
)

func heldCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "held",
		Short: "Show held episodes, each with its cause and remedy",
		Long: `Held shows each episode that needs operator action, the cause, and the beginning
of the sha256 of the local archive and of the receiver's. It also shows entries
that cannot be held because their name is not valid or they cannot be read. It
can run while the shipper runs, and changes nothing. It exits with 3 if
something is held.`,
		Example: "  shipper held\n  shipper held --json | jq -r 'select(.reason == \"conflict\").episode_id'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			st, err := o.inspectStatus(c)
			if err != nil {
				return err
			}
			if o.json {
				err = listHeld(c.OutOrStdout(), st)
			} else {
				err = printHeld(c.OutOrStdout(), terminal.NewPainter(c.OutOrStdout()), st, o.full, time.Now())
			}
			return exitOf(st, err)
		},
	}
	cli.AddFull(c, &o.full)
	return c
}

// unshippableEpisode is the line of 'held --json' for an entry that has no name to be held under.
type unshippableEpisode struct {
	Reason string `json:"reason"` // always "unshippable"
	Cause  string `json:"cause"`
}

// listHeld prints what [printHeld] shows, a line each.
func listHeld(to io.Writer, st backlog.Status) error {
	if err := cli.WriteJSONList(to, st.Held); err != nil {
		return err
	}
	for _, u := range st.Unshippable {
		if err := cli.WriteJSON(to, unshippableEpisode{"unshippable", u}); err != nil {
			return err
		}
	}
	return nil
}

// printHeld shows everything that needs operator action, for 'held' and for 'status'. If full is set,
// digests are whole.
func printHeld(to io.Writer, paint terminal.Painter, st backlog.Status, full bool, now time.Time) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(to, format, args...)
		}
	}
	for _, h := range st.Held {
		line("\n%s\n", h.Episode)
		line("  %s, held %s\n", paint.Paint(cmp.Or(asciiText(string(h.Reason)), "unknown"), terminal.Bad), cli.FormatAgo(h.HeldAt, now))
		line("  %s\n", asciiText(h.Cause))
		if h.Digest != nil {
			line("  local     %s\n", cli.ShortDigest(h.Digest.String(), full))
		}
		if h.Stored != nil {
			line("  receiver  %s\n", cli.ShortDigest(h.Stored.String(), full))
		}
		switch h.Reason {
		case outbox.Changed: // tried again as it is, it is held again
			line("  to also send it as it is now: shipper retry --keep-both %s\n", h.Episode)
			line("  to retire it as it is now, without sending it: shipper retry --accept %s\n", h.Episode)
		case outbox.Conflict:
			line("  once fixed: shipper retry %s\n", h.Episode)
			line("  to keep both copies: shipper retry --keep-both %s\n", h.Episode)
		default:
			if h.Reason.IsRetried() {
				line("  it is retried automatically; to retry now: shipper retry %s\n", h.Episode)
			} else {
				line("  once fixed: shipper retry %s\n", h.Episode)
			}
		}
	}
	for _, u := range st.Unshippable {
		line("\n%s: %s\n", paint.Paint("cannot be shipped", terminal.Bad), asciiText(u))
	}
	return err
}
