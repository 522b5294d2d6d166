package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/pki"
	"cis490/internal/receiver"
)

// facts are what check found.
type facts struct {
	Config       string    `json:"config"`
	Listen       string    `json:"listen"`
	DataDir      string    `json:"data_dir"`
	CertNotAfter time.Time `json:"cert_not_after"`
	// Disk says how long what was read back counts; empty before the first start.
	Disk     string `json:"disk,omitempty"`
	Lifetime string `json:"readings_bound_to,omitempty"` // disk, boot or process
}

// checkCommand looks at what the daemon would start from. It runs beside a
// daemon, as any user that may read the key, and writes nothing.
func checkCommand(o *options) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "check",
		Short: "Check what a start would read, and change nothing",
		Long: `Check reads what the receiver would read at its start and says what is wrong
with it, before a start or a reload. Like the daemon it exits with 2 if the
configuration is wrong, and with 1 if something that it names is.`,
		Example: "  receiver check\n  sudo -u cis490 receiver check    # may the daemon read its key?",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			f, err := check(o.config, cfg, time.Now())
			if err != nil {
				return err
			}
			if asJSON {
				return cli.JSON(c.OutOrStdout(), f)
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintf(w, "config\t%s\nlisten\t%s\ndata\t%s\n", f.Config, f.Listen, f.DataDir)
			fmt.Fprintf(w, "certificate\tvalid until %s\n", date(f.CertNotAfter))
			if f.Disk != "" {
				fmt.Fprintf(w, "disk\t%s\n", printable(f.Disk))
			}
			fmt.Fprintln(w, "ok")
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func check(file string, c receiver.Config, now time.Time) (facts, error) {
	f := facts{Config: file, Listen: c.Listen, DataDir: string(c.DataDir)}
	_, err := pki.LoadTrust(pki.Config{
		CertFile:     string(c.TLS.CertFile),
		KeyFile:      string(c.TLS.KeyFile),
		ClientCAFile: string(c.TLS.ClientCAFile),
		CRLFile:      string(c.TLS.CRLFile),
		TrustDomain:  c.Auth.TrustDomain,
		TokensFile:   string(c.Auth.TokensFile),
	})
	if err != nil {
		return f, err
	}
	pair, err := tls.LoadX509KeyPair(string(c.TLS.CertFile), string(c.TLS.KeyFile))
	if err != nil {
		return f, err
	}
	f.CertNotAfter = pair.Leaf.NotAfter
	if now.Before(pair.Leaf.NotBefore) || now.After(pair.Leaf.NotAfter) {
		return f, fmt.Errorf("%s is valid from %s to %s, and this machine's clock says %s: set the clock, or renew it with 'receiver pki renew'",
			c.TLS.CertFile, date(pair.Leaf.NotBefore), date(pair.Leaf.NotAfter), date(now))
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
	v, err := receiver.VolumeOf(c)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return f, nil // not there yet, or not for this user to see
	}
	f.Disk, f.Lifetime = v.String(), string(v.Lifetime)
	return f, err
}
