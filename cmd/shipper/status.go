package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/printable"
	"cis490/internal/shipper"
	"cis490/internal/terminal"
)

func statusCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show waiting, failing and held episodes",
		Long: `Status shows which episodes are waiting, packed or held. It can run while the
shipper runs, and changes nothing. It exits with 3 if something is held.

Unfinished episodes have no done.marker yet; the one that has not changed for
longest is shown. "Last one finished" is the newest done.marker of all waiting
and shipped episodes. Failing episodes and the state of the receiver come from
.status.json in the outbox, which the shipper writes. If no shipper runs, the
age of that information is shown. A running shipper asks the receiver every few
minutes; 'shipper --ping' asks it now.

With --check it prints one line for a monitoring system and exits with 0 (fine),
1 (warning), 2 (critical) or 3 (unknown, also for misuse).`,
		Example: "  shipper status\n  shipper status --watch\n  shipper status --json | jq '.held[].cause'",
		Args:    cobra.NoArgs,
	}
	cli.AddFull(c, &o.full)
	cli.AddWatch(c, func(c *cobra.Command) (func(io.Writer) error, error) {
		cfg, err := o.openAsUser(c)
		paint := terminal.NewPainter(c.OutOrStdout())
		return func(w io.Writer) error { return o.showStatus(w, paint, cfg) }, err
	})
	cli.AddCheck(c, func(c *cobra.Command) (cli.MonitorResult, error) {
		st, err := o.inspectStatus(c)
		return checkStatus(st, time.Now()), err
	})
	return c
}

func (o *options) showStatus(w io.Writer, paint terminal.Painter, cfg shipper.Config) error {
	st, err := inspectStatus(cfg)
	if err != nil {
		return err
	}
	if o.json {
		err = cli.WriteJSON(w, st)
	} else {
		err = printStatus(w, paint, st, o.full, time.Now())
	}
	err = exitOf(st, err)
	if st.StoreProblem != "" { // a shipper would not start
		err = errors.Join(err, &cli.ExitError{Code: cli.Failed})
	}
	return err
}

// Ages from which a check warns, or is critical. A short outage resolves itself.
const (
	downLong     = 10 * time.Minute
	downVeryLong = time.Hour
	failingLong  = time.Hour
	idleLong     = 30 * time.Minute // for episodes that wait, if no shipper runs
	waitingLong  = 24 * time.Hour
)

// checkStatus is 'shipper status --check'.
func checkStatus(st backlog.Status, now time.Time) cli.MonitorResult {
	result := cli.MonitorResult{Service: "SHIPPER", Summary: fmt.Sprintf("%d shipped", st.Shipped), Values: []string{
		fmt.Sprintf("waiting=%d", st.Waiting+st.Sealed), fmt.Sprintf("held=%d", st.HeldTotal), fmt.Sprintf("failing=%d", st.FailingTotal),
		fmt.Sprintf("shipped=%d", st.Shipped), fmt.Sprintf("unfinished=%d", st.Unfinished),
	}}
	if st.FreeBytes != durable.UnknownSpace {
		result.Values = append(result.Values, fmt.Sprintf("free=%dB", st.FreeBytes))
	}
	waits := time.Duration(0)
	if !st.OldestWaiting.IsZero() {
		waits = now.Sub(st.OldestWaiting)
	}
	switch down := st.Receiver; {
	case st.StoreProblem != "":
		result.Add(cli.MonitorCritical, "%s", st.StoreProblem)
	case down != nil && st.ReceiverState == backlog.ReceiverDown && now.Sub(down.Since) > downVeryLong:
		result.Add(cli.MonitorCritical, "the receiver has accepted nothing since %s: %s", down.Since.UTC().Format(time.DateTime), down.Cause)
	case down != nil && st.ReceiverState == backlog.ReceiverDown && now.Sub(down.Since) > downLong:
		result.Add(cli.MonitorWarning, "the receiver has accepted nothing since %s: %s", down.Since.UTC().Format(time.DateTime), down.Cause)
	}
	switch {
	case waits > waitingLong:
		result.Add(cli.MonitorCritical, "an episode has been waiting since %s", st.OldestWaiting.UTC().Format(time.DateTime))
	case waits > idleLong && st.Running == "" && !st.RunningUnknown:
		result.Add(cli.MonitorWarning, "episodes wait, and no shipper runs")
	case len(st.Failing) > 0 && now.Sub(st.Failing[0].Since) > failingLong: // the first has failed longest
		result.Add(cli.MonitorWarning, "%d failing: %s", st.FailingTotal, st.Failing[0].Cause)
	}
	if st.FreeBytes < st.MinFree {
		result.Add(cli.MonitorCritical, "packing waits for space")
	}
	if st.HeldTotal > 0 {
		result.Add(cli.MonitorWarning, "%d held: see 'shipper held'", st.HeldTotal)
	}
	return result
}

// inspectStatus returns the status that 'status' and 'held' print.
func (o *options) inspectStatus(c *cobra.Command) (backlog.Status, error) {
	cfg, err := o.openAsUser(c)
	if err != nil {
		return backlog.Status{}, err
	}
	return inspectStatus(cfg)
}

func inspectStatus(cfg shipper.Config) (backlog.Status, error) {
	st, err := backlog.InspectStatus(cfg.Backlog())
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (the shipper creates its directories at its first start)", err)
	}
	return st, err
}

// exitOf gives 'status' and 'held' the same exit code, unless err is one.
func exitOf(st backlog.Status, err error) error {
	if err == nil && st.HeldTotal > 0 {
		return &cli.ExitError{Code: cli.SomeHeld}
	}
	return err
}

func printStatus(to io.Writer, paint terminal.Painter, st backlog.Status, full bool, now time.Time) error {
	if err := printStatusRows(to, paint, st, now); err != nil {
		return err
	}
	if st.StoreProblem != "" {
		fmt.Fprintf(to, "\n%s\n%s", paint.Paint("problem", terminal.Bad), wrapText(st.StoreProblem))
	}
	if err := printOldest(to, st, now); err != nil {
		return err
	}
	if err := printFailing(to, paint, st, now); err != nil {
		return err
	}
	if err := printHeld(to, paint, st, full, now); err != nil {
		return err
	}
	return printStrays(to, st)
}

func printStatusRows(to io.Writer, paint terminal.Painter, st backlog.Status, now time.Time) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "host\t%s\n", st.Host)
	fmt.Fprintf(w, "running\t%s\n", cli.DescribeHolder(paint, terminal.Fair, asciiText(st.Running), st.RunningUnknown, "shipper"))
	fmt.Fprintf(w, "receiver\t%s\n", receiverLine(paint, st, now))
	fmt.Fprintf(w, "store\t%s\n", describeStore(st))
	fmt.Fprintf(w, "unfinished\t%s\n", describeUnfinished(st, now))
	settling := ""
	if st.Settling > 0 {
		settling = fmt.Sprintf(" (%d settling)", st.Settling)
	}
	fmt.Fprintf(w, "waiting\t%d to be packed, %d to be sent%s\n", st.Waiting, st.Sealed, settling)
	fmt.Fprintf(w, "outbox\t%s to be sent\n", humanize.IBytes(uint64(st.SealedBytes)))
	fmt.Fprintf(w, "shipped\t%d in the shipped directory%s\n", st.Shipped, describeChanges(st.Changed, now))
	if st.Discarded > 0 {
		fmt.Fprintf(w, "deleting\t%d in the trash: 'shipper prune' completes an interrupted deletion\n", st.Discarded)
	}
	fmt.Fprintf(w, "space\t%s free, %s kept free\n", humanize.IBytes(uint64(st.FreeBytes)), humanize.IBytes(uint64(st.MinFree)))
	fmt.Fprintf(w, "failing\t%s\n", failingLine(st, now))
	fmt.Fprintf(w, "held\t%d\n", st.HeldTotal)
	if err := w.Flush(); err != nil {
		return err
	}
	colors := map[string]terminal.Color{}
	if st.FailingTotal > 0 {
		colors["failing"] = terminal.Fair
	}
	if st.HeldTotal > 0 {
		colors["held"] = terminal.Bad
	}
	_, err := io.WriteString(to, paint.PaintFirstWords(b.String(), colors))
	return err
}

// describeUnfinished describes how many episodes have no marker, and when the last one finished.
func describeUnfinished(st backlog.Status, now time.Time) string {
	text := strconv.Itoa(st.Unfinished)
	if st.LastFinished.IsZero() {
		return text + ", no finished episode here"
	}
	return text + ", the last one finished " + cli.FormatAgo(st.LastFinished, now)
}

// describeStore describes the store that has this host's episodes.
func describeStore(st backlog.Status) string {
	s := st.Store
	if st.StoreProblem != "" {
		return "cannot be read, see below"
	}
	if s == nil {
		return "none adopted: the first receipt names it"
	}
	return fmt.Sprintf("%s, index %d bytes at least", asciiText(s.ID), s.IndexBytes)
}

// describeChanges describes how many retired episodes were found to have changed, and when.
func describeChanges(c backlog.Changes, now time.Time) string {
	if c.Count == 0 {
		return ""
	}
	noted := cli.FormatAgo(c.Newest, now)
	if oldest := cli.FormatAgo(c.Oldest, now); oldest != noted {
		noted = oldest + " to " + noted
	}
	return fmt.Sprintf(", %d changed since (noted %s): see 'shipper verify'", c.Count, noted)
}

// asciiText returns untrusted text in printable ASCII. Printable text may already be escaped
// and is returned as it is.
func asciiText(s string) string { return printable.Text(s) }

// maxShown is the maximum number of entries that never ship in a table.
const maxShown = 10

// printOldest shows the unfinished episode that has not changed for longest.
func printOldest(to io.Writer, st backlog.Status, now time.Time) error {
	if st.Oldest == nil {
		return nil
	}
	_, err := fmt.Fprintf(to, "\n%s\n  unfinished; a name in it last changed %s\n",
		asciiText(st.Oldest.Entry), cli.FormatAgo(st.Oldest.ChangedAt, now))
	return err
}

// printStrays shows the entries of the episodes directory that never ship.
func printStrays(to io.Writer, st backlog.Status) error {
	var b strings.Builder
	for i, s := range st.Strays {
		if i == maxShown {
			break
		}
		fmt.Fprintf(&b, "\n%s\n%s", asciiText(s.Entry), wrapText(s.Reason))
	}
	if more := st.StraysTotal - maxShown; more > 0 {
		fmt.Fprintf(&b, "\nand %d more that never ship: see --json\n", more)
	}
	_, err := io.WriteString(to, b.String())
	return err
}
