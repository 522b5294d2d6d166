package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fsck"
	"cis490/internal/index"
	"cis490/internal/printable"
	"cis490/internal/progress"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
	"cis490/internal/serviceuser"
)

// indexCommand returns "receiver index".
func indexCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:     "index",
		Short:   "Repair, verify or export the index",
		Example: "  receiver index backfill --dry-run\n  receiver index verify --deep",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(backfillCommand(o), verifyCommand(o), exportCommand(o))
	return c
}

// indexFlags are the flags of both commands.
type indexFlags struct {
	opts fsck.Options
	host string
	json bool
	full bool // print whole digests
}

func (f *indexFlags) addTo(c *cobra.Command, o *options) {
	c.Flags().StringVar(&f.opts.EpisodesRoot, "episodes-root", "", "`DIR` of the archives (default: episodes in data_dir)")
	c.Flags().StringVar(&f.opts.Index, "index", "", "index `FILE` (default: index.jsonl in data_dir)")
	c.Flags().StringVar(&f.host, "host", "", "only the episodes of `HOST`")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON, one object per line")
	cli.AddFull(c, &f.full)
	cli.CompleteFlag(c, "host", o.findHosts)
}

// fsckOptions fills in flags that are not set from the configuration, which it reads only then. If
// root runs the command, it becomes the user that owns the directory of the index.
func (f *indexFlags) fsckOptions(c *cobra.Command, from *options) (fsck.Options, error) {
	o := f.opts
	if o.EpisodesRoot == "" || o.Index == "" {
		cfg, err := from.loadConfig()
		if err != nil {
			return o, err
		}
		root, path := cfg.BackendConfig().Paths()
		o.EpisodesRoot, o.Index = cmp.Or(o.EpisodesRoot, root), cmp.Or(o.Index, path)
	}
	if f.host != "" {
		host, err := episode.ParseName(f.host)
		if err != nil {
			return o, cli.UsageError(fmt.Errorf("--host: %w", err))
		}
		o.Host = host
	}
	if err := cli.BecomeServiceUser(c, indexState(o.EpisodesRoot, o.Index)); err != nil {
		return o, err
	}
	noteUnknownHost(c, o.EpisodesRoot, f.host)
	return o, nil
}

// noteUnknownHost notes that a host has stored nothing below a directory: its name may be
// wrong, and a command that reads none of its archives reports no problem.
func noteUnknownHost(c *cobra.Command, episodes, host string) {
	if host == "" {
		return
	}
	if _, err := os.Lstat(filepath.Join(episodes, host)); errors.Is(err, fs.ErrNotExist) {
		cli.Note(c, "host %s has stored nothing here yet; %s", host, suggestHost(host, storedHosts(episodes)))
	}
}

// indexState returns the state of an index, which need not be in a data directory.
func indexState(episodes, file string) serviceuser.State {
	s := serviceuser.State{Dir: filepath.Dir(file), Layout: index.Layout(filepath.Base(file))}
	if filepath.Base(file) == datadir.IndexFile && filepath.Join(s.Dir, "episodes") == filepath.Clean(episodes) {
		s.Layout = receiver.Layout(true)
	}
	return s
}

func backfillCommand(o *options) *cobra.Command {
	var f indexFlags
	c := &cobra.Command{
		Use:   "backfill",
		Short: "Append a row for each archive that has none",
		Long: `Backfill appends a row for each stored archive that has none. It can run while
the receiver runs. If root runs it, it becomes the user that owns the directory
of the index, so that the receiver can write the index afterwards. An archive
that is corrupt or cannot be decoded is reported on stderr and gets no row; the
others are processed. On a terminal it shows its progress.

Exit codes: 1 an archive got no row, or it failed.`,
		Args: cobra.NoArgs,
		Example: `  receiver index backfill --dry-run
  receiver index backfill --host lab-01
  receiver index backfill --episodes-root copy/episodes --index copy/index.jsonl`,
	}
	f.addTo(c, o)
	c.Flags().BoolVar(&f.opts.DryRun, "dry-run", false, "print what would be appended without writing it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		in, err := f.openBucket(c, o)
		if err != nil {
			return err
		}
		if in != nil {
			return backfillBucket(c, in, &f)
		}
		opts, err := f.fsckOptions(c, o)
		if err == nil && !opts.DryRun {
			err = cli.UsageError(datadir.CheckHere(filepath.Dir(opts.Index)))
		}
		if err != nil {
			return err
		}
		return runBackfill(c, opts, f.json, f.full)
	}
	return c
}

func runBackfill(c *cobra.Command, opts fsck.Options, asJSON, full bool) error {
	display := cli.NewDisplay(c)
	defer display.Stop()
	program, stderr := c.Root().Name(), display.Above(c.ErrOrStderr())
	startProgress(display, &opts, "adding rows")
	opts.Bad = func(err error) {
		text := err.Error()
		if differ, ok := errors.AsType[*fsck.DigestError](err); ok {
			text = cli.ShortenDigests(text, full, differ.Got, differ.Want)
		}
		fmt.Fprintf(stderr, "%s: not indexed: %s\n", program, printable.Text(text))
	}
	opts.Notify = func(n index.TailNotice) { fmt.Fprintf(stderr, "%s: %s\n", program, printable.Text(n.String())) }
	opts.BadMeta = func(err error) { fmt.Fprintf(stderr, "%s: no commit: %s\n", program, printable.Text(err.Error())) }
	var expanding expandingNotes
	opts.Expanding = expanding.addArchive
	report, err := fsck.Backfill(c.Context(), opts)
	display.Stop()
	if err != nil {
		return indexError(err)
	}
	if report.Underway > 0 {
		fmt.Fprintf(stderr, "%s: %s in flight: the receiver will write the rows\n", program, cli.FormatCountWith(report.Underway, "upload", "is", "are"))
	}
	expanding.printTo(stderr, program)
	if err := printBackfill(c.OutOrStdout(), report, opts, asJSON); err != nil {
		return err
	}
	return unindexedError(report)
}

// unindexedError returns an error if archives got no row.
func unindexedError(r fsck.BackfillReport) error {
	if r.Bad == 0 {
		return nil
	}
	return fmt.Errorf("%s got no row", cli.FormatCount(r.Bad, "file"))
}

// startProgress shows the progress of a command that uses opts.
func startProgress(display *progress.Display, opts *fsck.Options, what string) {
	var count progress.Counter
	opts.Progress, opts.Checked, opts.Total = count.AddBytes, count.AddItem, count.SetTotal
	display.Start(func() progress.Status { return count.Status(what) })
}

func printBackfill(w io.Writer, r fsck.BackfillReport, opts fsck.Options, asJSON bool) error {
	if asJSON {
		return cli.WriteJSON(w, r)
	}
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "scanned: %d already-indexed: %d to-backfill: %d\n", r.Scanned, r.Indexed, r.Missing)
	switch {
	case r.Missing == 0:
	case !opts.DryRun:
		fmt.Fprintf(out, "backfilled %d rows into %s\n", r.Written, opts.Index)
	default:
		for _, row := range r.Rows {
			out.Write(row.Append(nil))
		}
		if r.More > 0 {
			fmt.Fprintf(out, "... (%d more)\n", r.More)
		}
	}
	return out.Flush()
}

func verifyCommand(o *options) *cobra.Command {
	var f indexFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare the index with the stored archives",
		Long: `Verify checks that each row has an archive and each archive a row, and that they
agree. It changes nothing and can run while the receiver runs. It prints a line
for each finding. On a terminal it shows its progress.

Exit codes: 1 there are findings, or it failed.`,
		Args: cobra.NoArgs,
		Example: `  receiver index verify
  receiver index verify --deep --json
  receiver index verify --present --episodes-root part/episodes`,
	}
	f.addTo(c, o)
	c.Flags().BoolVar(&f.opts.Deep, "deep", false, "read and decode every archive and compare its sha256")
	c.Flags().BoolVar(&f.opts.Present, "present", false, "check only archives that exist, for a partial copy")
	c.Long += `

With --deep, an archive is decoded to at most 128 times its size, unless a scrub
has decoded it before; a note on stderr counts such archives.`
	c.RunE = func(c *cobra.Command, _ []string) error {
		in, err := f.openBucket(c, o)
		if err != nil {
			return err
		}
		if in != nil {
			return runVerify(c, f.opts, f.json, f.full, func(ctx context.Context, opts fsck.Options, found func(fsck.Finding)) (fsck.VerifyReport, error) {
				return s3backend.Verify(ctx, in, opts, found)
			})
		}
		opts, err := f.fsckOptions(c, o)
		if err != nil {
			return err
		}
		return runVerify(c, opts, f.json, f.full, fsck.Verify)
	}
	return c
}

// verifyFunc is [fsck.Verify], or the same for a bucket.
type verifyFunc func(context.Context, fsck.Options, func(fsck.Finding)) (fsck.VerifyReport, error)

func runVerify(c *cobra.Command, opts fsck.Options, asJSON, full bool, verify verifyFunc) error {
	display := cli.NewDisplay(c)
	defer display.Stop()
	what := "checking archives"
	if opts.Deep {
		what = "reading archives"
	}
	startProgress(display, &opts, what)
	var expanding expandingNotes
	opts.Expanding = expanding.addArchive
	out := bufio.NewWriter(display.Above(c.OutOrStdout()))
	report, err := verify(c.Context(), opts, func(found fsck.Finding) {
		printFinding(out, found, asJSON, full)
		if display.Visible() {
			out.Flush() // an operator waits for it; the writer keeps its error
		}
	})
	display.Stop()
	if err != nil {
		return indexError(errors.Join(err, out.Flush()))
	}
	expanding.printTo(c.ErrOrStderr(), c.Root().Name())
	printVerified(out, report, asJSON)
	if err := out.Flush(); err != nil {
		return err
	}
	if report.Findings > 0 {
		return fmt.Errorf("the index and the stored files differ: %s", cli.FormatCount(report.Findings, "finding"))
	}
	return nil
}

func printFinding(w io.Writer, f fsck.Finding, asJSON, full bool) {
	if asJSON {
		cli.WriteJSON(w, f) // the writer keeps its error
		return
	}
	line := string(f.Kind)
	if f.Episode != "" {
		line += fmt.Sprintf(" %s/%s", f.Host, f.Episode)
	}
	if f.Line > 0 {
		line += fmt.Sprintf(" line %d", f.Line)
	}
	fmt.Fprintf(w, "%s: %s\n", line, printable.Text(cli.ShortenDigests(f.Detail, full, f.Digests...)))
}

func printVerified(w io.Writer, r fsck.VerifyReport, asJSON bool) {
	if asJSON {
		cli.WriteJSON(w, r) // the writer keeps its error
		return
	}
	fmt.Fprintf(w, "files: %d rows: %d underway: %d read: %d findings: %d\n", r.Files, r.Rows, r.Underway, r.Read, r.Findings)
}

// maxExpandingNamed is the maximum number of partly decoded archives per host in a note.
const maxExpandingNamed = 3

// expandingNotes collects the partly decoded archives, which are printed at the end, one line per
// host.
type expandingNotes struct {
	hosts []episode.Name
	names map[episode.Name][]episode.Name
	count map[episode.Name]int
}

func (n *expandingNotes) addArchive(key episode.Key) {
	if n.count == nil {
		n.names, n.count = make(map[episode.Name][]episode.Name), make(map[episode.Name]int)
	}
	n.count[key.Host]++
	if n.count[key.Host] == 1 {
		n.hosts = append(n.hosts, key.Host)
	}
	if len(n.names[key.Host]) < maxExpandingNamed {
		n.names[key.Host] = append(n.names[key.Host], key.Name)
	}
}

func (n *expandingNotes) printTo(w io.Writer, program string) {
	for _, host := range n.hosts {
		more := ""
		if n.count[host] > maxExpandingNamed {
			more = ", ..."
		}
		fmt.Fprintf(w, "%s: %s: %d archives decode to more than %d times their size and were decoded only partly: %s%s; 'receiver scrub --host %s' decodes them once\n",
			program, host, n.count[host], scrub.MaxRatio, strings.Trim(fmt.Sprint(n.names[host]), "[]"), more, host)
	}
}

// indexError gives err its exit code.
func indexError(err error) error {
	if errors.Is(err, fsck.ErrNoEpisodes) {
		return cli.UsageError(err)
	}
	return err
}
