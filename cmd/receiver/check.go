package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/serviceuser"
)

// facts are what check found.
type facts struct {
	Config       string    `json:"config"`
	Listen       string    `json:"listen"`
	DataDir      string    `json:"data_dir"`
	CertNotAfter time.Time `json:"cert_not_after"`
	User         string    `json:"user"`  // who the files were readable for
	Files        []string  `json:"files"` // what a start and a reload read
	// Disk says how long what was read back counts; empty before the first start.
	Disk     string `json:"disk,omitempty"`
	Lifetime string `json:"readings_bound_to,omitempty"` // disk, boot or process
}

// checkCommand looks at what the daemon would start from. It runs beside a
// daemon, as root or as any user that may read the key.
func checkCommand(o *options) *cobra.Command {
	var asJSON, reload, disk bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check what a start would read, and change nothing",
		Long: `Check reads what the receiver would read at its start and says what is wrong
with it, before a start or a reload. If root runs it, it makes sure that the
receiver's user can read the files, and hands over to that user what an earlier
run as root left in data_dir; nothing else changes. Like the daemon it exits
with 2 if the configuration is wrong, and with 1 if something that it names is.

With --reload it loads only what a reload loads. The unit runs it before each
reload, so that 'systemctl reload' fails if the reload would. With --disk it
tries, as the receiver's user, what the receiver needs of the file system of
data_dir, and reads no certificate. The installer runs it.`,
		Example: "  receiver check\n  receiver check --reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := receiver.CheckKernel(); err != nil {
				return err
			}
			if disk {
				return runCheckDisk(c, o)
			}
			if reload {
				cli.UseConfigOfDaemon(c, &o.config)
			}
			cfg, err := o.load()
			if err != nil {
				return err
			}
			var f facts
			var hidden string
			if reload {
				f, hidden, err = checkReload(o.config, cfg)
			} else {
				cli.NoteLiteral(c, config.LiteralPaths(cfg))
				f, err = check(o.config, cfg, time.Now())
			}
			// What root left is handed over whatever is wrong with the files.
			if err := errors.Join(err, cli.BecomeServiceUser(c, stateOf(cfg))); err != nil {
				return err
			}
			// Root can read everything: the daemon's user must be able to.
			if err := serviceuser.CheckReadable(f.Files, cli.CheckLine(c)); err != nil {
				return err
			}
			f.User = serviceuser.Current().Name()
			if asJSON {
				return cli.JSON(c.OutOrStdout(), f)
			}
			if reload {
				return cli.PrintReload(c.OutOrStdout(), f.Files, f.Config, hidden)
			}
			return printFacts(c.OutOrStdout(), f)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&reload, "reload", false, "load what a reload loads, and nothing else")
	c.Flags().BoolVar(&disk, "disk", false, "try the file system of data_dir, and nothing else")
	c.MarkFlagsMutuallyExclusive("disk", "reload")
	return c
}

// runCheckDisk tries the file system of data_dir.
func runCheckDisk(c *cobra.Command, o *options) error {
	cfg, err := o.open(c)
	if err != nil {
		return err
	}
	if err := cli.CheckDisks(c, string(cfg.DataDir)); err != nil {
		return err
	}
	return startError(c.Context(), cfg.CheckMoves(), o.config)
}

func printFacts(to io.Writer, f facts) error {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "config\t%s\nlisten\t%s\ndata\t%s\n", f.Config, f.Listen, f.DataDir)
	fmt.Fprintf(w, "files\treadable for %s: %s\n", f.User, strings.Join(f.Files, " "))
	fmt.Fprintf(w, "certificate\tvalid until %s\n", date(f.CertNotAfter))
	if f.Disk != "" {
		fmt.Fprintf(w, "disk\t%s\n", printable(f.Disk))
	}
	fmt.Fprintln(w, "ok")
	return w.Flush()
}

// check loads what the daemon would load.
func check(file string, c receiver.Config, now time.Time) (facts, error) {
	f := facts{Config: file, Listen: c.Listen, DataDir: string(c.DataDir), Files: c.Trust().Files()}
	trust, err := pki.LoadTrust(c.Trust())
	if err != nil {
		return f, err
	}
	f.CertNotAfter = trust.NotAfter()
	if now.Before(trust.NotBefore()) || now.After(trust.NotAfter()) {
		return f, fmt.Errorf("%s is valid from %s to %s, and this machine's clock says %s: set the clock, or renew it with 'receiver pki renew'",
			c.TLS.CertFile, date(trust.NotBefore()), date(trust.NotAfter()), date(now))
	}
	info, err := os.Stat(string(c.DataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil // the daemon makes it
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("data_dir %s is no folder", c.DataDir)
	}
	if err != nil {
		return f, err
	}
	if err := c.CheckMoves(); err != nil {
		return f, startError(context.Background(), err, file)
	}
	if _, err := receiver.CountDisabled(c); err != nil && !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	if _, err := receiver.InspectStore(c); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return f, cli.Wrong(err)
	}
	v, err := receiver.VolumeOf(c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return f, nil // not there yet, or not for this user to see
	}
	f.Disk, f.Lifetime = v.String(), string(v.Lifetime)
	return f, errors.Join(err, c.CheckSpace())
}

// checkReload loads what a reload loads, but for what [cli.LeaveHiddenOut] names.
func checkReload(file string, c receiver.Config) (f facts, hidden string, err error) {
	f = facts{Config: file, Listen: c.Listen, DataDir: string(c.DataDir)}
	if f.Files, hidden = cli.LeaveHiddenOut(c.Trust().Files()); !slices.Contains(f.Files, string(c.Auth.TokensFile)) {
		c.Auth.TokensFile = ""
	}
	if len(f.Files) < len(c.Trust().Files()) {
		return f, hidden, nil // without certificate or key there is nothing to try
	}
	trust, err := pki.LoadTrust(c.Trust())
	if err != nil {
		return f, hidden, err
	}
	f.CertNotAfter = trust.NotAfter()
	return f, hidden, nil
}
