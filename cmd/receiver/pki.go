package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/ca"
	"cis490/internal/cli"
	"cis490/internal/episode"
	"cis490/internal/pki"
	"cis490/internal/revocation"
)

// maxDays keeps expiry dates within the years that certificates can represent.
const maxDays = 36500

// pkiCommand returns "receiver pki". Its commands but rotate need no configuration, so that they can
// run on another machine, which keeps the CA keys.
func pkiCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "Create, list, revoke and renew certificates",
		Long: `Pki manages the certificates with which hosts and receiver authenticate each
other.

One directory holds both CAs. Keep it where only the operator can read it. The
receiver needs only server.crt, server.key, hosts-ca.crt and hosts.crl from it.`,
		Example: `  receiver pki init --dir /etc/cis490/pki --name receiver.lab,10.0.0.1
  receiver pki issue lab-01 --dir /etc/cis490/pki --out ./lab-01`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(pkiInitCommand(), pkiIssueCommand(), pkiListCommand(), pkiRevokeCommand(), pkiRenewCommand(), pkiRotateCommand(o))
	return cmd
}

func pkiInitCommand() *cobra.Command {
	var dir string
	var o ca.InitOptions
	var days, caDays int
	cmd := &cobra.Command{
		Use:   "init --dir DIR --name NAME[,IP...]",
		Short: "Create the CAs and the receiver's certificate",
		Long: `Init creates both CAs and the receiver's certificate in a directory, which it
creates too. It never replaces an existing CA.

The names are the DNS names and IP addresses by which hosts reach the receiver.`,
		Example: `  receiver pki init --dir /etc/cis490/pki --name receiver.lab,10.0.0.1`,
		Args: checkArgs(cobra.NoArgs, func([]string) error {
			return errors.Join(o.Validate(), checkDays("days", days), checkDays("ca-days", caDays))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.LeafValid, o.CAValid = inDays(days), inDays(caDays)
			if err := ca.Init(dir, o); err != nil {
				return err
			}
			if asksJSON(cmd) {
				return cli.WriteJSON(cmd.OutOrStdout(), createdCAs{
					Dir: dir, CAFile: filepath.Join(dir, "ca.crt"), ClientCAFile: filepath.Join(dir, "hosts-ca.crt"),
					CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"), CRLFile: filepath.Join(dir, "hosts.crl"),
					Issuing: !o.Offline, CertDays: days,
				})
			}
			return printf(cmd.OutOrStdout(), `%[1]s now holds:
  ca.crt        for the hosts: the CA of the receiver (ca_file)
  hosts-ca.crt  for the receiver: the CA of the hosts (client_ca_file)
  server.crt    the receiver's certificate and
  server.key    its key, which the receiver must be able to read
  hosts.crl     the list of revoked certificates, empty now (crl_file)
  ca.key and hosts-ca.key, which only the operator may be able to read
%[3]sserver.crt expires in %[2]d days; "receiver pki renew" renews it.
Next, for each host: receiver pki issue HOST --dir %[1]s --out DIR
`, dir, days, issuingFiles(o.Offline))
		},
	}
	dirFlag(cmd, &dir)
	addJSON(cmd, printsObject)
	cmd.Flags().BoolVar(&o.Offline, "offline", false, "create no issuing CAs: only the roots can sign")
	cmd.Flags().StringSliceVar(&o.Names, "name", nil, "DNS `NAMES` and IPs of the receiver (required)")
	cmd.Flags().StringVar(&o.TrustDomain, "trust-domain", pki.DefaultTrustDomain, "trust `DOMAIN` of the hosts")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "make server.crt valid for `N` days")
	cmd.Flags().IntVar(&caDays, "ca-days", asDays(ca.DefaultCAValid), "make the CAs valid for `N` days")
	mustMark(cmd.MarkFlagRequired("name"))
	return cmd
}

// createdCAs is what init prints as JSON.
type createdCAs struct {
	Dir          string `json:"dir"`
	CAFile       string `json:"ca_file"`
	ClientCAFile string `json:"client_ca_file"`
	CertFile     string `json:"cert_file"`
	KeyFile      string `json:"key_file"`
	CRLFile      string `json:"crl_file"`
	Issuing      bool   `json:"issuing"`   // there are issuing CAs
	CertDays     int    `json:"cert_days"` // for which the receiver's certificate is valid
}

// issuingFiles describes the files of the issuing CAs.
func issuingFiles(offline bool) string {
	if offline {
		return ""
	}
	return `  ca-issuing and hosts-ca-issuing (.crt, .key), CAs below the other two:
                with them, ca.key and hosts-ca.key can be kept offline
`
}

func pkiIssueCommand() *cobra.Command {
	var dir, out string
	var o ca.IssueOptions
	var days int
	cmd := &cobra.Command{
		Use:   "issue HOST --dir DIR --out OUT",
		Short: "Issue a certificate to a host",
		Long: `Issue creates a key and a certificate for a host and writes the files that the
host needs to the directory OUT, which it creates: ca.crt, HOST.crt and
HOST.key. HOST is the host_id of the host's configuration.

A host may have several certificates. Older ones stay valid until they expire or
are revoked.`,
		Example: `  receiver pki issue lab-01 --dir /etc/cis490/pki --out ./lab-01`,
		Args: checkArgs(hostArg, func(args []string) error {
			return errors.Join(ca.CheckHost(episode.Name(args[0])), checkDays("days", days))
		}),
		ValidArgsFunction: cli.CompleteFrom(true, findIssued),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Valid = inDays(days)
			issued, err := ca.IssueHost(dir, episode.Name(args[0]), out, o)
			if err != nil {
				return err
			}
			cert, key := filepath.Join(out, args[0]+".crt"), filepath.Join(out, args[0]+".key")
			if asksJSON(cmd) {
				return cli.WriteJSON(cmd.OutOrStdout(), issuedCertificate{issued.Host, issued.Serial, issued.NotAfter.UTC(), filepath.Join(out, "ca.crt"), cert, key})
			}
			return printf(cmd.OutOrStdout(), `%[2]s is valid for host %[1]s until %[4]s (serial %[5]s)
Next: copy these files to /etc/cis490/pki on %[1]s, then delete the key here:
  %[6]s
  %[2]s
  %[3]s
`, issued.Host, cert, key, formatDate(issued.NotAfter), issued.Serial, filepath.Join(out, "ca.crt"))
		},
	}
	dirFlag(cmd, &dir)
	addJSON(cmd, printsObject)
	cmd.Flags().StringVar(&out, "out", "", "write the host's files to `OUT` (required)")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "make the certificate valid for `N` days")
	cmd.Flags().BoolVar(&o.Force, "force", false, "replace existing files of this host")
	mustMark(cmd.MarkFlagRequired("out"))
	return cmd
}

// issuedCertificate is what issue prints as JSON.
type issuedCertificate struct {
	Host     episode.Name `json:"host_id"`
	Serial   string       `json:"serial"`
	NotAfter time.Time    `json:"not_after"`
	CAFile   string       `json:"ca_file"`
	CertFile string       `json:"cert_file"`
	KeyFile  string       `json:"key_file"`
}

func pkiListCommand() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list --dir DIR",
		Short:   "List the certificates issued to hosts",
		Long:    "List lists the certificates issued to hosts.",
		Example: `  receiver pki list --dir /etc/cis490/pki`,
		Args:    checkArgs(cobra.NoArgs, nil),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := revocation.ListIssued(dir, time.Now(), recordsFor(dir))
			if list == nil {
				return err
			}
			if asJSON {
				return errors.Join(cli.WriteJSONList(cmd.OutOrStdout(), list), err)
			}
			return errors.Join(printTable(cmd.OutOrStdout(), list), err)
		},
	}
	dirFlag(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	return cmd
}

func pkiRevokeCommand() *cobra.Command {
	var dir, serial, cert string
	cmd := &cobra.Command{
		Use:   "revoke {HOST | --serial HEX | --cert FILE} --dir DIR",
		Short: "Revoke certificates of hosts",
		Long: `Revoke adds all certificates of a host, or a single one, to hosts.crl. It takes
effect when the receiver has the file (crl_file) and is reloaded. To refuse a
host immediately, use 'receiver hosts disable' on the receiver. Certificates
issued to the host afterwards are valid.

With HOST it finds certificates that were issued from this directory. If the
directory was restored from a backup, it does not list those issued since: use
--serial or --cert, which need no record. 'openssl x509 -serial' prints a serial
number. First copy the receiver's hosts.crl into the restored directory, or
certificates that were revoked since the backup become valid again.`,
		Example: `  receiver pki revoke lab-01 --dir /etc/cis490/pki
  receiver pki revoke --cert lab-01.crt --dir /etc/cis490/pki`,
		Args: checkArgs(func(cmd *cobra.Command, args []string) error {
			return checkRevoke(cmd, args, serial)
		}, nil),
		ValidArgsFunction: cli.CompleteFrom(true, findIssued),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return revokeOne(cmd, dir, serial, cert)
			}
			revoked, err := revocation.RevokeHost(dir, episode.Name(args[0]), time.Now(), recordsFor(dir))
			if len(revoked) == 0 {
				return err
			}
			if asksJSON(cmd) {
				list := make([]revokedCertificate, len(revoked))
				for i, r := range revoked {
					list[i] = revokedCertificate{Serial: r.Serial, Host: r.Host}
				}
				return errors.Join(cli.WriteJSON(cmd.OutOrStdout(), revokedCertificates{filepath.Join(dir, "hosts.crl"), list}), err)
			}
			return errors.Join(printf(cmd.OutOrStdout(), "%s: certificates of host %s revoked: %d\n"+copyNext,
				filepath.Join(dir, "hosts.crl"), args[0], len(revoked), "crl_file"), err)
		},
	}
	dirFlag(cmd, &dir)
	addJSON(cmd, printsObject)
	cmd.Flags().StringVar(&serial, "serial", "", "revoke the certificate with the serial number `HEX`")
	cmd.Flags().StringVar(&cert, "cert", "", "revoke the certificate in the PEM `FILE`")
	return cmd
}

// revokedCertificates are what revoke prints as JSON.
type revokedCertificates struct {
	CRLFile      string               `json:"crl_file"`
	Certificates []revokedCertificate `json:"certificates"`
}

type revokedCertificate struct {
	Serial  string       `json:"serial"`
	Host    episode.Name `json:"host_id,omitempty"` // empty if not known
	Already bool         `json:"already,omitempty"` // it was revoked before; only with --serial and --cert
}

// checkRevoke checks that exactly one of host, serial and certificate is given.
func checkRevoke(cmd *cobra.Command, args []string, serial string) error {
	bySerial, byCert := cmd.Flags().Changed("serial"), cmd.Flags().Changed("cert")
	switch {
	case bySerial && byCert, (bySerial || byCert) && len(args) > 0:
		return errors.New("requires exactly one of HOST, --serial and --cert")
	case bySerial:
		_, err := revocation.ParseSerial(serial)
		return err
	case byCert:
		return nil
	}
	return hostArg(cmd, args)
}

// revokeOne revokes a certificate that is named by its serial, or by a file.
func revokeOne(cmd *cobra.Command, dir, serial, cert string) error {
	var revoked revocation.Result
	var err error
	if cert != "" {
		revoked, err = revocation.RevokeCertificate(dir, cert, time.Now())
	} else {
		number, perr := revocation.ParseSerial(serial)
		if perr != nil {
			return cli.UsageError(perr)
		}
		revoked, err = revocation.RevokeSerial(dir, number, time.Now(), recordsFor(dir))
	}
	if revoked.Serial == "" {
		return err
	}
	if asksJSON(cmd) {
		one := revokedCertificate{revoked.Serial, revoked.Host, revoked.Already}
		return errors.Join(cli.WriteJSON(cmd.OutOrStdout(), revokedCertificates{filepath.Join(dir, "hosts.crl"), []revokedCertificate{one}}), err)
	}
	whose, what := "host unknown", "revoked"
	if revoked.Host != "" {
		whose = "host " + string(revoked.Host)
	}
	if revoked.Already {
		what = "was already revoked"
	}
	return errors.Join(printf(cmd.OutOrStdout(), "%s: certificate %s (%s) %s\n"+copyNext,
		filepath.Join(dir, "hosts.crl"), revoked.Serial, whose, what, "crl_file"), err)
}

// copyNext says what to do with a new file of the receiver. It has a verb for the file's key.
const copyNext = `Next: copy it to the receiver as its %s, and reload the receiver:
  systemctl reload cis490-receiver
`

func pkiRenewCommand() *cobra.Command {
	var dir string
	var o ca.RenewOptions
	var days int
	cmd := &cobra.Command{
		Use:   "renew --dir DIR",
		Short: "Renew the receiver's own certificate",
		Long: `Renew replaces server.crt by one that expires later. Key and CA stay, so nothing
changes for the hosts. Without --name, the names stay too.`,
		Example: `  receiver pki renew --dir /etc/cis490/pki`,
		Args: checkArgs(cobra.NoArgs, func([]string) error {
			var err error
			if len(o.Names) > 0 {
				err = ca.InitOptions{Names: o.Names}.Validate()
			}
			return errors.Join(err, checkDays("days", days))
		}),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.LeafValid = inDays(days)
			ends, err := ca.RenewServer(dir, o)
			if err != nil {
				return err
			}
			if asksJSON(cmd) {
				return cli.WriteJSON(cmd.OutOrStdout(), renewedCertificate{filepath.Join(dir, "server.crt"), ends.UTC()})
			}
			return printf(cmd.OutOrStdout(), "%s is valid until %s\n"+copyNext, filepath.Join(dir, "server.crt"), formatDate(ends), "cert_file")
		},
	}
	dirFlag(cmd, &dir)
	addJSON(cmd, printsObject)
	cmd.Flags().StringSliceVar(&o.Names, "name", nil, "new DNS `NAMES` and IPs of the receiver")
	cmd.Flags().IntVar(&days, "days", asDays(pki.DefaultLeafValid), "make the certificate valid for `N` days")
	return cmd
}

// renewedCertificate is what renew prints as JSON.
type renewedCertificate struct {
	CertFile string    `json:"cert_file"`
	NotAfter time.Time `json:"not_after"`
}

// recordsFor returns the records of hosts that joined a receiver whose configuration is beside a CA
// directory, as 'receiver setup' has it. They may not exist.
func recordsFor(dir string) string {
	if path, err := filepath.Abs(dir); err == nil {
		dir = path
	}
	return pki.RecordsIn(pki.IdentityDir(filepath.Clean(dir)))
}

// addJSON adds --json to a command, for [asksJSON].
func addJSON(c *cobra.Command, usage string) { c.Flags().Bool("json", false, usage) }

// asksJSON reports whether a command is to print JSON.
func asksJSON(c *cobra.Command) bool {
	on, err := c.Flags().GetBool("json")
	return err == nil && on
}

// Usages of --json.
const (
	printsObject  = "print JSON"
	printsObjects = "print JSON, one object per line"
)

func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "", "directory `DIR` of the CAs (required)")
	mustMark(cmd.MarkFlagRequired("dir"))
}

// mustMark panics if a flag does not exist, which is a bug.
func mustMark(err error) {
	if err != nil {
		panic(err)
	}
}

// checkArgs adds checks of flags to those of arguments, so that misuse is found before a
// command runs. A directory must not be empty: that is usually an unset shell variable, and
// would mean the working directory.
func checkArgs(args cobra.PositionalArgs, more func([]string) error) cobra.PositionalArgs {
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
				return fmt.Errorf("--%s is empty: a directory is required", name)
			}
		}
		if flag := cmd.Flags().Lookup("cert"); flag != nil && flag.Changed && flag.Value.String() == "" {
			return errors.New("--cert is empty: a file is required")
		}
		if more == nil {
			return nil
		}
		return more(given)
	}
}

// hostArg checks that the arguments are one name of a host.
func hostArg(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("requires the name of one host, got %d", len(args))
	}
	_, err := episode.ParseName(args[0])
	return err
}

func checkDays(flag string, days int) error {
	if days < 1 || days > maxDays {
		return fmt.Errorf("--%s %d: must be between 1 and %d", flag, days, maxDays)
	}
	return nil
}

func inDays(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }

func asDays(d time.Duration) int { return int(d / (24 * time.Hour)) }

func formatDate(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func printf(w io.Writer, format string, args ...any) error {
	_, err := fmt.Fprintf(w, format, args...)
	return err
}

// printTable prints the host last, since its name may be long.
func printTable(w io.Writer, list []pki.Issued) error {
	const digits = 16 // of a serial: enough to distinguish them; --json prints all
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tFROM\tUNTIL\tSERIAL\tHOST")
	for _, i := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", i.State, formatDate(i.NotBefore), formatDate(i.NotAfter), i.Serial[:digits], i.Host)
	}
	return table.Flush()
}
