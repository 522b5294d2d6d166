package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/logging"
	"cis490/internal/progress"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
)

func verifyCommand(o *options) *cobra.Command {
	var opts shipped.VerifyOptions
	all := false
	var maxAge config.Duration
	c := &cobra.Command{
		Use:   "verify",
		Short: "Verify that the receiver still has what was shipped",
		Long: `Verify asks the receiver to read its copy of each retired episode from disk,
compare it with the sha256 of the receipt and decode it. A local episode that
may have changed since is compared with that copy; --deep compares all. Episodes
that fail are listed; --heal moves those that the receiver has lost back, to be
packed and sent again. It can run while the shipper runs. On a terminal it shows
its progress.

Exit codes: 0 all episodes verified, 1 an episode is missing, damaged,
undecodable, divergent, unknown or changed, 4 the receiver cannot be reached or
refuses this host.`,
		Example: `  shipper verify
  shipper verify --deep
  shipper verify --max-age 30d --heal   # accept the results of its last scrubs
  shipper verify --quick --json | jq -c 'select(.finding)'`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			opts.MaxAge = maxAge.Std()
			return runVerify(c, o, opts, all)
		},
	}
	c.Flags().BoolVar(&opts.Quick, "quick", false, "ask the receiver without reading its disk")
	c.Flags().TextVar(&maxAge, "max-age", config.Duration(0), "accept results up to `DURATION` old")
	c.Flags().BoolVar(&opts.Heal, "heal", false, "send missing or damaged episodes again")
	c.Flags().BoolVar(&opts.Deep, "deep", false, "compare all local episodes, even unchanged ones")
	c.Flags().BoolVar(&all, "all", false, "also list verified episodes")
	cli.AddFull(c, &o.full)
	c.MarkFlagsMutuallyExclusive("quick", "max-age")
	c.MarkFlagsMutuallyExclusive("quick", "deep")
	return c
}

func runVerify(c *cobra.Command, o *options, opts shipped.VerifyOptions, all bool) error {
	cfg, client, _, err := o.connectAsUser(c, false)
	if err != nil {
		return err
	}
	display := cli.NewDisplay(c)
	defer display.Stop()
	var count progress.Counter
	out := display.Above(c.OutOrStdout())
	opts.OnResult = func(a shipped.VerifyResult) error {
		count.AddItem()
		good := a.Finding == shipped.Verified || a.Finding == shipped.Stored
		switch {
		case good && a.Detail == "" && !all:
			return nil
		case o.json:
			return cli.WriteJSON(out, a)
		}
		_, err := fmt.Fprintf(out, "%-11s  %s%s\n", a.Finding, a.Dir, adviceFor(a, o.full))
		return err
	}
	opts.OnRead = count.AddBytes
	opts.OnTotal = func(episodes int) { count.SetTotal(int64(episodes), 0) }
	opts.Log = logging.NewAbove(display.Above(c.ErrOrStderr()), o.verbose, cfg.LogFormat)
	display.Start(func() progress.Status { return count.Status("verifying episodes") })
	report, err := shipped.Verify(c.Context(), cfg.DirsConfig(), client, opts)
	display.Stop()
	if err != nil {
		return auditError(cfg, err)
	}
	if o.json {
		err = cli.WriteJSON(out, report)
	} else {
		_, err = fmt.Fprintln(out, report)
	}
	if err != nil {
		return err
	}
	var bad []error
	if n := report.ProblemCount() - report.Changed; n > 0 {
		bad = append(bad, fmt.Errorf("%d retired episodes could not be verified at the receiver", n))
	}
	if report.Changed > 0 {
		bad = append(bad, fmt.Errorf("%d retired episodes changed since they were shipped: the receiver has them as they were", report.Changed))
	}
	return errors.Join(bad...)
}

// adviceFor says what to do about a finding.
func adviceFor(a shipped.VerifyResult, full bool) string {
	switch {
	case a.Healing:
		return ": moved back, will be sent again"
	case a.NotHealed != "":
		return ": " + asciiText(a.NotHealed)
	case a.Finding == shipped.Missing, a.Finding == shipped.Damaged:
		return ": send it again with 'shipper resend " + a.Dir + "'"
	case a.Finding == shipped.Undecodable:
		return ": the receiver has what was sent, but it cannot be decoded; keep this directory and see 'An archive that cannot be decoded' in docs/operations.md (of a package: /usr/share/doc/cis490-shipper)"
	case a.Finding == shipped.Divergent:
		return ": the receiver has " + cli.ShortDigest(a.Stored, full) + "; 'shipper resend " + a.Dir + "', then 'shipper retry --keep-both', keeps both"
	case a.Finding == shipped.Changed && a.Partial:
		return ": " + asciiText(a.Detail) + "; keep what you need of it elsewhere, then delete the directory"
	case a.Finding == shipped.Changed:
		return ": " + asciiText(a.Detail) + "; it is kept; 'shipper resend " + a.Dir + "', then 'shipper retry --keep-both', ships it as it is now"
	case a.Detail != "":
		return ": " + asciiText(a.Detail)
	case a.Finding == shipped.Unknown:
		return ": it carries no receipt; keep it, or send it again with 'shipper resend " + a.Dir + "'"
	}
	return ""
}

// auditError gives a receiver that could not be asked its exit code.
func auditError(cfg shipper.Config, err error) error {
	if _, unreachable := errors.AsType[*uplink.UnreachableError](err); unreachable {
		return unreachableError(cfg, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (the shipper creates its directories at its first start)", err)
	}
	return err
}

func resendCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "resend EPISODE...",
		Short: "Send retired episodes again",
		Long: `Resend moves episodes from the shipped directory back to the episodes directory,
where the shipper packs and sends them as if they were new. The receiver accepts
only what it has lost. An episode whose name is in use is refused. Resend can
run while the shipper runs.`,
		Example: "  shipper resend run-7 run-8\n  shipper resend --json run-7 | jq -r 'select(.again).episode_id'",
		Args:    cobra.MinimumNArgs(1), ValidArgsFunction: cli.CompleteNames(false, o.findNames(retiredEpisodes)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := o.openAsUser(c)
			if err != nil {
				return err
			}
			var errs []error
			for _, dir := range args {
				err := shipped.ResendRetired(cfg.DirsConfig(), dir)
				if errors.Is(err, fs.ErrNotExist) {
					err = fmt.Errorf("%s is not in %s%s", asciiText(dir), cfg.ShippedDir, suggestName(dir, retiredEpisodes(cfg)))
				}
				errs = append(errs, err, o.printMoved(c, retriedEpisode{Episode: dir, Again: err == nil}, err, "sent again"))
			}
			return errors.Join(errs...)
		},
	}
}

// receivedAt says when the receiver got an episode, for a table.
func receivedAt(t, now time.Time) string {
	old := now.Sub(t)
	switch {
	case t.IsZero():
		return "received at an unknown time"
	case old < 0:
		return "received at " + t.UTC().Format(time.RFC3339) + ", in the future: check the clock"
	case old < time.Minute:
		return "received less than a minute ago"
	case old < time.Hour:
		return "received " + config.Duration(old.Round(time.Minute)).String() + " ago"
	}
	return "received " + config.Duration(old.Round(time.Hour)).String() + " ago"
}

// retriedEpisode is the result of retry or resend for one episode.
type retriedEpisode struct {
	Episode string `json:"episode_id"`
	Again   bool   `json:"again"`        // it will be retried or sent again
	As      string `json:"as,omitempty"` // under this name
	Error   string `json:"error,omitempty"`
}

// printMoved prints m as JSON, or what will be done if err is nil.
func (o *options) printMoved(c *cobra.Command, m retriedEpisode, err error, what string) error {
	if o.json {
		if err != nil {
			m.Error = err.Error()
		}
		return cli.WriteJSON(c.OutOrStdout(), m)
	}
	if err != nil {
		return nil
	}
	as := ""
	if m.As != "" {
		as = ", as " + m.As
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "%s will be %s%s\n", asciiText(m.Episode), what, as)
	return err
}
