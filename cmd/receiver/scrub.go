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
	"cis490/internal/episode"
	"cis490/internal/receiver"
	"cis490/internal/scrub"
)

// scrubCommand returns "receiver scrub".
func scrubCommand(o *options) *cobra.Command {
	var opts scrub.Options
	var perSecond, host string
	var olderThan config.Duration
	asJSON := false
	c := &cobra.Command{
		Use:   "scrub",
		Short: "Read all archives back and name those that rotted",
		Long: `Scrub reads every archive from the disk, past the page cache, compares it with
its sha256 and decodes it; then it looks for the archive of each row. It runs
beside the receiver, as the receiver's user or root, and changes nothing: the
receiver moves a bad copy to quarantine when its own scrub or its host finds it.
While no receiver runs, --set-aside does that here. What is undecodable, and is
what its host has sent, stays. An interrupted scrub goes on where it was with
--older-than. It exits with 1 if something is bad.

The hosts take turns, so that none delays the others. An archive that decodes
to more than 128 times its size is decoded once and named as "expanding".
Afterwards only its bytes are read. On a terminal scrub shows its progress.`,
		Example: `  receiver scrub --rate 50MiB
  receiver scrub --older-than 24h --json | jq -c 'select(.finding)'
  systemctl stop cis490-receiver && receiver scrub --set-aside`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.open(c)
			if err != nil {
				return err
			}
			if opts.Rate, err = bytesOf(perSecond); err != nil {
				return cli.UsageError(fmt.Errorf("--rate: %w", err))
			}
			opts.OlderThan = olderThan.Std()
			if host != "" {
				if opts.Host, err = episode.ParseName(host); err != nil {
					return cli.UsageError(fmt.Errorf("--host: %w", err))
				}
			}
			noteUnknownHost(c, episodesOf(cfg), host)
			return runScrub(c, cfg, opts, asJSON)
		},
	}
	c.Flags().StringVar(&perSecond, "rate", "20MiB", "`bytes` a second; 0 for no limit")
	c.Flags().TextVar(&olderThan, "older-than", config.Duration(0), "read what was not read back for so `long`")
	c.Flags().StringVar(&host, "host", "", "only this host's archives")
	c.Flags().BoolVar(&opts.Quarantine, "set-aside", false, "move bad copies to quarantine; no receiver may run")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object a line")
	return c
}

func bytesOf(s string) (int64, error) {
	if n, err := humanize.ParseBytes(s); err != nil || n > 1<<40 {
		return 0, fmt.Errorf("%+q: want a size like 20MiB", s)
	}
	var n config.TypedBytes
	err := n.UnmarshalText([]byte(s))
	return int64(n), err
}

func runScrub(c *cobra.Command, cfg receiver.Config, opts scrub.Options, asJSON bool) error {
	out := c.OutOrStdout()
	var printed error
	opts.Found = func(f scrub.Finding) {
		var err error
		if asJSON {
			err = cli.WriteJSON(out, f)
		} else {
			aside := ""
			if f.Quarantined {
				aside = ", set aside"
			}
			err = printf(out, "%s%s\t%s/%s\t%s\n", f.Finding, aside, f.Host, f.Episode, printable(f.Detail))
		}
		printed = errors.Join(printed, err)
	}
	var done func()
	opts.Progress, done = cli.Progress(c.ErrOrStderr(), "reading archives")
	p, err := receiver.ScrubOnce(c.Context(), cfg, cli.LockHolder("receiver scrub --set-aside"), opts)
	done()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w (the receiver makes its folders at its first start)", err)
	}
	if err == nil || c.Context().Err() != nil {
		printed = errors.Join(printed, printScrub(c, p, asJSON))
	}
	if err := errors.Join(err, printed); err != nil {
		return err
	}
	return problemsOf(p)
}

// problemsOf says what a person must do about what a scrub has found, or nil.
func problemsOf(p scrub.Progress) error {
	var bad []error
	if n := p.Damaged + p.Missing; n > 0 {
		bad = append(bad, fmt.Errorf("%d archives are damaged or missing: 'shipper verify --heal' on their hosts sends them again", n))
	}
	if p.Unreadable > 0 {
		bad = append(bad, fmt.Errorf("%d archives are unreadable: look at their permissions and at the disk first ('dmesg', 'smartctl -a'); "+
			"once a receiver has set those aside that the disk has lost, 'shipper verify --heal' on their hosts sends them again", p.Unreadable))
	}
	if p.HostsUnreadable > 0 {
		bad = append(bad, fmt.Errorf("%d hosts have a folder that cannot be listed: none of their archives was read", p.HostsUnreadable))
	}
	if p.HostsUnfinished > 0 {
		bad = append(bad, fmt.Errorf("%d hosts sent archives faster than they were passed over: run scrub again with --older-than", p.HostsUnfinished))
	}
	if p.Undecodable > 0 {
		bad = append(bad, fmt.Errorf("%d archives are what was sent and cannot be decoded: keep their episodes, and see 'An archive that cannot be decoded' in docs/operations.md (of a package: /usr/share/doc/cis490-receiver)", p.Undecodable))
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
