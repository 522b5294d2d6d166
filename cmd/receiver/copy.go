package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/bandwidth"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/durable"
	"cis490/internal/index"
	"cis490/internal/printable"
	"cis490/internal/progress"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/storecopy"
)

// copyFlags are the flags of "receiver store copy".
type copyFlags struct {
	to        receiver.StoreKind
	newConfig string
	rate      config.Bytes
	opts      storecopy.Options
}

func copyCommand(o *options) *cobra.Command {
	var f copyFlags
	c := withJSON(&cobra.Command{
		Use:   "copy --to s3|disk --new-config FILE",
		Short: "Copy the store into a bucket, or back to a disk",
		Long: `Copy copies the store to the place that the configuration FILE names: all
archives, the same index.jsonl, the same id. --config names the place where it
is now. It can run while its receivers run, and as often as wanted: each run
copies what is new, and one that was interrupted continues.

The last run has --final. The receivers must be stopped; then it copies the
rest and the list of disabled hosts, and hands over: receivers start at the new
place, and not at the old one any more. Nothing is deleted there. Hosts continue
without a change.

An archive that is missing or damaged is reported, and keeps its row. Let its
host send it again with 'shipper verify --heal'.

See "Move a store" in docs/scale-out.md. Exit codes: 1 archives are missing or
damaged, or it failed; 5 a receiver or another copy runs.`,
		Example: `  receiver store copy --to s3 --new-config s3.toml
  receiver store copy --to s3 --new-config s3.toml --final
  receiver --config s3.toml store copy --to disk --new-config disk.toml`,
		Args: cobra.NoArgs,
	})
	c.Flags().StringVar((*string)(&f.to), "to", "", "`KIND` of the new place: s3 or disk (required)")
	c.Flags().StringVar(&f.newConfig, "new-config", "", "configuration `FILE` of the new place (required)")
	c.Flags().BoolVar(&f.opts.Final, "final", false, "hand over; the receivers are stopped")
	c.Flags().BoolVar(&f.opts.AcceptMissing, "accept-missing", false, "hand over without missing or damaged archives")
	c.Flags().StringVar(&f.opts.Lost, "lost", "", "take over from the lost copy `ID`")
	c.Flags().TextVar(&f.rate, "rate", config.Bytes(0), "maximum `SIZE` per second; 0: none")
	mustMark(c.MarkFlagRequired("to"))
	mustMark(c.MarkFlagRequired("new-config"))
	c.RunE = func(c *cobra.Command, _ []string) error { return runCopy(c, o, f) }
	return c
}

func runCopy(c *cobra.Command, o *options, f copyFlags) error {
	from, to, err := f.loadConfigs(o)
	if err != nil {
		return err
	}
	onDisk, inBucket := from, to
	f.opts.From, f.opts.To = diskPlace(from), bucketPlace(to)
	if f.to == receiver.StoreOnDisk {
		onDisk, inBucket = to, from
		f.opts.From, f.opts.To = bucketPlace(from), diskPlace(to)
	}
	state := stateOf(onDisk)
	state.Layout, state.Create = receiver.Layout(false), f.to == receiver.StoreOnDisk
	if err := cli.BecomeServiceUser(c, state); err != nil {
		return err
	}
	in, err := bucket.Open(inBucket.Store.S3)
	if err != nil {
		return cli.UsageError(fmt.Errorf("store.s3: %w", err))
	}
	open := durable.Open
	if f.to == receiver.StoreOnDisk {
		open = durable.Create
	} else if err := probeNew(c.Context(), in); err != nil {
		return err
	}
	data, err := open(string(onDisk.DataDir))
	if err != nil {
		return err
	}
	defer data.Close()
	return f.copyStore(c, data, in)
}

// loadConfigs returns the configurations of the old and the new place.
func (f *copyFlags) loadConfigs(o *options) (from, to receiver.Config, err error) {
	if f.to != receiver.StoreOnS3 && f.to != receiver.StoreOnDisk {
		return from, to, cli.UsageError(fmt.Errorf("--to must be %q or %q", receiver.StoreOnS3, receiver.StoreOnDisk))
	}
	if f.opts.Lost != "" && f.to != receiver.StoreOnDisk {
		return from, to, cli.UsageError(fmt.Errorf("--lost is for --to %s: nothing can take over from a bucket", receiver.StoreOnDisk))
	}
	if from, err = o.loadConfig(); err != nil {
		return from, to, err
	}
	if to, err = receiver.LoadConfig(f.newConfig); err != nil {
		return from, to, cli.UsageError(err)
	}
	if to.Store.Kind != f.to {
		return from, to, cli.UsageError(fmt.Errorf("store.kind is %q in %s, and --to is %q", to.Store.Kind, f.newConfig, f.to))
	}
	if from.Store.Kind == f.to {
		return from, to, cli.UsageError(fmt.Errorf("store.kind is %q in %s too: --config names the place where the store is now", f.to, o.config))
	}
	return from, to, nil
}

// bucketPlace and diskPlace name a place for people.
func bucketPlace(cfg receiver.Config) string {
	return "the bucket " + strings.TrimSuffix(cfg.Store.S3.Bucket+"/"+strings.Trim(cfg.Store.S3.Prefix, "/"), "/")
}

func diskPlace(cfg receiver.Config) string {
	dir, host := string(cfg.DataDir), "this machine"
	if path, err := filepath.Abs(dir); err == nil {
		dir = path
	}
	if name, err := os.Hostname(); err == nil {
		host = name
	}
	return fmt.Sprintf("data_dir %s of %s", dir, host)
}

// probeNew probes the object store before the first object is put there.
func probeNew(ctx context.Context, in *bucket.S3) error {
	if begun, err := s3backend.IsImporting(ctx, in); begun || err != nil {
		return err
	}
	if _, err := bucket.Probe(ctx, in.Endpoints()...); err != nil {
		return fmt.Errorf("%w; 'receiver probe' shows all checks", err)
	}
	return nil
}

// copyStore copies the store between a directory and a bucket.
func (f *copyFlags) copyStore(c *cobra.Command, data *durable.Dir, in bucket.Bucket) error {
	display := cli.NewDisplay(c)
	defer display.Stop()
	asJSON, stdout, stderr := asksJSON(c), display.Above(c.OutOrStdout()), display.Above(c.ErrOrStderr())
	var printed error
	opts := f.opts
	opts.Holder = cli.LockHolder("receiver store copy")
	text, err := f.rate.MarshalText()
	if err != nil {
		return err
	}
	opts.Rate = bandwidth.Timetable(text)
	opts.Found = func(found storecopy.Finding) {
		if asJSON {
			printed = errors.Join(printed, cli.WriteJSON(stdout, found))
			return
		}
		fmt.Fprintf(stderr, "%s: %s %s/%s: %s\n", c.Root().Name(), found.Finding, found.Host, found.Episode, printable.Text(found.Detail))
	}
	opts.Notify = func(n index.TailNotice) { fmt.Fprintf(stderr, "%s: %s\n", c.Root().Name(), printable.Text(n.String())) }
	if display.Visible() {
		var count progress.Counter
		opts.Progress, opts.Copied, opts.Total = count.AddBytes, count.AddItem, count.SetTotal
		display.Start(func() progress.Status { return count.Status("copying archives") })
	}
	run := func() (storecopy.Report, error) { return storecopy.ToBucket(c.Context(), data, in, opts) }
	if f.to == receiver.StoreOnDisk {
		run = func() (storecopy.Report, error) { return storecopy.ToDisk(c.Context(), in, data, opts) }
	}
	report, err := run()
	display.Stop()
	if report.Store != "" && asJSON {
		printed = errors.Join(printed, cli.WriteJSON(stdout, report))
	} else if report.Store != "" && (err == nil || report.Rows > 0) {
		printed = errors.Join(printed, f.printReport(c, report))
	}
	return errors.Join(copyError(err, report), printed)
}

func (f *copyFlags) printReport(c *cobra.Command, r storecopy.Report) error {
	next := "run it again for what comes, and with --final once the receivers are stopped"
	if r.Moved {
		next = "the store is in " + f.opts.To + " now: start the receivers there"
		if f.opts.Lost != "" {
			next += "\nit has another id: run 'shipper verify --heal' on each host, which sends what the lost data_dir got since"
		}
		if n := r.Missing + r.Damaged; n > 0 {
			next += fmt.Sprintf("\nnot copied: %s: 'shipper verify --heal' on their hosts sends what is missing to the new place", cli.FormatCount(n, "archive"))
		}
	}
	return printf(c.OutOrStdout(), "store %s: copied %s and %s (%s), index %d bytes, %d missing, %d damaged\n%s\n",
		r.Store, cli.FormatCount(r.Rows, "row"), cli.FormatCount(r.Archives, "archive"), humanize.IBytes(uint64(r.Bytes)), r.IndexBytes, r.Missing, r.Damaged, next)
}

// copyError gives an error of a copy its exit code, and adds what to do.
func copyError(err error, r storecopy.Report) error {
	if _, moved := errors.AsType[*datadir.MovedError](err); moved || errors.Is(err, datadir.ErrStoreFile) {
		return cli.UsageError(err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return explainNoStore(err)
	}
	if n := r.Missing + r.Damaged; err == nil && n > 0 && !r.Moved {
		return fmt.Errorf("%s missing or damaged: 'shipper verify --heal' on their hosts sends them again, and the next run copies them", cli.FormatCountWith(n, "archive", "is", "are"))
	}
	return err
}
