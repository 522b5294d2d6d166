package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/diskbackend"
	"cis490/internal/episode"
	"cis490/internal/printable"
	"cis490/internal/progress"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
)

// scrubCommand returns "receiver scrub".
func scrubCommand(o *options) *cobra.Command {
	var opts scrub.Options
	var host string
	var olderThan config.Duration
	perSecond := config.TypedBytes(20 << 20)
	asJSON := false
	c := &cobra.Command{
		Use:   "scrub",
		Short: "Verify all stored archives, report corrupted ones",
		Long: `Scrub reads every archive from the disk, bypassing the page cache, compares it
with its sha256 and decodes it. Then it checks that each row has its archive. It
runs as the receiver's user or root, also while the receiver runs, and changes
nothing: the receiver quarantines a corrupt archive when its own scrub or the
host finds it. While no receiver runs, --quarantine does that here. An archive
that matches its sha256 but cannot be decoded stays. To continue an interrupted
scrub, use --older-than.

The hosts take turns, so that none delays the others. An archive that decodes
to more than 128 times its size is decoded once and reported as "expanding".
Afterwards only its bytes are read. On a terminal scrub shows its progress.

Of a store on S3 it reads every archive from the bucket, in the order of the
index. There --quarantine may run beside receivers: it moves nothing, and
records what their hosts are to send again.

Exit codes: 1 it found a problem, or failed.`,
		Example: `  receiver scrub --rate 50MiB
  receiver scrub --older-than 24h --json | jq -c 'select(.finding)'
  systemctl stop cis490-receiver && receiver scrub --quarantine`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.openAsUser(c)
			if err != nil {
				return err
			}
			opts.Rate, opts.OlderThan = int64(perSecond), olderThan.Std()
			if host != "" {
				if opts.Host, err = episode.ParseName(host); err != nil {
					return cli.UsageError(fmt.Errorf("--host: %w", err))
				}
			}
			if cfg.Store.Kind == receiver.StoreOnS3 {
				once, err := scrubBucket(c, cfg)
				if err != nil {
					return err
				}
				return runScrub(c, once, opts, asJSON)
			}
			episodes, _ := cfg.BackendConfig().Paths()
			noteUnknownHost(c, episodes, host)
			return runScrub(c, scrubDisk(cfg), opts, asJSON)
		},
	}
	c.Flags().TextVar(&perSecond, "rate", perSecond, "maximum `SIZE` per second; 0: none")
	c.Flags().TextVar(&olderThan, "older-than", config.Duration(0), "skip if verified within `DURATION`")
	c.Flags().StringVar(&host, "host", "", "only the archives of `HOST`")
	c.Flags().BoolVar(&opts.Quarantine, "quarantine", false, "quarantine corrupt archives; no receiver may run")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	cli.AliasFlag(c, "set-aside", "quarantine")
	cli.CompleteFlag(c, "host", o.findHosts)
	return c
}

// scrubFunc verifies the archives of a store.
type scrubFunc func(context.Context, scrub.Options) (scrub.Progress, error)

// scrubDisk returns the scrub of data_dir.
func scrubDisk(cfg receiver.Config) scrubFunc {
	return func(ctx context.Context, opts scrub.Options) (scrub.Progress, error) {
		return diskbackend.ScrubOnce(ctx, cfg.BackendConfig(), cli.LockHolder("receiver scrub --quarantine"), opts)
	}
}

// scrubBucket returns the scrub of the bucket.
func scrubBucket(c *cobra.Command, cfg receiver.Config) (scrubFunc, error) {
	in, err := openStore(c.Context(), cfg)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return func(ctx context.Context, opts scrub.Options) (scrub.Progress, error) {
		p, err := s3backend.ScrubOnce(ctx, in, opts, log)
		if err == nil && opts.Host != "" && p.Objects+p.Skipped+p.Missing == 0 {
			cli.Note(c, "host %s has stored nothing in the bucket yet; is its name right?", opts.Host)
		}
		return p, err
	}, nil
}

func runScrub(c *cobra.Command, once scrubFunc, opts scrub.Options, asJSON bool) error {
	display := cli.NewDisplay(c)
	defer display.Stop()
	out := display.Above(c.OutOrStdout())
	var printed error
	opts.Found = func(f scrub.Finding) {
		var err error
		if asJSON {
			err = cli.WriteJSON(out, f)
		} else {
			quarantined := ""
			if f.Quarantined {
				quarantined = ", quarantined"
			}
			err = printf(out, "%s%s\t%s/%s\t%s\n", f.Finding, quarantined, f.Host, f.Episode, printable.Text(f.Detail))
		}
		printed = errors.Join(printed, err)
	}
	if display.Visible() { // otherwise the store need not be listed for a total
		var count progress.Counter
		opts.Progress, opts.Checked, opts.Total = count.AddBytes, count.SetItems, count.SetTotal
		display.Start(func() progress.Status { return count.Status("reading archives") })
	}
	p, err := once(c.Context(), opts)
	display.Stop()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (the receiver creates its directories at its first start)", err)
	}
	if err == nil || c.Context().Err() != nil {
		printed = errors.Join(printed, printScrub(c, p, asJSON))
	}
	if err := errors.Join(err, printed); err != nil {
		return err
	}
	return problemsOf(p)
}

// problemsOf returns what the operator must do about the findings of a scrub, or nil.
func problemsOf(p scrub.Progress) error {
	var bad []error
	if n := p.Damaged + p.Missing; n > 0 {
		bad = append(bad, fmt.Errorf("%s damaged or missing: 'shipper verify --heal' on their hosts sends them again", cli.FormatCountWith(n, "archive", "is", "are")))
	}
	if p.Unreadable > 0 {
		bad = append(bad, fmt.Errorf("%s unreadable: check their permissions and the disk first ('dmesg', 'smartctl -a'), or the object store; "+
			"once the receiver has quarantined those that are lost, 'shipper verify --heal' on their hosts sends them again", cli.FormatCountWith(p.Unreadable, "archive", "is", "are")))
	}
	if n := p.LostBatches(); n > 0 {
		bad = append(bad, fmt.Errorf("%s corrupt or lost, so their archives were not read: "+
			"stderr names them; see the log of the object store, and restore them", cli.FormatCountWith(n, "index batch", "is", "are")))
	}
	if p.HostsUnreadable > 0 {
		bad = append(bad, fmt.Errorf("%s a directory that cannot be listed: no archive of it was read", cli.FormatCountWith(p.HostsUnreadable, "host", "has", "have")))
	}
	if p.HostsUnfinished > 0 {
		bad = append(bad, fmt.Errorf("%s sent archives faster than they could be listed: run scrub again with --older-than", cli.FormatCount(p.HostsUnfinished, "host")))
	}
	if p.Undecodable > 0 {
		bad = append(bad, fmt.Errorf("%s sha256 but cannot be decoded: keep the episodes, and see 'An archive that cannot be decoded' in docs/operations.md (of a package: /usr/share/doc/cis490-receiver)", cli.FormatCountWith(p.Undecodable, "archive", "matches its", "match their")))
	}
	return errors.Join(bad...)
}

func printScrub(c *cobra.Command, p scrub.Progress, asJSON bool) error {
	if asJSON {
		return cli.WriteJSON(c.OutOrStdout(), p)
	}
	return printf(c.OutOrStdout(), "read=%d bytes=%d skipped=%d damaged=%d unreadable=%d undecodable=%d missing=%d set_aside=%d took=%v\n",
		p.Objects, p.Bytes, p.Skipped, p.Damaged, p.Unreadable, p.Undecodable, p.Missing, p.Quarantined, time.Since(p.Started).Round(time.Millisecond))
}
