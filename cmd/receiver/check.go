package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/gate"
	"cis490/internal/printable"
	"cis490/internal/receiver"
	"cis490/internal/serviceuser"
	"cis490/internal/terminal"
)

// checkFacts is the result of a check.
type checkFacts struct {
	Config string `json:"config"`
	Listen string `json:"listen"` // the key; address is what is used
	*listenFacts
	DataDir      string     `json:"data_dir"`
	CertNotAfter time.Time  `json:"cert_not_after"`
	CertFile     string     `json:"cert_file,omitempty"`      // tls.cert_file, or what replaces it
	CertRenewsAt *time.Time `json:"cert_renews_at,omitempty"` // nil if it is not renewed by itself
	lacksIssuer  bool       // the issuing CA that would renew it is not installed
	User         string     `json:"user"`  // who the files were readable for
	Files        []string   `json:"files"` // what a start and a reload read
	// Disk describes how long results of a scrub count; empty before the first start.
	Disk     string `json:"disk,omitempty"`
	Lifetime string `json:"readings_bound_to,omitempty"` // disk, boot or process
	*cli.CheckReport
}

// checkCommand returns the command that validates what a start would use. It can run while
// a receiver runs, as root or as any user that may read the key.
func checkCommand(o *options) *cobra.Command {
	var asJSON, reload, disk, lenient bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate configuration and certificates",
		Long: `Check reports what would keep the receiver from starting or reloading: problems
with the configuration, files, directories, address, port, space, the mode of
the key, and sizes without a unit. If root runs it, it checks as the receiver's
user, and gives that user ownership of files that an earlier run as root left in
data_dir; nothing else changes. It exits with 2 if the configuration is wrong,
and with 1 if something that the configuration names is wrong.

With --lenient, conditions that a start only warns about are notes: a size
without a unit, a key that all users can read. With --reload it checks only what
a reload reads; the unit runs it so before each reload, so that 'systemctl
reload' fails if the reload would. With --disk it tests, as the receiver's user,
whether the file system of data_dir does what the receiver needs, and reads no
certificate.`,
		Example: "  receiver check\n  receiver check --reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := receiver.CheckKernel(); err != nil {
				return err
			}
			switch {
			case disk:
				return runCheckDisk(c, o)
			case reload:
				return runCheckReload(c, o, asJSON)
			}
			return runCheck(c, o, asJSON, lenient)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&reload, "reload", false, "check only what a reload reads")
	c.Flags().BoolVar(&disk, "disk", false, "test only the file system of data_dir")
	c.Flags().BoolVar(&lenient, "lenient", false, "report what a start only warns about as notes")
	c.MarkFlagsMutuallyExclusive("disk", "reload", "lenient")
	c.MarkFlagsMutuallyExclusive("disk", "json")
	return c
}

// runCheck checks all that a start would use. It reads first what only root may read, and
// tries the port as a start would.
func runCheck(c *cobra.Command, o *options, asJSON, lenient bool) error {
	f, err := examineAll(c, o, lenient)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.WriteJSON(c.OutOrStdout(), f)
	}
	return printFacts(c.OutOrStdout(), terminal.NewPainter(c.OutOrStdout()), f)
}

// examineAll checks what [runCheck] prints, and prints the notes.
func examineAll(c *cobra.Command, o *options, lenient bool) (checkFacts, error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return checkFacts{}, err
	}
	cli.NoteLiteral(c, config.LiteralPaths(cfg))
	k := &cli.CheckReport{Lenient: lenient, WasRoot: os.Geteuid() == 0}
	k.AddWarning(receiver.BareSizes(o.config))
	at := findAddress(c.Context(), o.config, cfg.Listen)
	f, err := checkConfig(o.config, cfg, time.Now())
	k.AddError(err)
	f.listenFacts, f.CheckReport = &at, k
	// What root left is handed over whatever is wrong with the files.
	if err := cli.BecomeServiceUser(c, stateOf(cfg)); err != nil {
		return f, errors.Join(k.Finish(c), err)
	}
	// Root can read everything: the daemon's user must be able to.
	k.AddError(serviceuser.CheckReadable(f.Files, cli.CheckLine(c)))
	f.User = serviceuser.Current().Name()
	examineHost(cfg, &f, err == nil, cli.CheckLine(c))
	return f, k.Finish(c)
}

// examineHost checks the key, the port and the space as the receiver's user, and the
// directory unless it is known to be wrong. line is the command line, for errors.
func examineHost(cfg receiver.Config, f *checkFacts, folder bool, line string) {
	if folder {
		f.ExamineFolders(f.DataDir)
	}
	f.ExamineSecrets(secretFiles(cfg)...)
	f.AddWarning(serviceuser.CheckReadable(hookFiles(cfg), line))
	f.AddNote(f.Hint)
	f.NoteParent("proxy.socket", string(cfg.Proxy.Socket))
	st, err := diskbackend.InspectStatus(cfg.BackendConfig(), time.Now())
	if errors.Is(err, durable.ErrFault) {
		f.AddError(err)
	}
	f.AddError(f.describePort(st.Running, st.RunningUnknown))
	f.ExamineAdmin(cfg.Admin, st.Running != "" || st.RunningUnknown)
	if free, err := cli.FreeAt(f.DataDir); err == nil {
		f.Space = spaceOf(cfg, free)
	}
}

// hookFiles returns the files of hooks and heartbeat. The daemon starts without them, and reads them again
// before it uses them.
func hookFiles(cfg receiver.Config) []string {
	return append(cfg.Hooks.SecretFiles(), string(cfg.Heartbeat.URLFile))
}

// secretFiles returns the files that only the daemon and root should read.
func secretFiles(cfg receiver.Config) []string {
	files := append([]string{string(cfg.TLS.KeyFile)}, hookFiles(cfg)...)
	if cfg.Store.Kind == receiver.StoreOnS3 {
		files = append(files, string(cfg.Store.S3.CredentialsFile))
	}
	return files
}

// spaceOf returns the free space of data_dir, for a report.
func spaceOf(cfg receiver.Config, free durable.Free) *cli.Space {
	s := &cli.Space{Unknown: free.IsUnknown(), FreeBytes: free.Bytes, MinFree: int64(cfg.MinFree)}
	if free.TotalInodes > 0 {
		s.FreeInodes, s.MinFreeInodes = &free.Inodes, cfg.BackendConfig().InodeFloor(free.TotalInodes)
	}
	return s
}

// runCheckReload loads what a reload loads.
func runCheckReload(c *cobra.Command, o *options, asJSON bool) error {
	cli.UseConfigOfDaemon(c, &o.config)
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	f, hidden, err := checkReload(o.config, cfg)
	// What root left is handed over whatever is wrong with the files.
	if err := errors.Join(err, cli.BecomeServiceUser(c, stateOf(cfg))); err != nil {
		return err
	}
	if err := serviceuser.CheckReadable(f.Files, cli.CheckLine(c)); err != nil {
		return err
	}
	f.User = serviceuser.Current().Name()
	if asJSON {
		return cli.WriteJSON(c.OutOrStdout(), f)
	}
	return cli.PrintReload(c.OutOrStdout(), f.Files, f.Config, hidden)
}

// runCheckDisk tries the file system of data_dir.
func runCheckDisk(c *cobra.Command, o *options) error {
	cfg, err := o.openAsUser(c)
	if err != nil {
		return err
	}
	if err := cli.CheckDisks(c, string(cfg.DataDir)); err != nil {
		return err
	}
	return startError(c.Context(), cfg.CheckMoves(), o.config)
}

func printFacts(to io.Writer, paint terminal.Painter, f checkFacts) error {
	listen := f.Address
	if f.From != "listen" {
		listen += ", from " + f.From
	}
	rows := []cli.TableRow{
		{Name: "config", Lines: []string{f.Config}},
		{Name: "listen", Lines: []string{listen, f.Port}},
		f.MetricsRow(),
	}
	for _, folder := range f.Folders {
		rows = append(rows, cli.FolderRow("data", folder))
	}
	rows = append(rows, f.FileRow(f.User, f.Files),
		cli.TableRow{Name: "certificate", Lines: f.certificateLines()})
	rows = append(rows, f.SpaceRows()...)
	if f.Disk != "" {
		rows = append(rows, cli.TableRow{Name: "disk", Lines: []string{printable.Text(f.Disk)}})
	}
	if err := cli.PrintRows(to, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(to, paint.Paint("ok", terminal.Good))
	return err
}

// checkConfig loads what the daemon would load.
func checkConfig(file string, c receiver.Config, now time.Time) (checkFacts, error) {
	f := checkFacts{Config: file, Listen: c.Listen, DataDir: string(c.DataDir), Files: c.TrustConfig().Files()}
	if c.Store.Kind == receiver.StoreOnS3 {
		for _, name := range []string{string(c.Store.S3.CredentialsFile), string(c.Store.S3.CAFile)} {
			if _, err := os.Stat(name); name != "" && err != nil && !errors.Is(err, fs.ErrPermission) {
				return f, cli.UsageError(fmt.Errorf("store.s3: %w", err))
			}
			if name != "" {
				f.Files = append(f.Files, name)
			}
		}
	}
	trust, err := gate.LoadTrust(c.TrustConfig())
	if err != nil {
		return f, err
	}
	f.CertNotAfter, f.CertFile = trust.NotAfter(), trust.CertFile()
	if at, renews := c.TrustConfig().RenewsOwnAt(time.Now()); renews {
		f.CertRenewsAt = &at
	}
	f.lacksIssuer = c.TrustConfig().LacksOwnIssuer()
	if now.Before(trust.NotBefore()) || now.After(trust.NotAfter()) {
		return f, fmt.Errorf("%s is valid from %s to %s, but this machine's clock says %s: set the clock, or renew it with 'receiver pki renew'",
			trust.CertFile(), formatDate(trust.NotBefore()), formatDate(trust.NotAfter()), formatDate(now))
	}
	if err := c.TrustConfig().CheckRoles(); err != nil {
		return f, cli.UsageError(err)
	}
	info, err := os.Stat(string(c.DataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil // the daemon makes it
	}
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("data_dir %s is not a directory", c.DataDir)
	}
	if err != nil {
		return f, cli.UsageError(err)
	}
	if err := errors.Join(c.CheckMoves(), c.CheckStoreKind()); err != nil {
		return f, startError(context.Background(), err, file)
	}
	// A start reads the list of several receivers again from the bucket.
	if _, err := datadir.CountDisabled(string(c.DataDir)); err != nil && c.Store.Kind != receiver.StoreOnS3 && !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	if _, err := datadir.InspectStore(string(c.DataDir)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return f, cli.UsageError(err)
	}
	v, err := diskbackend.VolumeOf(c.BackendConfig())
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return f, nil // not there yet, or not for this user to see
	}
	f.Disk, f.Lifetime = v.String(), string(v.Lifetime)
	return f, errors.Join(err, c.BackendConfig().CheckSpace())
}

// checkReload loads what a reload loads, except what [cli.LeaveHiddenOut] names.
func checkReload(file string, c receiver.Config) (f checkFacts, hidden string, err error) {
	f = checkFacts{Config: file, Listen: c.Listen, DataDir: string(c.DataDir)}
	f.Files, hidden = cli.LeaveHiddenOut(c.TrustConfig().Files())
	if !slices.Contains(f.Files, string(c.Auth.TokensFile)) {
		c.Auth.TokensFile = ""
	}
	if len(f.Files) < len(c.TrustConfig().Files()) {
		return f, hidden, nil // without certificate or key there is nothing to try
	}
	trust, err := gate.LoadTrust(c.TrustConfig())
	if err != nil {
		return f, hidden, err
	}
	f.CertNotAfter = trust.NotAfter()
	return f, hidden, nil
}

// certificateLines describe the receiver's certificate.
func (f checkFacts) certificateLines() []string {
	lines := []string{cli.FormatValidity(f.CertNotAfter, f.CertRenewsAt)}
	if f.CertFile != "" && !slices.Contains(f.Files, f.CertFile) {
		lines = append(lines, "renewed: "+f.CertFile)
	}
	if f.lacksIssuer {
		lines = append(lines, "run 'receiver setup --name ...' again to let it renew itself")
	}
	return lines
}
