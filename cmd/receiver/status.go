package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
	"cis490/internal/notify"
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
	"cis490/internal/terminal"
)

// statusCommand returns "receiver status".
func statusCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the running receiver, free space and last scrub",
		Long: `Status shows which process holds the lock, the id of the store, free space, the
progress of the background scrub, since when every archive has been verified and
how many hosts are disabled, and what the others report. It can run while the
receiver runs. It is fast however much is stored, and changes nothing.

With --check it prints one line about the receiver for a monitoring system and
exits with 0 (fine), 1 (warning), 2 (critical) or 3 (unknown, also for misuse).
'receiver hosts --check' does so for the hosts.`,
		Example: "  receiver status\n  receiver status --watch\n  receiver status --json | jq .oldest_unread_seconds",
		Args:    cobra.NoArgs,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cli.AddWatch(c, func(c *cobra.Command) (func(io.Writer) error, error) {
		cfg, err := o.openDataDir(c)
		paint := terminal.NewPainter(c.OutOrStdout())
		return func(w io.Writer) error {
			now := time.Now()
			st, err := inspectStatus(cfg, now)
			if err != nil {
				return err
			}
			if asJSON {
				return cli.WriteJSON(w, st)
			}
			return printState(w, paint, st, now)
		}, err
	})
	cli.AddCheck(c, func(c *cobra.Command) (cli.MonitorResult, error) {
		cfg, err := o.openDataDir(c)
		if err != nil {
			return cli.MonitorResult{}, err
		}
		st, err := inspectStatus(cfg, time.Now())
		if err != nil {
			return cli.MonitorResult{}, err
		}
		return checkStatus(st)
	})
	return c
}

// statusFacts are the state of the receiver, and a summary of its hosts.
type statusFacts struct {
	diskbackend.Status
	Bucket *s3backend.Status   `json:"bucket,omitempty"` // nil with a store on a disk
	Hosts  *hosts.Summary      `json:"hosts,omitempty"`  // nil if they cannot be listed
	Hooks  []notify.QueueState `json:"hooks,omitempty"`
}

func inspectStatus(cfg receiver.Config, now time.Time) (statusFacts, error) {
	st, b, err := inspectStore(cfg, nil, now)
	facts := statusFacts{Status: st, Bucket: b}
	if err != nil {
		return facts, err
	}
	facts.Hooks = notify.Inspect(cfg.Hooks, string(cfg.DataDir))
	if list, _, err := listHosts(cfg, now); err == nil {
		summary := hosts.Summarize(list)
		facts.Hosts = &summary
	}
	return facts, nil
}

func describeSummary(paint terminal.Painter, s hosts.Summary) string {
	text := fmt.Sprintf("%d active", s.Active)
	if s.Critical > 0 {
		text += ", " + paint.Paint(fmt.Sprintf("%d critical", s.Critical), terminal.Bad)
	}
	if s.Warning > 0 {
		text += ", " + paint.Paint(fmt.Sprintf("%d with warnings", s.Warning), terminal.Fair)
	}
	text += fmt.Sprintf("; %d waiting, %d held there", s.Waiting, s.Held)
	if s.Critical+s.Warning > 0 {
		text += ": see 'receiver hosts'"
	}
	return text
}

// performanceData returns the counts for a monitoring system.
func performanceData(s hosts.Summary) []string {
	return []string{
		fmt.Sprintf("hosts=%d", s.Active), fmt.Sprintf("warning=%d", s.Warning), fmt.Sprintf("critical=%d", s.Critical),
		fmt.Sprintf("stored=%d", s.Stored), fmt.Sprintf("waiting=%d", s.Waiting), fmt.Sprintf("held=%d", s.Held),
	}
}

// checkStatus is 'receiver status --check'. It judges the receiver itself: 'receiver hosts --check' judges
// the hosts.
func checkStatus(st statusFacts) (cli.MonitorResult, error) {
	result := cli.MonitorResult{Service: "RECEIVER", Summary: "running"}
	if st.Bucket == nil || st.Bucket.Quarantined != nil {
		result.Values = append(result.Values, fmt.Sprintf("quarantine=%d", st.Quarantined))
	}
	if st.Bucket == nil || st.Bucket.Scrub != nil {
		result.Values = append(result.Values, fmt.Sprintf("damaged=%d", st.Scrub.Damaged))
	}
	if st.FreeBytes != durable.UnknownSpace {
		result.Values = append(result.Values, fmt.Sprintf("free=%dB", st.FreeBytes))
	}
	if st.RunningUnknown {
		return result, errors.New("only root and the receiver's user can see whether it runs: run this as cis490")
	}
	if st.Running == "" {
		result.Add(cli.MonitorCritical, "not running")
	}
	for _, p := range st.Problems {
		result.Add(cli.MonitorCritical, "%s", p)
	}
	if n := st.Scrub.Damaged + st.Scrub.Missing; n > 0 {
		result.Add(cli.MonitorCritical, "the scrub found %s damaged or missing", cli.FormatCount(n, "archive"))
	}
	switch left := fleet.FromHours(st.FullInHours); fleet.ForecastSeverity(left) {
	case fleet.Critical:
		result.Add(cli.MonitorCritical, "the disk is full in %s", fleet.FormatTime(left))
	case fleet.Warning:
		result.Add(cli.MonitorWarning, "the disk is full in %s", fleet.FormatTime(left))
	}
	if n := st.Quarantined; n > 0 {
		result.Add(cli.MonitorWarning, "%d %s in quarantine", n, quarantinedThings(st.Bucket))
	}
	if n := st.Scrub.Unreadable + st.Scrub.Undecodable; n > 0 {
		result.Add(cli.MonitorWarning, "the scrub could not read or decode %s", cli.FormatCount(n, "archive"))
	}
	if n := st.Scrub.LostBatches(); n > 0 {
		result.Add(cli.MonitorCritical, "the scrub could not read %s of the index", cli.FormatCount(n, "batch"))
	}
	if st.Hosts != nil {
		result.Values = append(result.Values, performanceData(*st.Hosts)...)
	}
	return result, nil
}

func printState(to io.Writer, paint terminal.Painter, st statusFacts, now time.Time) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	printStateRows(w, paint, st, now)
	printFoundRows(w, st)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(to, paint.PaintFirstWords(b.String(), map[string]terminal.Color{"problem": terminal.Bad}))
	return err
}

func printStateRows(w io.Writer, paint terminal.Painter, st statusFacts, now time.Time) {
	fmt.Fprintf(w, "data\t%s\n", printable.Text(st.DataDir))
	fmt.Fprintf(w, "running\t%s\n", cli.DescribeHolder(paint, terminal.Bad, printable.Text(st.Running), st.RunningUnknown, "receiver"))
	free := humanize.IBytes(uint64(st.FreeBytes))
	if st.FreeBytes == durable.UnknownSpace {
		free = "an unknown amount is"
	}
	full := ""
	if st.FullInHours != nil {
		full = ", full in about " + fleet.FormatTime(fleet.FromHours(st.FullInHours))
	}
	fmt.Fprintf(w, "space\t%s free, %s kept free%s\n", free, humanize.IBytes(uint64(st.MinFree)), full)
	if st.FreeInodes != nil {
		fmt.Fprintf(w, "inodes\t%d free, %d kept free\n", *st.FreeInodes, st.MinFreeInodes)
	}
	if st.Bucket != nil {
		store := ""
		if st.Store != nil {
			store = st.Store.ID
		}
		printBucketRows(w, *st.Bucket, store, now)
	} else {
		fmt.Fprintf(w, "disk\t%s\n", cmp.Or(printable.Text(st.Disk), unknown))
		fmt.Fprintf(w, "quarantine\t%d copies\n", st.Quarantined)
	}
	if t := st.TornTails; t.Count > 0 {
		fmt.Fprintf(w, "index\t%d torn tails were cut off and saved, the last as %s\n", t.Count, printable.Text(t.Last))
	}
	if st.Bucket == nil {
		fmt.Fprintf(w, "store\t%s\n", storeLine(st.Store))
	}
	disabled := "the disabled ones are unknown"
	if st.DisabledHosts != nil {
		disabled = fmt.Sprintf("%d disabled", *st.DisabledHosts)
	}
	fmt.Fprintf(w, "hosts\t%s\n", disabled)
	if st.Hosts != nil && st.Hosts.Active > 0 {
		fmt.Fprintf(w, "reports\t%s\n", describeSummary(paint, *st.Hosts))
	}
	for _, q := range st.Hooks {
		fmt.Fprintf(w, "hook\t%s\n", describeHook(q, now))
	}
	printScrubRows(w, st, now)
}

// printScrubRows prints how far the scrub is, and what it has found.
func printScrubRows(w io.Writer, st statusFacts, now time.Time) {
	if st.Bucket != nil && st.Bucket.Scrub == nil {
		fmt.Fprintf(w, "scrub\t%s\n", unknown)
		return
	}
	fmt.Fprintf(w, "scrub\t%s\n", scrubLine(st.Status, now))
	fmt.Fprintf(w, "found\t%d damaged, %d unreadable, %d undecodable, %d missing by this scrub\n",
		st.Scrub.Damaged, st.Scrub.Unreadable, st.Scrub.Undecodable, st.Scrub.Missing)
	oldest := "never completed"
	if !st.Scrub.WholeSince.IsZero() {
		oldest = "everything was verified since " + st.Scrub.WholeSince.Format(time.DateTime) + " UTC, " +
			cli.FormatAgo(st.Scrub.WholeSince, now)
	}
	fmt.Fprintf(w, "oldest\t%s\n", oldest)
}

// quarantinedThings says what is counted as quarantined.
func quarantinedThings(b *s3backend.Status) string {
	if b != nil {
		return "archives"
	}
	return "files"
}

func describeHook(q notify.QueueState, now time.Time) string {
	text := fmt.Sprintf("%s: %d queued", q.Queue, q.Queued)
	if !q.Oldest.IsZero() {
		text += ", the oldest " + cli.FormatAgo(q.Oldest, now)
	}
	if q.Error != "" {
		text += "; " + describeQueue(q, now)
	}
	return text
}

// printFoundRows prints what is wrong.
func printFoundRows(w io.Writer, st statusFacts) {
	if n := st.Scrub.HostsUnreadable; n > 0 {
		fmt.Fprintf(w, "problem\t%s a directory that cannot be listed: no archive of it was read\n", cli.FormatCountWith(n, "host", "has", "have"))
	}
	if n := st.Scrub.NotOpened; n > 0 {
		fmt.Fprintf(w, "problem\tthis scrub could not open %s, and did not read them\n", cli.FormatCount(n, "archive"))
	}
	if n := st.Scrub.HostsUnfinished; n > 0 {
		fmt.Fprintf(w, "problem\t%s sent archives faster than this scrub could list them\n", cli.FormatCount(n, "host"))
	}
	if n := st.Scrub.Expanding; n > 0 {
		fmt.Fprintf(w, "expanding\t%s to more than %d times the size, which is done only once\n", cli.FormatCountWith(n, "archive", "decodes", "decode"), scrub.MaxRatio)
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "problem\t%s\n", printable.Text(p))
	}
}

func scrubLine(st diskbackend.Status, now time.Time) string {
	p := st.Scrub
	read := fmt.Sprintf("%s, %s", cli.FormatCount(p.Objects, "archive"), humanize.IBytes(uint64(max(p.Bytes, 0))))
	switch {
	case st.ScrubRate == 0:
		return "off (scrub.rate is 0)"
	case p.Started.IsZero():
		return "not started"
	case !p.Ended.IsZero():
		return "ended " + cli.FormatAgo(p.Ended, now) + ": " + read
	case p.Host == "" && p.Objects > 0: // of a bucket
		return "started " + cli.FormatAgo(p.Started, now) + ": " + read
	case p.Host == "":
		return "started " + cli.FormatAgo(p.Started, now)
	}
	return fmt.Sprintf("at %s/%s: %s", p.Host, p.Episode, read)
}
