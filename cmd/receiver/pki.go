package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/episode"
	"cis490/internal/pki"
)

// maxDays keeps certificates within the years that certificates can spell.
const maxDays = 36500

// pkiCommand returns "receiver pki": the lab's certificates, without a
// configuration, on whatever machine keeps the CA.
func pkiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Make, list and revoke certificates",
		Long: `Makes the certificates by which hosts and receiver know each other.

A directory holds both CAs. Keep it where only the operator can read it; the
receiver needs server.crt, server.key, hosts-ca.crt and hosts.crl of it.`,
		Example: `  receiver pki init --dir /etc/cis490/pki --name receiver.lab,10.0.0.1
  receiver pki issue lab-01 --dir /etc/cis490/pki --out ./lab-01`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pkiInitCommand(), pkiIssueCommand(), pkiListCommand(), pkiRevokeCommand(), pkiRenewCommand())
	return cmd
}

func pkiInitCommand() *cobra.Command {
	var dir string
	var o pki.InitOptions
	var days, caDays int
	cmd := &cobra.Command{
		Use:   "init --dir D --name NAME[,IP...]",
		Short: "Make the CAs and the receiver's certificate",
		Long: `Makes both CAs and the receiver's certificate in a directory, which is created.
It never replaces a CA that is there.

The names are those that hosts reach the receiver by: DNS names, IP addresses.`,
		Example: `  receiver pki init --dir /etc/cis490/pki --name receiver.lab,10.0.0.1`,
		Args: checked(cobra.NoArgs, func([]string) error {
			return errors.Join(o.Validate(), checkDays("days", days), checkDays("ca-days", caDays))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.LeafValid, o.CAValid = inDays(days), inDays(caDays)
			if err := pki.InitCA(dir, o); err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), `%[1]s now holds:
  ca.crt        for the hosts: who may be the receiver
  hosts-ca.crt  for the receiver: who may be a host (client_ca_file)
  server.crt    the receiver's certificate and
  server.key    its key, which the receiver must be able to read
  hosts.crl     what is revoked, so far nothing (crl_file)
  ca.key and hosts-ca.key, which nobody but the operator must be able to read
server.crt ends in %[2]d days; "receiver pki renew" makes the next.
Next, for each host: receiver pki issue HOST --dir %[1]s --out DIR
`, dir, days)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringSliceVar(&o.Names, "name", nil, "the receiver's DNS `names` and IPs (required)")
	cmd.Flags().StringVar(&o.TrustDomain, "trust-domain", pki.DefaultTrustDomain, "trust `domain` of the hosts")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "how long server.crt is good")
	cmd.Flags().IntVar(&caDays, "ca-days", asDays(pki.DefaultCAValid), "how long the CAs are good")
	must(cmd.MarkFlagRequired("name"))
	return cmd
}

func pkiIssueCommand() *cobra.Command {
	var dir, out string
	var o pki.IssueOptions
	var days int
	cmd := &cobra.Command{
		Use:   "issue HOST --dir D --out DIR",
		Short: "Make a host's certificate",
		Long: `Makes a key and a certificate for a host and writes what the host needs to a
directory, which is created: ca.crt, HOST.crt and HOST.key. HOST is the host_id
of its configuration.

A host may have several certificates; those before stay good until they expire
or are revoked.`,
		Example: `  receiver pki issue lab-01 --dir /etc/cis490/pki --out ./lab-01`,
		Args: checked(hostArg, func(args []string) error {
			return errors.Join(pki.CheckHost(episode.Name(args[0])), checkDays("days", days))
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Valid = inDays(days)
			issued, err := pki.Issue(dir, episode.Name(args[0]), out, o)
			if err != nil {
				return err
			}
			key := filepath.Join(out, args[0]+".key")
			return printf(cmd.OutOrStdout(), `%[2]s is for host %[1]s until %[4]s (serial %[5]s)
Next: bring these files to /etc/cis490/pki on %[1]s, then delete the key here:
  %[6]s
  %[2]s
  %[3]s
`, issued.Host, filepath.Join(out, args[0]+".crt"), key, date(issued.NotAfter), issued.Serial, filepath.Join(out, "ca.crt"))
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&out, "out", "", "directory for the host's files (required)")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "how long the certificate is good")
	cmd.Flags().BoolVar(&o.Force, "force", false, "replace files of this host that are there already")
	must(cmd.MarkFlagRequired("out"))
	return cmd
}

func pkiListCommand() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list --dir D",
		Short:   "List the certificates that were issued to hosts",
		Long:    "Lists the certificates that were issued to hosts.",
		Example: `  receiver pki list --dir /etc/cis490/pki`,
		Args:    checked(cobra.NoArgs, nil),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := pki.List(dir, time.Now())
			if list == nil {
				return err
			}
			if asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), list), err)
			}
			return errors.Join(printTable(cmd.OutOrStdout(), list), err)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line")
	return cmd
}

func pkiRevokeCommand() *cobra.Command {
	var dir, serial, cert string
	cmd := &cobra.Command{
		Use:   "revoke {HOST | --serial HEX | --cert FILE} --dir D",
		Short: "Revoke certificates of hosts",
		Long: `Puts all certificates of a host on hosts.crl, or a single one. It takes effect
when the receiver has the file (crl_file) and is reloaded. To shut a host out at
once, use 'receiver hosts disable' on the receiver.

By host it finds what was issued from this directory. One that was restored from
a backup lacks what was issued since: --serial and --cert need no record.
'openssl x509 -serial' prints a serial. Bring the receiver's hosts.crl back into
such a directory first, or what was revoked since the backup is valid again.

A certificate issued to the host afterwards is valid again.`,
		Example: `  receiver pki revoke lab-01 --dir /etc/cis490/pki
  receiver pki revoke --cert lab-01.crt --dir /etc/cis490/pki`,
		Args: checked(func(cmd *cobra.Command, args []string) error {
			return checkRevoke(cmd, args, serial)
		}, nil),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return revokeOne(cmd, dir, serial, cert)
			}
			revoked, err := pki.Revoke(dir, episode.Name(args[0]), time.Now())
			if len(revoked) == 0 {
				return err
			}
			return errors.Join(printf(cmd.OutOrStdout(), `%[1]s: certificates of host %[3]s revoked: %[2]d
Next: bring it to the receiver as its crl_file, and reload the receiver:
  systemctl reload cis490-receiver
`, filepath.Join(dir, "hosts.crl"), len(revoked), args[0]), err)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringVar(&serial, "serial", "", "revoke the certificate with this serial number, in `hex`")
	cmd.Flags().StringVar(&cert, "cert", "", "revoke the certificate in this PEM `file`")
	return cmd
}

// checkRevoke wants one of a host, a serial and a certificate.
func checkRevoke(cmd *cobra.Command, args []string, serial string) error {
	bySerial, byCert := cmd.Flags().Changed("serial"), cmd.Flags().Changed("cert")
	switch {
	case bySerial && byCert, (bySerial || byCert) && len(args) > 0:
		return errors.New("want one of HOST, --serial and --cert")
	case bySerial:
		_, err := pki.ParseSerial(serial)
		return err
	case byCert:
		return nil
	}
	return hostArg(cmd, args)
}

// revokeOne revokes a certificate that is named by its serial, or by a file.
func revokeOne(cmd *cobra.Command, dir, serial, cert string) error {
	var revoked pki.Revocation
	var err error
	if cert != "" {
		revoked, err = pki.RevokeCertificate(dir, cert, time.Now())
	} else {
		number, perr := pki.ParseSerial(serial)
		if perr != nil {
			return cli.UsageError(perr)
		}
		revoked, err = pki.RevokeSerial(dir, number, time.Now())
	}
	if err != nil {
		return err
	}
	whose, what := "no record of its host", "revoked"
	if revoked.Host != "" {
		whose = "host " + string(revoked.Host)
	}
	if revoked.Already {
		what = "was revoked before"
	}
	return printf(cmd.OutOrStdout(), `%s: certificate %s (%s) %s
Next: bring it to the receiver as its crl_file, and reload the receiver:
  systemctl reload cis490-receiver
`, filepath.Join(dir, "hosts.crl"), revoked.Serial, whose, what)
}

func pkiRenewCommand() *cobra.Command {
	var dir string
	var o pki.RenewOptions
	var days int
	cmd := &cobra.Command{
		Use:   "renew --dir D",
		Short: "Renew the receiver's own certificate",
		Long: `Replaces server.crt by one that lasts longer. Key and CA stay, so that the
hosts notice nothing. Without --name, the names stay too.`,
		Example: `  receiver pki renew --dir /etc/cis490/pki`,
		Args: checked(cobra.NoArgs, func([]string) error {
			var err error
			if len(o.Names) > 0 {
				err = pki.InitOptions{Names: o.Names}.Validate()
			}
			return errors.Join(err, checkDays("days", days))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.LeafValid = inDays(days)
			ends, err := pki.Renew(dir, o)
			if err != nil {
				return err
			}
			return printf(cmd.OutOrStdout(), `%s is good until %s
Next: bring it to the receiver as its cert_file, and reload the receiver:
  systemctl reload cis490-receiver
`, filepath.Join(dir, "server.crt"), date(ends))
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().StringSliceVar(&o.Names, "name", nil, "new DNS names and IP addresses of the receiver")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "how long the certificate is good")
	return cmd
}

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "", "directory of the CA (required)")
	must(cmd.MarkFlagRequired("dir"))
}

// must panics if a flag was named that does not exist, which is a bug.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// checked adds checks of flags to those of arguments, so that each misuse is
// found before a command runs. A directory must not be empty: that is a shell's
// unset variable, and would mean the working directory.
func checked(args cobra.PositionalArgs, more func([]string) error) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return err
		}
		// Cobra looks for required flags after the arguments; a missing one is
		// the better message.
		if err := cmd.ValidateRequiredFlags(); err != nil {
			return err
		}
		for _, name := range []string{"dir", "out"} {
			if flag := cmd.Flags().Lookup(name); flag != nil && flag.Value.String() == "" {
				return fmt.Errorf("--%s is empty: want a directory", name)
			}
		}
		if flag := cmd.Flags().Lookup("cert"); flag != nil && flag.Changed && flag.Value.String() == "" {
			return errors.New("--cert is empty: want a file")
		}
		if more == nil {
			return nil
		}
		return more(given)
	}
}

// hostArg wants one host's name.
func hostArg(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the name of one host, got %d", len(args))
	}
	_, err := episode.ParseName(args[0])
	return err
}

func checkDays(flag string, days int) error {
	if days < 1 || days > maxDays {
		return fmt.Errorf("--%s %d: want 1 to %d", flag, days, maxDays)
	}
	return nil
}

func inDays(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func asDays(d time.Duration) int { return int(d / (24 * time.Hour)) }

func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func printf(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

func printJSON(w io.Writer, list []pki.Issued) error {
	for _, i := range list {
		if err := cli.WriteJSON(w, i); err != nil {
			return err
		}
	}
	return nil
}

// printTable puts the host last: its name is the one thing that may be long.
func printTable(w io.Writer, list []pki.Issued) error {
	const digits = 16 // of a serial: enough to tell them apart; --json has all
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tFROM\tUNTIL\tSERIAL\tHOST")
	for _, i := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", i.State, date(i.NotBefore), date(i.NotAfter), i.Serial[:digits], i.Host)
	}
	return table.Flush()
}
