package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fleet"
	"cis490/internal/hosts"
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/terminal"
)

// hostsCommand returns "receiver hosts".
func hostsCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "hosts",
		Short: "List, disable, enable and remove hosts",
		Long: `Hosts lists the hosts that are invited, have joined, have stored archives or are
disabled. A host is "expired" if all its certificates that are known here have
expired. Shippers report every few minutes what waits and what is held there
("-": it has not). Below the table is what needs an operator. The last
contact may have been up to 10 minutes later than shown.

With --check it prints one line for a monitoring system and exits with 0 (fine),
1 (warning), 2 (critical) or 3 (unknown, also for misuse).
During a rotation of the CAs it also lists the hosts that are not ready for
'receiver pki rotate --finish'.

A disabled host is refused, whatever its certificate, without a reload. The list
is disabled-hosts.json in data_dir, or is in the bucket of several receivers.`,
		Example: `  receiver hosts
  receiver hosts --watch
  receiver hosts disable lab-07
  receiver hosts --json | jq -r 'select(.state=="disabled").host_id'`,
		Args: cobra.NoArgs,
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	cli.AddWatch(c, func(c *cobra.Command) (func(io.Writer) error, error) {
		cfg, err := o.openHosts(c)
		paint := terminal.NewPainter(c.OutOrStdout())
		return func(w io.Writer) error { return showHosts(w, paint, cfg, asJSON) }, err
	})
	cli.AddCheck(c, func(c *cobra.Command) (cli.MonitorResult, error) {
		cfg, err := o.openHosts(c)
		if err != nil {
			return cli.MonitorResult{}, err
		}
		return checkHosts(cfg, time.Now())
	})
	c.AddCommand(disableCommand(o), enableCommand(o), removeCommand(o))
	return c
}

func disableCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "disable NAME...",
		Short: "Refuse hosts immediately",
		Long: `Disable refuses hosts from their next request on. A running receiver also
cancels their requests in flight within a second, and all receivers that share a
bucket within five. Stored archives stay. Hosts stay disabled, also across
restarts, until 'receiver hosts enable'. Disabling a host again changes nothing,
and a host that is not known yet can be disabled.`,
		Example: `  receiver hosts disable lab-07
  receiver hosts disable lab-07 lab-08`,
		Args: hostNames, ValidArgsFunction: cli.CompleteNames(false, o.findHosts),
		RunE: func(c *cobra.Command, args []string) error {
			return changeHosts(c, o, args, func(list hostList, names []episode.Name) ([]datadir.HostChange, error) {
				return list.Disable(c.Context(), names, time.Now())
			})
		},
	})
}

func enableCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "enable NAME...",
		Short: "Serve disabled hosts again",
		Long: `Enable serves disabled hosts again, from their next request on. A certificate
that was revoked or has expired is still refused.`,
		Example: `  receiver hosts enable lab-07`,
		Args:    hostNames, ValidArgsFunction: cli.CompleteFrom(false, o.findDisabled),
		RunE: func(c *cobra.Command, args []string) error {
			return changeHosts(c, o, args, func(list hostList, names []episode.Name) ([]datadir.HostChange, error) {
				changes, err := list.Enable(c.Context(), names)
				return changes, errors.Join(err, checkEnabled(changes))
			})
		},
	})
}

// withJSON adds --json to a command that changes hosts.
func withJSON(c *cobra.Command) *cobra.Command {
	addJSON(c, printsObjects)
	return c
}

// checkEnabled returns an error for each host that was removed, and so not enabled.
func checkEnabled(changes []datadir.HostChange) error {
	var errs []error
	for _, h := range changes {
		if h.State == datadir.HostRemoved {
			errs = append(errs, fmt.Errorf("host %s was removed: it can only join again, with 'receiver invite %s --again'", h.Host, h.Host))
		}
	}
	return errors.Join(errs...)
}

func removeCommand(o *options) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "remove NAME...",
		Short: "Refuse hosts until they join again",
		Long: `Remove refuses hosts as 'receiver hosts disable' does, and for good: none of their
certificates is accepted again, and enable does not revert it. Stored archives
stay. To use a name for another machine, or again, invite it:
'receiver invite NAME --again'.`,
		Example: `  receiver hosts remove lab-07`,
		Args:    hostNames, ValidArgsFunction: cli.CompleteNames(false, o.findHosts),
		RunE: func(c *cobra.Command, args []string) error {
			return changeHosts(c, o, args, func(list hostList, names []episode.Name) ([]datadir.HostChange, error) {
				changes, err := list.Remove(c.Context(), names, time.Now())
				return changes, errors.Join(err, list.forgetReports(c.Context(), names, err))
			})
		},
	})
}

// hostNames checks that the arguments are at least one name of a host.
func hostNames(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("requires at least one host")
	}
	for _, arg := range args {
		if _, err := episode.ParseName(arg); err != nil {
			return err
		}
	}
	return nil
}

// openDataDir is open for a command whose duration must not grow with what is stored.
func (o *options) openDataDir(c *cobra.Command) (receiver.Config, error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return cfg, err
	}
	state := stateOf(cfg)
	state.Layout = receiver.Layout(false)
	return cfg, cli.BecomeServiceUser(c, state)
}

// openHosts is openDataDir for a command that lists hosts.
func (o *options) openHosts(c *cobra.Command) (receiver.Config, error) {
	cfg, err := o.openDataDir(c)
	if err == nil {
		err = restoreList(c, cfg)
	}
	return cfg, err
}

func explainNoDataDir(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (the receiver creates it at its first start)", err)
	}
	return err
}

func changeHosts(c *cobra.Command, o *options, args []string, change func(hostList, []episode.Name) ([]datadir.HostChange, error)) error {
	cfg, err := o.openDataDir(c)
	if err != nil {
		return err
	}
	if err := cfg.CheckStoreKind(); err != nil {
		return cli.UsageError(err) // no receiver uses that list
	}
	if err := restoreList(c, cfg); err != nil {
		return err
	}
	list, err := openHostList(c, cfg)
	if err != nil {
		return err
	}
	names := make([]episode.Name, len(args))
	for i, arg := range args {
		names[i] = episode.Name(arg) // hostNames has checked it
	}
	changes, err := change(list, names)
	if err != nil {
		return explainNoDataDir(err)
	}
	for _, h := range changes {
		noteUnknown(c, cfg, h)
		if asksJSON(c) {
			err = errors.Join(err, cli.WriteJSON(c.OutOrStdout(), h))
		} else {
			err = errors.Join(err, printChange(c.OutOrStdout(), h))
		}
	}
	return err
}

// noteUnknown prints a note if nothing is known about a host, because its name may be misspelled.
func noteUnknown(c *cobra.Command, cfg receiver.Config, h datadir.HostChange) {
	dirs := hostDirs(cfg)
	unexpected := h.Changed != (h.State == datadir.HostActive) // just disabled or removed, or enabled without having been disabled
	if !h.Known && unexpected && !slices.Contains(cli.FindNames(string(h.Host), dirs...), string(h.Host)) {
		cli.Note(c, "host %s has stored nothing here yet; %s", h.Host, suggestHost(string(h.Host), dirs))
	}
}

// printChange prints what changed for a host.
func printChange(out io.Writer, h datadir.HostChange) error {
	switch {
	case h.State == datadir.HostRemoved && h.Changed:
		return printf(out, "%s: removed\n", h.Host)
	case h.State == datadir.HostRemoved:
		return printf(out, "%s: already removed, since %s\n", h.Host, timeOf(h.Since))
	case h.State == datadir.HostDisabled && h.Changed:
		return printf(out, "%s: disabled\n", h.Host)
	case h.State == datadir.HostDisabled:
		return printf(out, "%s: already disabled, since %s\n", h.Host, timeOf(h.Since))
	case h.Changed:
		return printf(out, "%s: enabled, was disabled since %s\n", h.Host, timeOf(h.Since))
	}
	return printf(out, "%s: was not disabled\n", h.Host)
}

func timeOf(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// listHosts lists the hosts of a receiver: see [hosts.List].
func listHosts(cfg receiver.Config, now time.Time) ([]hosts.Host, fleet.Moment, error) {
	return listHostsAgain(cfg, nil, now)
}

// listHostsAgain is listHosts for a daemon, which keeps what it read of the certificates on record.
func listHostsAgain(cfg receiver.Config, records *revocation.RecordCache, now time.Time) ([]hosts.Host, fleet.Moment, error) {
	list, at, err := hosts.List(hosts.Sources{
		DataDir: string(cfg.DataDir), CADir: filepath.Dir(string(cfg.TLS.ClientCAFile)), IdentityDir: string(cfg.IdentityDir),
		Records: records, Shared: cfg.Store.Kind == receiver.StoreOnS3,
	}, now)
	return list, at, explainNoDataDir(err)
}

func showHosts(w io.Writer, paint terminal.Painter, cfg receiver.Config, asJSON bool) error {
	list, at, err := listHosts(cfg, time.Now())
	if err != nil {
		return err
	}
	if asJSON {
		return cli.WriteJSONList(w, list)
	}
	if err := printHosts(w, paint, list); err != nil {
		return err
	}
	if at.ReceiverDown && len(list) > 0 {
		if err := printf(w, "\nThe receiver does not run: this is what it knew last.\n"); err != nil {
			return err
		}
	}
	return printRotation(w, list)
}

// hostColors are the colours of the states of a host.
var hostColors = map[string]terminal.Color{
	string(datadir.HostActive): terminal.Good, string(datadir.HostDisabled): terminal.Fair, string(datadir.HostRemoved): terminal.Faint,
	string(hosts.Expired): terminal.Bad, string(hosts.Revoked): terminal.Bad,
}

// printHosts prints the name last, since it may be long.
func printHosts(w io.Writer, paint terminal.Painter, list []hosts.Host) error {
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tSTORED\tWAITING\tHELD\tFREE\tCERT UNTIL\tCONTACT\tHOST")
	for _, h := range list {
		stored, waiting, held, free := formatReport(h)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.State, stored, waiting, held, free, formatExpiry(h), formatContact(h), h.Name())
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if _, err := io.WriteString(w, paint.PaintFirstWords(b.String(), hostColors)); err != nil {
		return err
	}
	return printHostNotes(w, list)
}

// formatReport returns the columns that come from a host's report.
func formatReport(h hosts.Host) (stored, waiting, held, free string) {
	stored, waiting, held, free = "no", "-", "-", "-"
	if h.Stored {
		stored = "yes"
	}
	if r := h.Report; r != nil {
		if r.Stored != nil {
			stored = strconv.FormatInt(*r.Stored, 10)
		}
		if r.Silent {
			return stored, waiting, held, free
		}
		waiting, held = strconv.FormatInt(r.Waiting, 10), strconv.FormatInt(r.HeldTotal(), 10)
		if r.Disk.SizeBytes > 0 {
			free = strings.ReplaceAll(humanize.IBytes(uint64(r.Disk.FreeBytes)), " ", "")
		}
	}
	return stored, waiting, held, free
}

// formatExpiry returns when the last certificate that gives access expires, or else the last one.
func formatExpiry(h hosts.Host) string {
	if last := h.LastCertificate(); last != nil {
		return formatDate(last.NotAfter)
	}
	return "-"
}

func formatContact(h hosts.Host) string {
	if h.LastContact == nil {
		return "-"
	}
	return h.LastContact.UTC().Format("2006-01-02 15:04")
}

// printHostNotes prints what is wrong with hosts, and since when others are disabled.
func printHostNotes(w io.Writer, list []hosts.Host) error {
	var notes strings.Builder
	note := func(h hosts.Host, text string) {
		for _, line := range cli.WrapLine(string(h.Name())+": "+text, 80) {
			fmt.Fprintln(&notes, line)
		}
	}
	for _, h := range list {
		if h.DisabledSince != nil {
			note(h, fmt.Sprintf("%s since %s", h.State, timeOf(h.DisabledSince)))
		}
		for _, p := range h.Problems {
			note(h, printable.Text(p.Text))
		}
	}
	if notes.Len() == 0 {
		return nil
	}
	return printf(w, "\n%s", notes.String())
}

// checkHosts is 'receiver hosts --check'.
func checkHosts(cfg receiver.Config, now time.Time) (cli.MonitorResult, error) {
	result := cli.MonitorResult{Service: "HOSTS"}
	list, at, err := listHosts(cfg, now)
	if err == nil && at.ReceiverDown {
		err = errors.New("the receiver does not run, so no host can report: see 'receiver status --check'")
	}
	if err != nil {
		return result, err
	}
	summary := hosts.Summarize(list)
	result.Values = performanceData(summary)
	result.Summary = fmt.Sprintf("%d active hosts", summary.Active)
	named := [3]int{}
	for _, h := range list {
		code := int(fleet.Worst(h.Problems))
		named[code]++
		if code > cli.MonitorOK && named[code] <= maxCheckHosts {
			result.Add(code, "%s %s", h.Name(), h.Problems[0].Text)
		}
	}
	if more := named[result.Code] - maxCheckHosts; more > 0 && result.Code > cli.MonitorOK {
		result.Add(result.Code, "and %d more", more)
	}
	return result, nil
}

// maxCheckHosts is the maximum number of hosts in the line of a check.
const maxCheckHosts = 5
