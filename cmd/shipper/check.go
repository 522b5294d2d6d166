package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
)

// facts are what check found.
type facts struct {
	Config       string    `json:"config"`
	OutboxDir    string    `json:"outbox_dir"`
	CertNotAfter time.Time `json:"cert_not_after"`
	User         string    `json:"user"`  // who the files were readable for
	Files        []string  `json:"files"` // what a start and a reload read
}

// checkCommand looks at what the daemon would start from, without the network.
func checkCommand(o *options) *cobra.Command {
	var reload, disk bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check what a start would read, without the network",
		Long: `Check reads what the shipper would read at its start and says what is wrong
with it. If root runs it, it makes sure that the shipper's user can read the
files, and hands over to that user what an earlier run as root left in the
shipper's folders; nothing else changes. It exits with 2 if something is wrong.

With --reload it loads only what a reload loads. The unit runs it before each
reload, so that 'systemctl reload' fails if the reload would. With --disk it
tries, as the shipper's user, what the shipper needs of the file systems of its
folders, and reads no certificate. The installer runs it.`,
		Example: "  shipper check\n  shipper check --reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if disk {
				return runCheckDisk(c, o)
			}
			return runCheck(c, o, reload)
		},
	}
	c.Flags().BoolVar(&disk, "disk", false, "try the file systems of the folders, and nothing else")
	c.Flags().BoolVar(&reload, "reload", false, "load what a reload loads, and nothing else")
	c.MarkFlagsMutuallyExclusive("disk", "reload")
	return c
}

// runCheckDisk probes the file systems. The outbox comes first: nobody else can write
// in it, and the other folders are on its file system.
func runCheckDisk(c *cobra.Command, o *options) error {
	if err := shipper.CheckKernel(); err != nil {
		return err
	}
	cfg, err := o.open(c)
	if err != nil {
		return err
	}
	err = cli.CheckDisks(c, string(cfg.OutboxDir), string(cfg.ShippedDir), string(cfg.EpisodesDir))
	if err != nil {
		return err
	}
	return startError(shipper.CheckMoves(cfg), o.config)
}

// runCheckReload loads what a reload loads, but for what [cli.LeaveHiddenOut] names.
func runCheckReload(c *cobra.Command, o *options, cfg shipper.Config) error {
	visible, hidden := cli.LeaveHiddenOut(files(cfg))
	if !slices.Contains(visible, string(cfg.Receiver.TokenFile)) {
		cfg.Receiver.TokenFile = ""
	}
	var err error
	if len(visible) == len(files(cfg)) { // without certificate or key there is nothing to try
		_, err = pki.LoadClient(credentials(cfg))
	}
	if err := errors.Join(cli.Wrong(err), cli.BecomeServiceUser(c, stateOf(cfg))); err != nil {
		return err
	}
	if err := serviceuser.CheckReadable(visible, cli.CheckLine(c)); err != nil {
		return cli.Wrong(err)
	}
	if o.json {
		return cli.JSON(c.OutOrStdout(), facts{Config: o.config, OutboxDir: string(cfg.OutboxDir), User: serviceuser.Current().Name(), Files: visible})
	}
	return cli.PrintReload(c.OutOrStdout(), visible, o.config, hidden)
}

func runCheck(c *cobra.Command, o *options, reload bool) error {
	if err := shipper.CheckKernel(); err != nil {
		return err
	}
	if reload {
		cli.UseConfigOfDaemon(c, &o.config)
	}
	cfg, err := o.load()
	if err != nil {
		return err
	}
	if reload {
		return runCheckReload(c, o, cfg)
	}
	cli.NoteLiteral(c, config.LiteralPaths(cfg))
	papers, err := pki.LoadClient(credentials(cfg))
	if err == nil {
		err = papers.Check(cfg.HostID, time.Now())
	}
	// What root left is handed over whatever is wrong with the files.
	if err := errors.Join(cli.Wrong(err), cli.BecomeServiceUser(c, stateOf(cfg))); err != nil {
		return err
	}
	// Root can read everything: the daemon's user must be able to.
	if err := serviceuser.CheckReadable(files(cfg), cli.CheckLine(c)); err != nil {
		return cli.Wrong(err)
	}
	if err := startError(shipper.CheckMoves(cfg), o.config); err != nil {
		return err
	}
	if _, err := shipper.Adopted(cfg); err != nil {
		return err
	}
	f := facts{o.config, string(cfg.OutboxDir), papers.NotAfter(), serviceuser.Current().Name(), files(cfg)}
	if o.json {
		return cli.JSON(c.OutOrStdout(), f)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "config\t%s\noutbox\t%s\n", f.Config, f.OutboxDir)
	fmt.Fprintf(w, "files\treadable for %s: %s\n", f.User, strings.Join(f.Files, " "))
	fmt.Fprintf(w, "certificate\tvalid until %s\nok\n", f.CertNotAfter.UTC().Format(time.DateOnly))
	return w.Flush()
}
