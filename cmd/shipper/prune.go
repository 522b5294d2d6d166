package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/logging"
	"cis490/internal/progress"
	"cis490/internal/shipped"
	"cis490/internal/shipper"
)

func pruneCommand(o *options) *cobra.Command {
	var opts shipped.PruneOptions
	var maxAge config.Duration
	var maxBytes, minFree config.TypedBytes
	c := &cobra.Command{
		Use:   "prune",
		Short: "Delete retired episodes that the receiver has verified",
		Long: `Prune deletes retired episodes from the shipped directory, oldest first, by the
retention policy: the flags or [retention] in the configuration. It deletes an
episode only if the receiver has verified its copy since it was stored (run
'shipper verify' first, or wait for the receiver's scrub), and only if the
episode is unchanged since it was shipped. Episodes that cannot be deleted are
listed with the reason and do not change the exit code. Prune also completes an
interrupted deletion, without any policy. On a terminal it shows its progress.

Exit codes: 5 another process deletes.`,
		Example: `  shipper prune --dry-run
  shipper verify && shipper prune --max-age 30d`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.loadConfig()
			if err != nil {
				return err
			}
			if opts.Limit < 1 {
				name := "limit"
				if c.Flags().Changed("most") {
					name = "most"
				}
				return cli.UsageError(fmt.Errorf("--%s: must be at least 1", name))
			}
			given := shipped.RetentionConfig{MaxAge: maxAge, MaxBytes: config.Bytes(maxBytes), MinFree: config.Bytes(minFree)}
			if given.IsEnabled() {
				cfg.Retention = given
			}
			interrupted, err := shipped.CountInterrupted(cfg.DirsConfig())
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return err
			}
			if !cfg.Retention.IsEnabled() && interrupted == 0 {
				return cli.UsageError(errors.New("no retention policy set: set [retention] in the configuration, or use --max-age, --max-bytes or --min-free"))
			}
			if err := cfg.Validate(); err != nil {
				return cli.UsageError(err)
			}
			return runPrune(c, o, cfg, opts)
		},
	}
	c.Flags().BoolVar(&opts.DryRun, "dry-run", false, "list what would be deleted without deleting it")
	c.Flags().IntVar(&opts.Limit, "limit", 100_000, "delete at most `N` episodes")
	c.Flags().TextVar(&maxAge, "max-age", config.Duration(0), "delete what was received `DURATION` ago")
	c.Flags().TextVar(&maxBytes, "max-bytes", config.TypedBytes(0), "delete until at most `SIZE` is used")
	c.Flags().TextVar(&minFree, "min-free", config.TypedBytes(0), "delete until `SIZE` is free")
	cli.AliasFlag(c, "most", "limit")
	return c
}

func runPrune(c *cobra.Command, o *options, cfg shipper.Config, opts shipped.PruneOptions) error {
	client, _, err := newClient(cfg)
	if err != nil {
		return err
	}
	if err := cli.BecomeServiceUser(c, stateOf(cfg)); err != nil {
		return err
	}
	opts.Retention, opts.Holder = cfg.Retention, cli.LockHolder("shipper prune")
	display := cli.NewDisplay(c)
	defer display.Stop()
	var count progress.Counter
	out, now := display.Above(c.OutOrStdout()), time.Now()
	opts.OnResult = func(p shipped.PruneResult) error {
		count.AddItem()
		if o.json {
			return cli.WriteJSON(out, p)
		}
		what, why := "deleted", p.Reason
		switch {
		case p.Kept != "":
			what, why = "kept", p.Reason+": "+asciiText(p.Kept)
		case opts.DryRun:
			what = "would delete"
		}
		_, err := fmt.Fprintf(out, "%-12s  %s  %s, %s, %s\n", what, p.Dir,
			humanize.IBytes(uint64(max(p.Bytes, 0))), receivedAt(p.ReceivedAt, now), why)
		return err
	}
	opts.OnRead = count.AddBytes
	opts.OnTotal = func(episodes int) { count.SetTotal(int64(episodes), 0) }
	opts.Log = logging.NewAbove(display.Above(c.ErrOrStderr()), o.verbose, cfg.LogFormat)
	display.Start(func() progress.Status { return count.Status("pruning episodes") })
	report, err := shipped.Prune(c.Context(), cfg.DirsConfig(), client, opts)
	display.Stop()
	if err != nil {
		return auditError(cfg, err)
	}
	if o.json {
		return cli.WriteJSON(out, report)
	}
	did := "deleted"
	if report.DryRun {
		did = "would delete"
	}
	_, err = fmt.Fprintf(out, "%s=%d bytes=%d kept=%d\n", did, report.Deleted, report.Bytes, report.Kept)
	return err
}
