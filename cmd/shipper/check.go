package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
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
	reload := false
	c := &cobra.Command{
		Use:   "check",
		Short: "Check what a start would read, without the network",
		Long: `Check reads what the shipper would read at its start and says what is wrong
with it. If root runs it, it makes sure that the shipper's user can read the
files, and hands over to that user what an earlier run as root left in the
shipper's folders; nothing else changes. It exits with 2 if something is wrong.

With --reload it loads only what a reload loads. The unit runs it before each
reload, so that 'systemctl reload' fails if the reload would.`,
		Example: "  shipper check\n  shipper check --reload",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runCheck(c, o, reload) },
	}
	c.Flags().BoolVar(&reload, "reload", false, "load what a reload loads, and nothing else")
	return c
}

func runCheck(c *cobra.Command, o *options, reload bool) error {
	if reload {
		cli.UseConfigOfDaemon(c, &o.config)
	}
	cfg, err := o.load()
	if err != nil {
		return err
	}
	papers, err := pki.LoadClient(credentials(cfg))
	if err == nil && !reload {
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
	f := facts{o.config, string(cfg.OutboxDir), papers.NotAfter(), serviceuser.Current().Name(), files(cfg)}
	switch {
	case o.json:
		return cli.JSON(c.OutOrStdout(), f)
	case reload:
		return cli.PrintReload(c.OutOrStdout(), f.Files, f.Config)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "config\t%s\noutbox\t%s\n", f.Config, f.OutboxDir)
	fmt.Fprintf(w, "files\treadable for %s: %s\n", f.User, strings.Join(f.Files, " "))
	fmt.Fprintf(w, "certificate\tvalid until %s\nok\n", f.CertNotAfter.UTC().Format(time.DateOnly))
	return w.Flush()
}
