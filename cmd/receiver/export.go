package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/batchlog"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/printable"
	"cis490/internal/progress"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
)

// openBucket opens the bucket of the configuration, as the receiver's user.
func openBucket(c *cobra.Command, o *options) (*bucket.S3, error) {
	cfg, err := o.openAsUser(c)
	if err != nil {
		return nil, err
	}
	if cfg.Store.Kind != receiver.StoreOnS3 {
		_, index := cfg.BackendConfig().Paths()
		return nil, cli.UsageError(fmt.Errorf("store.kind is %q in %s: there is no bucket, and the index is %s", cfg.Store.Kind, o.config, index))
	}
	in, err := bucket.Open(cfg.Store.S3)
	if err != nil {
		return nil, cli.UsageError(fmt.Errorf("store.s3: %w", err))
	}
	return in, nil
}

// openStore opens the store in the bucket of the configuration.
func openStore(ctx context.Context, cfg receiver.Config) (*bucket.S3, error) {
	in, err := bucket.Open(cfg.Store.S3)
	if err != nil {
		return nil, cli.UsageError(fmt.Errorf("store.s3: %w", err))
	}
	_, err = s3backend.ReadStoreID(ctx, in)
	return in, err
}

// refuseOnS3 refuses a command that works only with a store on a disk.
func refuseOnS3(cfg receiver.Config, why string) error {
	if cfg.Store.Kind != receiver.StoreOnS3 {
		return nil
	}
	return cli.UsageError(fmt.Errorf("store.kind is %q: %s", receiver.StoreOnS3, why))
}

// exportInterval is how often new rows are looked for with --follow.
const exportInterval = 2 * time.Second

func exportCommand(o *options) *cobra.Command {
	var to string
	var follow bool
	c := &cobra.Command{
		Use:   "export",
		Short: "Write index.jsonl from a bucket",
		Long: `Export writes the index of a store on S3, the same bytes for everybody, to
stdout or to a file. A file only grows, by whole rows, and an export that was
interrupted continues where it ended. A file beside it, .NAME.copied.json, says
how far it is. Receivers keep such a file as index.jsonl in data_dir.

Exit codes: 1 it failed, or FILE is no export of this store.`,
		Example: `  receiver index export | jq -r .episode_id
  receiver index export --to /srv/lab/index.jsonl --follow`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			in, err := openBucket(c, o)
			if err != nil {
				return err
			}
			if _, err := s3backend.ReadStoreID(c.Context(), in); err != nil {
				return err
			}
			if to == "" {
				return exportTo(c.Context(), c.OutOrStdout(), in, follow)
			}
			return exportFile(c, in, to, follow)
		},
	}
	c.Flags().StringVar(&to, "to", "", "write to `FILE` instead of stdout")
	c.Flags().BoolVar(&follow, "follow", false, "wait for more rows until SIGTERM")
	return c
}

// exportTo writes the index to w.
func exportTo(ctx context.Context, w io.Writer, in bucket.Bucket, follow bool) error {
	next := int64(1)
	return repeat(ctx, follow, func() error {
		var err error
		next, err = batchlog.Export(ctx, in, next, func(rows []byte) error {
			_, err := w.Write(rows)
			return err
		})
		return err
	})
}

// exportFile completes a copy of the index.
func exportFile(c *cobra.Command, in bucket.Bucket, path string, follow bool) (err error) {
	ctx := c.Context()
	store, err := s3backend.ReadStoreID(ctx, in)
	if err != nil {
		return err
	}
	dir, err := durable.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("%w; the directory must exist, and the receiver's user must be able to write to it", err)
	}
	defer dir.Close()
	to, err := batchlog.OpenCopy(dir, filepath.Base(path), store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	display := cli.NewDisplay(c)
	defer display.Stop()
	var count progress.Counter
	display.Start(func() progress.Status { return count.Status("exporting the index") })
	return repeat(ctx, follow, func() error { return to.CatchUp(ctx, in, count.AddBytes) })
}

// repeat calls do once, or again and again until ctx ends.
func repeat(ctx context.Context, again bool, do func() error) error {
	tick := time.NewTicker(exportInterval)
	defer tick.Stop()
	for {
		err := do()
		if again && ctx.Err() != nil {
			return nil
		}
		if err != nil || !again {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// openBucket opens the bucket of the configuration, or returns nil if the flags name files, or the store
// is on a disk.
func (f *indexFlags) openBucket(c *cobra.Command, o *options) (bucket.Bucket, error) {
	if f.opts.EpisodesRoot != "" && f.opts.Index != "" {
		return nil, nil // files, whatever the receiver has
	}
	cfg, err := o.loadConfig()
	if err != nil || cfg.Store.Kind != receiver.StoreOnS3 {
		return nil, err
	}
	if f.opts.EpisodesRoot != "" || f.opts.Index != "" {
		return nil, refuseOnS3(cfg, "name both --episodes-root and --index to work on files, and not the copy in data_dir")
	}
	if f.host != "" {
		if f.opts.Host, err = episode.ParseName(f.host); err != nil {
			return nil, cli.UsageError(fmt.Errorf("--host: %w", err))
		}
	}
	in, err := openBucket(c, o)
	if err != nil {
		return nil, err
	}
	_, err = s3backend.ReadStoreID(c.Context(), in)
	return in, err
}

// backfillBucket is [runBackfill] for a store in a bucket.
func backfillBucket(c *cobra.Command, in bucket.Bucket, f *indexFlags) error {
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	f.opts.Bad = func(err error) {
		fmt.Fprintf(c.ErrOrStderr(), "%s: not indexed: %s\n", c.Root().Name(), printable.Text(err.Error()))
	}
	report, err := s3backend.Backfill(c.Context(), in, f.opts, log)
	if err != nil {
		return err
	}
	f.opts.Index = "the bucket"
	if err := printBackfill(c.OutOrStdout(), report, f.opts, f.json); err != nil {
		return err
	}
	return unindexedError(report)
}
