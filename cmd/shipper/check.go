package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/durable"
	"cis490/internal/hostdir"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/terminal"
	"cis490/internal/uplink"
)

// checkFacts is the result of a check.
type checkFacts struct {
	Config       string     `json:"config"`
	OutboxDir    string     `json:"outbox_dir"`
	CertNotAfter time.Time  `json:"cert_not_after"`
	CertRenewsAt *time.Time `json:"cert_renews_at,omitempty"` // nil if it is not renewed by itself
	User         string     `json:"user"`                     // who the files were readable for
	Files        []string   `json:"files"`                    // what a start and a reload read
	Receiver     string     `json:"receiver,omitempty"`       // where it is; it was not asked
	*cli.CheckReport
}

// checkCommand returns the command that validates what a start would use, offline.
func checkCommand(o *options) *cobra.Command {
	var reload, disk, lenient bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate configuration and certificates, offline",
		Long: `Check reports what would keep the shipper from starting or packing: problems
with the configuration, files, directories, space, the mode of the key, and
sizes without a unit. If root runs it, it checks as the shipper's user, and
gives that user ownership of files that an earlier run as root left behind;
nothing else changes. It exits with 2 if the configuration is wrong, and with 1
if there is not enough space to pack.

With --lenient, conditions that a start only warns about are notes: a size
without a unit, a key that all users can read. With --reload it checks only what
a reload reads; the unit runs it so before each reload, so that 'systemctl
reload' fails if the reload would. With --disk it tests, as the shipper's user,
whether the file systems of the directories do what the shipper needs, and reads
no certificate.`,
		Example: "  shipper check\n  shipper check --reload",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if disk && o.json {
				return cli.UsageError(errors.New("--disk does not support --json"))
			}
			if disk {
				return runCheckDisk(c, o)
			}
			if err := hostdir.CheckKernel(); err != nil {
				return err
			}
			if reload {
				cli.UseConfigOfDaemon(c, &o.config)
			}
			cfg, err := o.loadConfig()
			if err != nil {
				return err
			}
			if reload {
				return runCheckReload(c, o, cfg)
			}
			return runCheck(c, o, cfg, lenient)
		},
	}
	c.Flags().BoolVar(&disk, "disk", false, "test only the file systems of the directories")
	c.Flags().BoolVar(&reload, "reload", false, "check only what a reload reads")
	c.Flags().BoolVar(&lenient, "lenient", false, "report what a start only warns about as notes")
	c.MarkFlagsMutuallyExclusive("disk", "reload", "lenient")
	return c
}

// runCheckDisk probes the file systems. The outbox comes first: no other user can write
// in it, and the other folders are on its file system.
func runCheckDisk(c *cobra.Command, o *options) error {
	if err := hostdir.CheckKernel(); err != nil {
		return err
	}
	cfg, err := o.openAsUser(c)
	if err != nil {
		return err
	}
	err = cli.CheckDisks(c, string(cfg.OutboxDir), string(cfg.ShippedDir), string(cfg.EpisodesDir))
	if err != nil {
		return err
	}
	return startError(hostdir.CheckMoves(cfg.DirsConfig()), o.config)
}

// runCheckReload loads what a reload loads, except what [cli.LeaveHiddenOut] names.
func runCheckReload(c *cobra.Command, o *options, cfg shipper.Config) error {
	visible, hidden := cli.LeaveHiddenOut(reloadedFiles(cfg))
	if !slices.Contains(visible, string(cfg.Receiver.TokenFile)) {
		cfg.Receiver.TokenFile = ""
	}
	var err error
	if len(visible) == len(reloadedFiles(cfg)) { // without certificate or key there is nothing to try
		_, err = credentials.Load(credentialFiles(cfg))
	}
	if err := errors.Join(cli.UsageError(err), cli.BecomeServiceUser(c, stateOf(cfg))); err != nil {
		return err
	}
	if err := serviceuser.CheckReadable(visible, cli.CheckLine(c)); err != nil {
		return cli.UsageError(err)
	}
	if o.json {
		return cli.WriteJSON(c.OutOrStdout(), checkFacts{Config: o.config, OutboxDir: string(cfg.OutboxDir), User: serviceuser.Current().Name(), Files: visible})
	}
	return cli.PrintReload(c.OutOrStdout(), visible, o.config, hidden)
}

// runCheck checks all that a start would use. It reads first what only root may read.
func runCheck(c *cobra.Command, o *options, cfg shipper.Config, lenient bool) error {
	cli.NoteLiteral(c, config.LiteralPaths(cfg))
	k := &cli.CheckReport{Lenient: lenient, WasRoot: os.Geteuid() == 0}
	k.AddWarning(shipper.BareSizes(o.config))
	_, creds, err := newClient(cfg)
	if err == nil {
		err = cli.UsageError(errors.Join(creds.CheckValidity(cfg.HostID, time.Now()), credentialFiles(cfg).CheckRoles()))
	}
	k.AddError(err)
	// What root left is handed over whatever is wrong with the files.
	if err := cli.BecomeServiceUser(c, stateOf(cfg)); err != nil {
		return errors.Join(k.Finish(c), err)
	}
	f := checkFacts{
		Config: o.config, OutboxDir: string(cfg.OutboxDir), User: serviceuser.Current().Name(),
		Files: reloadedFiles(cfg), Receiver: cfg.Receiver.URL, CheckReport: k,
	}
	examineHost(cfg, &f, o.config, cli.CheckLine(c))
	if err := k.Finish(c); err != nil {
		return err
	}
	f.CertNotAfter = creds.NotAfter()
	if at, renews := creds.RenewAt(); renews {
		f.CertRenewsAt = &at
	}
	if o.json {
		return cli.WriteJSON(c.OutOrStdout(), f)
	}
	return printFacts(c.OutOrStdout(), terminal.NewPainter(c.OutOrStdout()), f)
}

// examineHost checks files, directories, key and space as the shipper's user. Root could
// read everything and write everywhere: the daemon's user must be able to.
func examineHost(cfg shipper.Config, f *checkFacts, file, line string) {
	examineFiles(cfg, f.CheckReport, line)
	examineFolders(cfg, f.CheckReport, file)
	free, err := cli.FreeAt(f.OutboxDir)
	if err != nil {
		return // the findings about the folder
	}
	f.Space = spaceOf(cfg, free)
	f.AddError(errors.Join(checkSpace(cfg, free), checkInodes(cfg, free)))
}

// examineFiles checks the files that a start reads, and who else can read the secret ones.
func examineFiles(cfg shipper.Config, k *cli.CheckReport, line string) {
	k.AddError(cli.UsageError(serviceuser.CheckReadable(reloadedFiles(cfg), line)))
	k.ExamineSecrets(secretFiles(cfg)...)
	k.AddWarning(serviceuser.CheckReadable([]string{string(cfg.Heartbeat.URLFile)}, line)) // the daemon starts without it
}

// secretFiles returns the files that only the daemon and root should read.
func secretFiles(cfg shipper.Config) []string {
	return []string{string(cfg.Receiver.KeyFile), string(cfg.Receiver.TokenFile), string(cfg.Heartbeat.URLFile)}
}

// examineFolders checks the directories, and those of other files that the daemon writes.
func examineFolders(cfg shipper.Config, k *cli.CheckReport, file string) {
	usable := k.ExamineFolders(string(cfg.EpisodesDir), string(cfg.OutboxDir), string(cfg.ShippedDir))
	k.NoteParent("low_space_file", string(cfg.LowSpaceFile))
	k.NoteParent("metrics_file", string(cfg.MetricsFile))
	k.ExamineAdmin(cfg.Admin, usable && mayRun(cfg))
	if usable {
		_, err := uplink.AdoptedBy(cfg.DirsConfig())
		k.AddError(errors.Join(startError(checkMoves(cfg), file), err))
	}
}

// spaceOf returns the free space of the outbox, for a report.
func spaceOf(cfg shipper.Config, free durable.Free) *cli.Space {
	s := &cli.Space{Unknown: free.IsUnknown(), FreeBytes: free.Bytes, MinFree: int64(cfg.MinFree)}
	if free.TotalInodes > 0 {
		s.FreeInodes = &free.Inodes
	}
	return s
}

// checkSpace returns an error if the space of the outbox is below the minimum.
func checkSpace(cfg shipper.Config, free durable.Free) error {
	if free.Bytes >= int64(cfg.MinFree) {
		return nil
	}
	return fmt.Errorf("nothing is packed: %s free on the disk of %s is below min_free (%s): free some space or lower min_free",
		config.Bytes(free.Bytes), cfg.OutboxDir, cfg.MinFree)
}

// checkInodes is checkSpace for inodes.
func checkInodes(cfg shipper.Config, free durable.Free) error {
	if free.TotalInodes == 0 || free.Inodes > 0 {
		return nil
	}
	return fmt.Errorf("nothing is packed: the disk of %s has no free inode (see 'df -i'): delete files", cfg.OutboxDir)
}

// mayRun reports whether a shipper is running, or may be.
func mayRun(cfg shipper.Config) bool {
	dirs, err := hostdir.Open(cfg.DirsConfig())
	if err != nil {
		return false // the first start has yet to create them
	}
	defer dirs.Close()
	_, state, err := dirs.Outbox.Holder()
	return err != nil || state != durable.LockFree
}

// checkMoves is [hostdir.CheckMoves], also for folders that are made at the next start.
func checkMoves(cfg shipper.Config) error {
	err := hostdir.CheckMoves(cfg.DirsConfig())
	if err == nil {
		err = cli.CheckMove(string(cfg.EpisodesDir), string(cfg.ShippedDir))
	}
	if err == nil && cfg.Retention.IsEnabled() {
		err = cli.CheckMove(string(cfg.ShippedDir), string(cfg.OutboxDir))
	}
	if _, separate := errors.AsType[*durable.SeparateError](err); separate {
		return &hostdir.ConfigError{Err: err}
	}
	return err
}

func printFacts(to io.Writer, paint terminal.Painter, f checkFacts) error {
	rows := []cli.TableRow{{Name: "config", Lines: []string{f.Config}}, {Name: "receiver", Lines: []string{f.Receiver}}, f.MetricsRow()}
	for i, name := range []string{"episodes", "outbox", "shipped"} {
		rows = append(rows, cli.FolderRow(name, f.Folders[i]))
	}
	rows = append(rows, f.FileRow(f.User, f.Files),
		cli.TableRow{Name: "certificate", Lines: []string{cli.FormatValidity(f.CertNotAfter, f.CertRenewsAt)}})
	if err := cli.PrintRows(to, append(rows, f.SpaceRows()...)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(to, paint.Paint("ok", terminal.Good))
	return err
}
