package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/episode"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
)

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what waits and what is held, and why",
		Long: `Status reads the folders and says what waits, what is packed and what is held.
It works beside a running shipper and changes nothing. It exits with 3 if
something is held.

Unfinished folders have no done.marker yet; of the oldest, no name in it has
changed for longest. The last one finished is what got its marker here last, of
all that waits or is in the shipped folder. What fails, and whether the receiver
takes anything, is what a running shipper notes in .status.json in the outbox,
or what the last one did: then it is said how old that is. A running shipper
asks the receiver every few minutes; 'shipper --ping' asks it now.`,
		Example: "  shipper status\n  shipper status --json | jq '.held[].cause'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.open(c)
			if err != nil {
				return err
			}
			st, err := inspect(cfg)
			if err != nil {
				return err
			}
			if o.json {
				err = cli.WriteJSON(c.OutOrStdout(), st)
			} else {
				err = printStatus(c.OutOrStdout(), st, time.Now())
			}
			return errors.Join(exitOf(st, err), exitOfStore(st))
		},
	}
}

// inspect is what 'status' and 'held' look at.
func inspect(cfg shipper.Config) (shipper.Status, error) {
	st, err := shipper.Inspect(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (the shipper makes its folders at its first start)", err)
	}
	return st, err
}

// exitOf gives 'status' and 'held' the same exit code, unless err is one.
func exitOf(st shipper.Status, err error) error {
	if err == nil && st.HeldTotal > 0 {
		return &cli.Exit{Code: cli.SomeHeld}
	}
	return err
}

// exitOfStore is the exit code of a status that says that a shipper would not start.
func exitOfStore(st shipper.Status) error {
	if st.StoreProblem == "" {
		return nil
	}
	return &cli.Exit{Code: cli.Failed}
}

func printStatus(to io.Writer, st shipper.Status, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "host\t%s\n", st.Host)
	fmt.Fprintf(w, "running\t%s\n", running(st.Running, st.RunningUnknown))
	fmt.Fprintf(w, "receiver\t%s\n", receiverLine(st, now))
	fmt.Fprintf(w, "store\t%s\n", adopted(st))
	fmt.Fprintf(w, "unfinished\t%s\n", unfinished(st, now))
	fmt.Fprintf(w, "waiting\t%d to be packed, %d to be sent%s\n", st.Waiting, st.Sealed, settling(st.Settling))
	fmt.Fprintf(w, "outbox\t%s to be sent\n", humanize.IBytes(uint64(st.SealedBytes)))
	fmt.Fprintf(w, "shipped\t%d in the shipped folder%s\n", st.Shipped, changes(st.Changed, now))
	if st.Discarded > 0 {
		fmt.Fprintf(w, "deleting\t%d in the trash: 'shipper prune' ends what was interrupted\n", st.Discarded)
	}
	fmt.Fprintf(w, "space\t%s free, %s kept free\n", humanize.IBytes(uint64(st.FreeBytes)), humanize.IBytes(uint64(st.MinFree)))
	fmt.Fprintf(w, "failing\t%s\n", failingLine(st, now))
	fmt.Fprintf(w, "held\t%d\n", st.HeldTotal)
	if err := w.Flush(); err != nil {
		return err
	}
	if st.StoreProblem != "" {
		fmt.Fprintf(to, "\nproblem\n%s", wrapText(st.StoreProblem))
	}
	if err := printOldest(to, st, now); err != nil {
		return err
	}
	if err := printFailing(to, st, now); err != nil {
		return err
	}
	if err := printHeld(to, st, now); err != nil {
		return err
	}
	return printStrays(to, st)
}

// unfinished says how many folders have no marker, and since when nothing was finished.
func unfinished(st shipper.Status, now time.Time) string {
	text := strconv.Itoa(st.Unfinished)
	if st.LastFinished.IsZero() {
		return text + ", nothing finished that is still here"
	}
	return text + ", the last one finished " + cli.Ago(st.LastFinished, now)
}

// adopted says which store of the receiver's has this host's episodes.
func adopted(st shipper.Status) string {
	s := st.Store
	if st.StoreProblem != "" {
		return "cannot be read, see below"
	}
	if s == nil {
		return "none adopted: the first receipt names it"
	}
	return fmt.Sprintf("%s, index %d bytes at least", ascii(s.ID), s.IndexBytes)
}

// settling says how many of those that wait have changed too recently to be packed.
func settling(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d settling)", n)
}

// running says which process holds the state directory.
func running(holder string, unknown bool) string {
	if unknown {
		return "cannot tell: only the shipper's user and root may look at the lock"
	}
	return cmp.Or(ascii(holder), "no")
}

// changes says how many retired episodes were found to have changed, and how old that
// news is.
func changes(c shipper.Changes, now time.Time) string {
	if c.Count == 0 {
		return ""
	}
	noted := cli.Ago(c.Newest, now)
	if oldest := cli.Ago(c.Oldest, now); oldest != noted {
		noted = oldest + " to " + noted
	}
	return fmt.Sprintf(", %d changed since (noted %s): see 'shipper verify'", c.Count, noted)
}

// ascii shows what somebody else may have written. What is printable already
// may have been escaped before, and is left as it is.
func ascii(s string) string { return episode.Printable(s) }

func retryCommand(o *options) *cobra.Command {
	var accept, beside bool
	c := &cobra.Command{
		Use:   "retry EPISODE...",
		Short: "Let held episodes be tried again",
		Long: `Retry takes the hold off episodes, beside a running shipper, which tries them
with its next scan. With --accept, an episode that was changed after it was
packed is retired as it is now, once the receiver says again that it has what
was packed. With --beside, an episode that is held for a conflict, or because
it was changed, is packed and sent under a name of its own,
EPISODE.conflict-SHA8, beside the copy that the receiver has: nothing is
replaced. It exits with 4 if the receiver must be asked what it has and cannot
be reached.`,
		Example: "  shipper retry run-7\n  shipper retry --accept run-7\n  shipper retry --beside run-7",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, up, err := o.openToAsk(c, beside)
			if err != nil {
				return err
			}
			var errs []error
			for _, arg := range args {
				name, err := episode.ParseName(arg)
				if err != nil {
					errs = append(errs, cli.UsageError(err), o.printMoved(c, moved{Episode: arg}, err, ""))
					continue
				}
				as, err := retry(c.Context(), cfg, up, name, accept, beside)
				errs = append(errs, err, o.printMoved(c, moved{Episode: arg, Again: err == nil, As: as}, err, "tried again"))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&accept, "accept", false, "retire the episode as it is now, although it was changed")
	c.Flags().BoolVar(&beside, "beside", false, "send it under another name, beside the receiver's copy")
	c.MarkFlagsMutuallyExclusive("accept", "beside")
	return c
}

// retry returns the name under which the episode goes, if it is another.
func retry(ctx context.Context, cfg shipper.Config, client uplink.InventoryClient, name episode.Name, accept, beside bool) (string, error) {
	as := ""
	var err error
	if beside {
		var other episode.Name
		other, err = shipped.KeepBoth(ctx, cfg.Dirs(), name, client)
		as = string(other)
	} else {
		err = shipped.Release(cfg.Dirs(), name, accept)
	}
	if _, unreachable := errors.AsType[*uplink.UnreachableError](err); !unreachable && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s is not held: see 'shipper status'", name)
	}
	return as, auditError(cfg, err)
}
