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
	"cis490/internal/shipped"
	"cis490/internal/shipper"
)

func pruneCommand(o *options) *cobra.Command {
	var opts shipped.PruneOptions
	var maxAge config.Duration
	var maxBytes, minFree config.TypedBytes
	c := &cobra.Command{
		Use:   "prune",
		Short: "Delete retired episodes that the receiver has read back",
		Long: `Prune deletes from the shipped folder, the oldest first, as [retention] in the
configuration or the flags say. It deletes only what the receiver has read back
from its disk since it stored it (run 'shipper verify' first, or wait for its
scrub), and only what still is what was shipped: each episode is compared first.
What it may not delete is listed with the reason, and does not change the exit
code. It also ends a deletion that was interrupted, and needs no policy for
that. It exits with 5 while another process deletes.`,
		Example: `  shipper prune --dry-run
  shipper verify && shipper prune --max-age 720h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			if opts.Limit < 1 {
				return cli.UsageError(errors.New("--most: must be at least 1"))
			}
			given := shipped.RetentionConfig{MaxAge: maxAge, MaxBytes: config.Bytes(maxBytes), MinFree: config.Bytes(minFree)}
			if given.On() {
				cfg.Retention = given
			}
			interrupted, err := shipped.CountInterrupted(cfg.Dirs())
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return err
			}
			if !cfg.Retention.On() && interrupted == 0 {
				return cli.UsageError(errors.New("nothing says what to delete: set [retention] in the configuration, or give --max-age, --max-bytes or --min-free"))
			}
			if err := cfg.Validate(); err != nil {
				return cli.UsageError(err)
			}
			return runPrune(c, o, cfg, opts)
		},
	}
	c.Flags().BoolVar(&opts.DryRun, "dry-run", false, "list what would be deleted, and delete nothing")
	c.Flags().IntVar(&opts.Limit, "most", 100_000, "delete no more than so `many`")
	c.Flags().TextVar(&maxAge, "max-age", config.Duration(0), "delete what was received so `long` ago")
	c.Flags().TextVar(&maxBytes, "max-bytes", config.TypedBytes(0), "delete until all take no more `bytes`")
	c.Flags().TextVar(&minFree, "min-free", config.TypedBytes(0), "delete until so many `bytes` are free")
	return c
}

func runPrune(c *cobra.Command, o *options, cfg shipper.Config, opts shipped.PruneOptions) error {
	client, _, err := connect(cfg)
	if err != nil {
		return err
	}
	if err := cli.BecomeServiceUser(c, stateOf(cfg)); err != nil {
		return err
	}
	opts.Retention, opts.Holder = cfg.Retention, cli.LockHolder("shipper prune")
	out, now := c.OutOrStdout(), time.Now()
	opts.OnResult = func(p shipped.PruneResult) error {
		if o.json {
			return cli.WriteJSON(out, p)
		}
		what := "deleted"
		switch {
		case p.Kept != "":
			what = "kept"
		case opts.DryRun:
			what = "would go"
		}
		_, err := fmt.Fprintf(out, "%-8s  %s  %s, %s, %s%s\n", what, p.Dir,
			humanize.IBytes(uint64(max(p.Bytes, 0))), receivedAt(p.ReceivedAt, now), p.Reason, why(p))
		return err
	}
	read, done := cli.Progress(c.ErrOrStderr(), "comparing episodes")
	opts.OnRead = read
	opts.Log = cli.Logger(o.verbose)
	report, err := shipped.Prune(c.Context(), cfg.Dirs(), client, opts)
	done()
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

func why(p shipped.PruneResult) string {
	if p.Kept == "" {
		return ""
	}
	return ": " + ascii(p.Kept)
}
