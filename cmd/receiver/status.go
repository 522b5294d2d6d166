package main

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/receiver"
	"cis490/internal/scrub"
)

// statusCommand returns "receiver status".
func statusCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether a receiver runs, space and last scrub",
		Long: `Status says who has the data directory, which store this is, how much space
there is, how far the background scrub has come, how long ago the oldest reading
of an archive may lie and how many hosts are disabled. It works beside the
receiver, walks through nothing and changes nothing.`,
		Example: "  receiver status\n  receiver status --json | jq .oldest_unread_seconds",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openDataDir(c)
			if err != nil {
				return err
			}
			now := time.Now()
			st, err := receiver.Inspect(cfg, now)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.WriteJSON(c.OutOrStdout(), st)
			}
			return printState(c.OutOrStdout(), st, now)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printState(to io.Writer, st receiver.Status, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "data\t%s\n", printable(st.DataDir))
	fmt.Fprintf(w, "running\t%s\n", running(st.Running, st.RunningUnknown))
	free := humanize.IBytes(uint64(st.FreeBytes))
	if st.FreeBytes == durable.UnknownSpace {
		free = "not known how much is"
	}
	fmt.Fprintf(w, "space\t%s free, %s kept free\n", free, humanize.IBytes(uint64(st.MinFree)))
	if st.FreeInodes != nil {
		fmt.Fprintf(w, "inodes\t%d free, %d kept free\n", *st.FreeInodes, st.MinFreeInodes)
	}
	fmt.Fprintf(w, "disk\t%s\n", cmp.Or(printable(st.Disk), "not known yet"))
	fmt.Fprintf(w, "quarantine\t%d copies\n", st.Quarantined)
	if t := st.TornTails; t.Count > 0 {
		fmt.Fprintf(w, "index\t%d torn ends were cut and saved, the last as %s\n", t.Count, printable(t.Last))
	}
	fmt.Fprintf(w, "store\t%s\n", storeLine(st.Store))
	fmt.Fprintf(w, "hosts\t%s\n", disabledLine(st))
	fmt.Fprintf(w, "scrub\t%s\n", scrubLine(st, now))
	fmt.Fprintf(w, "found\t%d damaged, %d unreadable, %d undecodable, %d missing by this scrub\n",
		st.Scrub.Damaged, st.Scrub.Unreadable, st.Scrub.Undecodable, st.Scrub.Missing)
	oldest := "never read to the end"
	if !st.Scrub.WholeSince.IsZero() {
		oldest = "everything was read back since " + st.Scrub.WholeSince.Format(time.DateTime) + " UTC, " +
			cli.Ago(st.Scrub.WholeSince, now)
	}
	fmt.Fprintf(w, "oldest\t%s\n", oldest)
	if n := st.Scrub.HostsUnreadable; n > 0 {
		fmt.Fprintf(w, "problem\t%d hosts have a folder that cannot be listed, and none of their archives was read\n", n)
	}
	if n := st.Scrub.NotOpened; n > 0 {
		fmt.Fprintf(w, "problem\t%d archives could not be opened by this scrub, and were not read\n", n)
	}
	if n := st.Scrub.HostsUnfinished; n > 0 {
		fmt.Fprintf(w, "problem\t%d hosts sent archives faster than this scrub passed over them\n", n)
	}
	if n := st.Scrub.Expanding; n > 0 {
		fmt.Fprintf(w, "expanding\t%d archives decode to more than %d times their size, and are decoded once only\n", n, scrub.MaxRatio)
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem\t%s\n", printable(p))
	}
	return w.Flush()
}

func disabledLine(st receiver.Status) string {
	if st.DisabledHosts == nil {
		return "cannot tell which are disabled"
	}
	return fmt.Sprintf("%d disabled", *st.DisabledHosts)
}

// running says which process holds the data directory.
func running(holder string, unknown bool) string {
	if unknown {
		return "cannot tell: only the receiver's user and root may look at the lock"
	}
	return cmp.Or(printable(holder), "no")
}

func scrubLine(st receiver.Status, now time.Time) string {
	p := st.Scrub
	read := fmt.Sprintf("%d archives, %s", p.Objects, humanize.IBytes(uint64(max(p.Bytes, 0))))
	switch {
	case st.ScrubRate == 0:
		return "off (scrub.rate is 0)"
	case p.Started.IsZero():
		return "not begun"
	case !p.Ended.IsZero():
		return "ended " + cli.Ago(p.Ended, now) + ": " + read
	case p.Host == "":
		return "begun " + cli.Ago(p.Started, now)
	}
	return fmt.Sprintf("at %s/%s: %s", p.Host, p.Episode, read)
}
