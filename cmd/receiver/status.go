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
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/scrub"
)

// statusCommand returns "receiver status".
func statusCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the running receiver, free space and last scrub",
		Long: `Status shows which process holds the lock, the id of the store, free space, the
progress of the background scrub, since when every archive has been verified and
how many hosts are disabled. It can run while the receiver runs. It is fast
however much is stored, and changes nothing.`,
		Example: "  receiver status\n  receiver status --json | jq .oldest_unread_seconds",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openDataDir(c)
			if err != nil {
				return err
			}
			now := time.Now()
			st, err := receiver.InspectStatus(cfg, now)
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
	fmt.Fprintf(w, "data\t%s\n", printable.Text(st.DataDir))
	fmt.Fprintf(w, "running\t%s\n", cli.DescribeHolder(printable.Text(st.Running), st.RunningUnknown, "receiver"))
	free := humanize.IBytes(uint64(st.FreeBytes))
	if st.FreeBytes == durable.UnknownSpace {
		free = "an unknown amount is"
	}
	fmt.Fprintf(w, "space\t%s free, %s kept free\n", free, humanize.IBytes(uint64(st.MinFree)))
	if st.FreeInodes != nil {
		fmt.Fprintf(w, "inodes\t%d free, %d kept free\n", *st.FreeInodes, st.MinFreeInodes)
	}
	fmt.Fprintf(w, "disk\t%s\n", cmp.Or(printable.Text(st.Disk), "unknown"))
	fmt.Fprintf(w, "quarantine\t%d copies\n", st.Quarantined)
	if t := st.TornTails; t.Count > 0 {
		fmt.Fprintf(w, "index\t%d torn tails were cut off and saved, the last as %s\n", t.Count, printable.Text(t.Last))
	}
	fmt.Fprintf(w, "store\t%s\n", storeLine(st.Store))
	disabled := "the disabled ones are unknown"
	if st.DisabledHosts != nil {
		disabled = fmt.Sprintf("%d disabled", *st.DisabledHosts)
	}
	fmt.Fprintf(w, "hosts\t%s\n", disabled)
	fmt.Fprintf(w, "scrub\t%s\n", scrubLine(st, now))
	fmt.Fprintf(w, "found\t%d damaged, %d unreadable, %d undecodable, %d missing by this scrub\n",
		st.Scrub.Damaged, st.Scrub.Unreadable, st.Scrub.Undecodable, st.Scrub.Missing)
	oldest := "never completed"
	if !st.Scrub.WholeSince.IsZero() {
		oldest = "everything was verified since " + st.Scrub.WholeSince.Format(time.DateTime) + " UTC, " +
			cli.FormatAgo(st.Scrub.WholeSince, now)
	}
	fmt.Fprintf(w, "oldest\t%s\n", oldest)
	if n := st.Scrub.HostsUnreadable; n > 0 {
		fmt.Fprintf(w, "problem\t%d hosts have a directory that cannot be listed: none of their archives was read\n", n)
	}
	if n := st.Scrub.NotOpened; n > 0 {
		fmt.Fprintf(w, "problem\tthis scrub could not open %d archives, and did not read them\n", n)
	}
	if n := st.Scrub.HostsUnfinished; n > 0 {
		fmt.Fprintf(w, "problem\t%d hosts sent archives faster than this scrub could list them\n", n)
	}
	if n := st.Scrub.Expanding; n > 0 {
		fmt.Fprintf(w, "expanding\t%d archives decode to more than %d times their size, and are decoded only once\n", n, scrub.MaxRatio)
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem\t%s\n", printable.Text(p))
	}
	return w.Flush()
}

func scrubLine(st receiver.Status, now time.Time) string {
	p := st.Scrub
	read := fmt.Sprintf("%d archives, %s", p.Objects, humanize.IBytes(uint64(max(p.Bytes, 0))))
	switch {
	case st.ScrubRate == 0:
		return "off (scrub.rate is 0)"
	case p.Started.IsZero():
		return "not started"
	case !p.Ended.IsZero():
		return "ended " + cli.FormatAgo(p.Ended, now) + ": " + read
	case p.Host == "":
		return "started " + cli.FormatAgo(p.Started, now)
	}
	return fmt.Sprintf("at %s/%s: %s", p.Host, p.Episode, read)
}
