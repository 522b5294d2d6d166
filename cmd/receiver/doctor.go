package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/datadir"
	"cis490/internal/diskbackend"
	"cis490/internal/doctor"
	"cis490/internal/durable"
	"cis490/internal/gate"
	"cis490/internal/hosts"
	"cis490/internal/notify"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/serviceuser"
)

// doctorCommand returns "receiver doctor".
func doctorCommand(o *options) *cobra.Command {
	asJSON, bundle := false, ""
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this machine and the store, and say what to do",
		Long: `Doctor examines the configuration, files, file system, disk and clock of this
machine, the service, the address, the certificates and CAs, the hosts, the
store and the hooks. Each line has a verdict and a fact; below a warning or a
failure is what to do. If a receiver runs, doctor connects to it without a
certificate, to see which one it serves. To examine the connection of a host,
run 'shipper doctor' there.

If root runs it, it works as the receiver's user, and hands over files as
'receiver check' does. To test the file system and time the disk, it creates
files in data_dir, and removes them. Nothing else changes.

With --bundle it also writes a file for a bug report: the findings, the
configuration, the status and the journal, without keys, tokens and passwords.

Exit codes: 0 nothing has failed, 2 wrong arguments or a configuration that
cannot be loaded, 74 storage fault, 1 any other failure.`,
		Example: "  sudo receiver doctor\n  sudo receiver doctor --bundle report.tar.gz",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDoctor(c, o, asJSON, bundle) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&bundle, "bundle", "", "also write `FILE`, a tar.gz for a bug report")
	return c
}

// receiverDoctor examines a receiver. It keeps what later checks need of earlier ones.
type receiverDoctor struct {
	*cli.Doctor

	c      *cobra.Command
	cfg    receiver.Config
	listen listenFacts

	trust    *gate.Trust // nil if it cannot be loaded
	trustErr error
	status   diskbackend.Status
	bucket   *s3backend.Status // nil with a store on a disk
	inspect  error             // of the status
}

func runDoctor(c *cobra.Command, o *options, asJSON bool, bundle string) (err error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	d := &receiverDoctor{c: c, cfg: cfg}
	d.Doctor, err = cli.NewDoctor(c, cli.DoctorOptions{
		JSON: asJSON, Bundle: bundle, Config: o.config, DefaultConfig: receiver.DefaultConfigFile,
		Units: doctor.UnitNames{Daemon: serviceUnit, Starter: socketUnit, Started: serviceUnit},
	})
	if err != nil {
		return err
	}
	defer func() { err = d.Close(err) }()
	// What only root may read, or bind, comes first. Nothing touches data_dir before the configuration is
	// shown.
	d.listen = findAddress(c.Context(), o.config, cfg.Listen)
	d.trust, d.trustErr = gate.LoadTrust(cfg.TrustConfig())
	d.AddConfig(o.config, receiver.BareSizes(o.config), config.LiteralPaths(cfg))
	if err := d.BecomeServiceUser(stateOf(cfg), string(cfg.DataDir)); err != nil {
		return err
	}
	d.inspectStore()
	d.examineMachine()
	d.examineService()
	d.examineCertificates()
	d.examineStore()
	if cfg.Store.Kind == receiver.StoreOnS3 {
		d.examineBucket()
	}
	d.Check("hooks", func(context.Context) []doctor.Finding { return d.examineHooks() }, d.queueDirs()...)
	d.BundleStatus(func() (any, error) { return inspectStatus(cfg, time.Now()) }, string(cfg.DataDir))
	return d.Finish()
}

// inspectStore reads the status, on which several checks depend.
func (d *receiverDoctor) inspectStore() {
	var st diskbackend.Status
	var b *s3backend.Status
	var err error
	if d.Guard("storage", func(context.Context) { st, b, err = inspectStore(d.cfg, nil, time.Now()) }, string(d.cfg.DataDir)) {
		d.status, d.bucket, d.inspect = st, b, err
		return
	}
	d.status.RunningUnknown, d.inspect = true, errUnread
}

// errUnread says that the status could not be read. An earlier finding says why.
var errUnread = errors.New("data_dir does not answer, see above")

// examineMachine checks what does not depend on hosts.
func (d *receiverDoctor) examineMachine() {
	cfg, data := d.cfg, string(d.cfg.DataDir)
	d.examineFiles()
	d.CheckFolders(d.examineFolders, data)
	d.CheckOne("kernel", func(context.Context) doctor.Finding { return doctor.CheckKernel(receiver.CheckKernel()) })
	d.CheckFileSystems(data)
	var free durable.Free
	var err, spaceErr error
	switch {
	case !d.Guard("space", func(context.Context) {
		free, err = cli.FreeAt(data)
		spaceErr = d.checkSpace()
	}, data):
	case err != nil:
		d.Skip("space", "%v", err)
	default:
		d.AddSpace(spaceOf(cfg, free), spaceErr, nil)
	}
	if cfg.Store.Kind == receiver.StoreOnS3 {
		d.Skip("disk", "archives are in a bucket, see 'latency' below")
	} else {
		d.CheckOne("disk", func(ctx context.Context) doctor.Finding { return doctor.CheckDisk(ctx, data+"/staging") }, data)
	}
	d.CheckOne("clock", func(context.Context) doctor.Finding { return doctor.CheckClock() })
}

// checkSpace returns an error if uploads are refused because of the disk. Before the first start the
// directory does not exist yet.
func (d *receiverDoctor) checkSpace() error {
	if d.inspect != nil {
		return nil
	}
	return d.cfg.BackendConfig().CheckSpace()
}

// examineFiles checks that the receiver's user can read what a start reads, and that it can be loaded.
func (d *receiverDoctor) examineFiles() {
	k := d.NewReport()
	files := d.cfg.TrustConfig().Files()
	if !d.Guard("files", func(context.Context) {
		k.AddError(serviceuser.CheckReadable(files, cli.CheckLine(d.c)))
		if !k.HasErrors() {
			k.AddError(d.trustErr)
		}
		if d.trustErr == nil {
			k.AddError(d.cfg.TrustConfig().CheckRoles())
		}
		k.ExamineSecrets(secretFiles(d.cfg)...)
		k.AddWarning(serviceuser.CheckReadable(hookFiles(d.cfg), cli.CheckLine(d.c)))
	}, files...) {
		return
	}
	d.AddReport("files", k, "run 'receiver setup --name ...' again, or restore them from a backup", strings.Join(files, ", ")+": readable for "+serviceuser.Current().Name())
}

// examineFolders examines data_dir, and where sockets are made.
func (d *receiverDoctor) examineFolders(k *cli.CheckReport) {
	usable := k.ExamineFolders(string(d.cfg.DataDir))
	k.NoteParent("proxy.socket", string(d.cfg.Proxy.Socket))
	k.ExamineAdmin(d.cfg.Admin, d.mayRun())
	if usable && d.inspect == nil {
		k.AddError(d.cfg.CheckMoves())
	}
}

// mayRun reports whether a receiver is running, or may be.
func (d *receiverDoctor) mayRun() bool { return d.status.Running != "" || d.status.RunningUnknown }

// examineService checks the unit, the process, its address, and what it serves there.
func (d *receiverDoctor) examineService() {
	d.CheckOne("unit", func(context.Context) doctor.Finding { return doctor.CheckUnit(d.Unit) })
	d.CheckOne("daemon", func(context.Context) doctor.Finding { return d.examineDaemon() })
	err := d.listen.describePort(d.status.Running, d.status.RunningUnknown)
	d.CheckOne("address", func(context.Context) doctor.Finding { return d.examineAddress(err) })
	d.CheckOne("listening", d.examineListening)
}

func (d *receiverDoctor) examineDaemon() doctor.Finding {
	const check = "daemon"
	switch {
	case errors.Is(d.inspect, fs.ErrNotExist):
		return doctor.Skippedf(check, "no receiver has run here: its first start makes data_dir")
	case errors.Is(d.inspect, errUnread):
		return doctor.Skippedf(check, "%v", d.inspect)
	case d.inspect != nil:
		return d.FromError(check, d.inspect, "run 'receiver check' as root")
	case d.status.RunningUnknown:
		return doctor.Skippedf(check, "only root and the receiver's user can see whether a receiver runs")
	case d.status.Running == "" && d.Unit.Waiting:
		return doctor.OKf(check, "no receiver runs now: %s starts it with the next connection", d.Unit.Starter)
	case d.status.Running == "":
		return doctor.Warningf(check, "run 'systemctl start cis490-receiver'", "no receiver runs")
	}
	return doctor.OKf(check, "%s runs", d.status.Running)
}

func (d *receiverDoctor) examineAddress(err error) doctor.Finding {
	const check = "address"
	fact := fmt.Sprintf("%s, from %s: %s", d.listen.Address, d.listen.From, d.listen.Port)
	switch {
	case err != nil:
		return doctor.FromError(check, err, "run 'ss -tlnp' to see what has the port, or change listen")
	case d.listen.Hint != "":
		return doctor.Warningf(check, d.listen.Hint, "%s", fact)
	}
	return doctor.OKf(check, "%s", fact)
}

// listenTimeout bounds the handshake with the receiver on this machine.
const listenTimeout = 10 * time.Second

// examineListening connects to the running receiver, and compares the certificate that it serves with
// the file.
func (d *receiverDoctor) examineListening(ctx context.Context) doctor.Finding {
	const check = "listening"
	at := localAddress(d.listen.Address)
	switch {
	case !d.mayRun():
		return doctor.Skippedf(check, "no receiver runs")
	case strings.HasSuffix(at, ":0"):
		return doctor.Skippedf(check, "the port is chosen at each start, and not known here")
	}
	ctx, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	// Verifying would prove nothing: the certificate is compared with the file below, and nothing is sent.
	dialer := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", at)
	if err != nil {
		return doctor.FromError(check, fmt.Errorf("connect to %s: %w", at, err), "run 'journalctl -u cis490-receiver': a receiver has locked data_dir, but does not answer there")
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	switch {
	case d.trust == nil:
		return doctor.Skippedf(check, "%s answers with a certificate valid until %s; the files to compare it with cannot be loaded", at, formatDate(leaf.NotAfter))
	case !d.trust.IsOwn(leaf):
		return doctor.Warningf(check, "run 'systemctl reload cis490-receiver', then doctor again; if that does not help, something else listens there",
			"%s serves a certificate valid until %s that is not the one in %s", at, formatDate(leaf.NotAfter), d.trust.CertFile())
	}
	return doctor.OKf(check, "%s serves the certificate in %s, %d days left", at, d.trust.CertFile(), cli.DaysLeft(leaf.NotAfter, time.Now()))
}

// localAddress returns the address at which this machine reaches itself.
func localAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	switch host {
	case "", "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "localhost" // also without IPv6
	}
	return net.JoinHostPort(host, port)
}

// examineCertificates reports the certificate, the CAs, and how hosts are identified.
func (d *receiverDoctor) examineCertificates() {
	if d.trust == nil {
		for _, check := range []string{"certificate", "CA", "identity"} {
			d.Skip(check, "the files cannot be loaded, see above")
		}
		return
	}
	now, files := time.Now(), d.cfg.TrustConfig()
	renewsAt, renews := files.RenewsOwnAt(now)
	if !renews {
		renewsAt = time.Time{}
	}
	renew := "run 'receiver pki renew', then 'systemctl reload cis490-receiver'"
	if files.LacksOwnIssuer() {
		renew = "run 'receiver setup --name ...' again with the same names, to let it renew itself"
	}
	d.Add(doctor.CheckCertificate("certificate", d.trust.CertFile(), d.trust.NotBefore(), d.trust.NotAfter(), renewsAt, now, renew))
	cas, _, err := pki.ReadPool(files.ClientCAFile)
	if err != nil {
		d.AddError("CA", err, "restore it from a backup")
	}
	for _, ca := range cas {
		d.Add(doctor.CheckCertificate("CA", fmt.Sprintf("%s in %s", ca.Subject.CommonName, files.ClientCAFile), ca.NotBefore, ca.NotAfter, time.Time{}, now,
			"run 'receiver pki rotate', see 'Rotate the CAs' in docs/operations.md"))
	}
	join := "no issuing CA is here, so that no host can join by an invitation"
	if d.trust.Issuer() != nil {
		join = "hosts can join by an invitation"
	}
	crl, tokens := "no list of revoked certificates", "no tokens"
	if files.CRLFile != "" {
		crl = files.CRLFile + " is valid"
	}
	if files.TokensFile != "" {
		tokens = "tokens from " + files.TokensFile
	}
	d.Add(doctor.OKf("identity", "%s; %s; %s", join, crl, tokens))
}

// examineStore reports the hosts and what is stored.
func (d *receiverDoctor) examineStore() {
	if d.inspect != nil {
		if errors.Is(d.inspect, durable.ErrFault) {
			d.AddError("storage", d.inspect, "see 'A storage fault' in docs/operations.md")
		} else {
			d.Skip("storage", "%v", d.inspect)
		}
		d.Skip("hosts", "data_dir cannot be read")
		return
	}
	d.CheckOne("hosts", func(context.Context) doctor.Finding { return d.examineHosts() }, string(d.cfg.DataDir))
	d.Check("storage", func(context.Context) []doctor.Finding { return judgeStorage(d.status, d.bucket) })
}

func (d *receiverDoctor) examineHosts() doctor.Finding {
	const check = "hosts"
	disabled, err := datadir.CountDisabled(string(d.cfg.DataDir))
	if err != nil {
		if d.cfg.Store.Kind == receiver.StoreOnS3 {
			return d.FromError(check, err, "run 'receiver hosts', which reads it again from the bucket")
		}
		return d.FromError(check, fmt.Errorf("all hosts are refused: %w", err), "restore disabled-hosts.json in data_dir, or remove it, which enables all hosts")
	}
	list, _, err := listHosts(d.cfg, time.Now())
	if err != nil {
		return d.FromError(check, err, "run 'receiver hosts'")
	}
	s := hosts.Summarize(list)
	fact := fmt.Sprintf("%d known, %d active, %d disabled", len(list), s.Active, disabled)
	if s.Critical+s.Warning > 0 {
		return doctor.Warningf(check, "run 'receiver hosts': it says what", "%s; something is wrong with %d of them", fact, s.Critical+s.Warning)
	}
	return doctor.OKf(check, "%s", fact)
}

// judgeStorage reports what is wrong with the store, by its status. b is nil with a store on a disk.
func judgeStorage(st diskbackend.Status, b *s3backend.Status) []doctor.Finding {
	const check = "storage"
	var found []doctor.Finding
	for _, p := range st.Problems {
		remedy := "run 'receiver status', and see docs/operations.md"
		if b != nil && p == b.Moved {
			remedy = "stop this receiver and its socket, and disable both: see 'Move a store' in docs/scale-out.md"
		}
		found = append(found, doctor.FromError(check, errors.New(p), remedy))
	}
	if n := st.Scrub.Damaged + st.Scrub.Missing; n > 0 {
		found = append(found, doctor.Failedf(check, "run 'receiver index verify --deep', then 'shipper verify --heal' on the hosts that it names",
			"the scrub found %s damaged, %d missing", cli.FormatCount(st.Scrub.Damaged, "archive"), st.Scrub.Missing))
	}
	if n := st.Scrub.Unreadable + st.Scrub.Undecodable; n > 0 {
		examine := "'smartctl -a' on the disk"
		if b != nil {
			examine = "see the log of the object store"
		}
		found = append(found, doctor.Warningf(check, "run 'receiver index verify --deep', and "+examine,
			"the scrub found %s unreadable, %d undecodable", cli.FormatCount(st.Scrub.Unreadable, "archive"), st.Scrub.Undecodable))
	}
	if b != nil && st.Quarantined > 0 {
		found = append(found, doctor.Warningf(check, "run 'shipper verify --heal' on their hosts: see 'Scrub' in docs/scale-out.md",
			"%s quarantined as corrupt", cli.FormatCountWith(st.Quarantined, "archive", "is", "are")))
	} else if st.Quarantined > 0 {
		found = append(found, doctor.Warningf(check, "run 'shipper verify --heal' on their hosts, then remove the files in data_dir/quarantine",
			"%s in quarantine", cli.FormatCount(st.Quarantined, "file")))
	}
	if t := st.TornTails; t.Count > 0 {
		found = append(found, doctor.Warningf(check, "if power did not fail then, run 'smartctl -a' on the disk; run 'receiver index verify'",
			"the end of the index was torn %s; the last one is %s", cli.FormatCount(t.Count, "time"), t.Last))
	}
	if b != nil && b.Error != "" {
		return append(found, doctor.Skippedf(check, "what the bucket has is unknown"))
	}
	if len(found) == 0 {
		found = append(found, doctor.OKf(check, "%s; nothing is damaged, missing or in quarantine, as far as the scrub has read", storeLine(st.Store)))
	}
	return found
}

// queueDirs returns the directories that have the queues of the hooks.
func (d *receiverDoctor) queueDirs() []string {
	dirs := []string{string(d.cfg.DataDir)}
	if queue := string(d.cfg.Hooks.QueueDir); queue != "" {
		dirs = append(dirs, queue)
	}
	return dirs
}

// examineHooks reports what waits for the hooks, and why it does.
func (d *receiverDoctor) examineHooks() []doctor.Finding {
	queues := notify.Inspect(d.cfg.Hooks, string(d.cfg.DataDir))
	if len(queues) == 0 {
		return []doctor.Finding{doctor.Skippedf("hooks", "[hooks] names neither url_file nor queue_dir")}
	}
	var found []doctor.Finding
	for _, q := range queues {
		found = append(found, d.judgeQueue(q, time.Now()))
	}
	return found
}

// judgeQueue reports what is wrong with the queue of a hook. That is never a failure, because uploads do not
// wait for hooks. The error of a webhook may contain text of its server, and is never advice.
func (d *receiverDoctor) judgeQueue(q notify.QueueState, now time.Time) doctor.Finding {
	const check = "hooks"
	switch {
	case q.ReadErr != nil:
		f := d.FromError(check, fmt.Errorf("%s: %w", q.Queue, q.ReadErr), "correct [hooks] of the configuration, see 'A command' in docs/hooks.md")
		if f.Verdict == doctor.Failed {
			f.Verdict = doctor.Warning
		}
		return f
	case q.Paused:
		return doctor.Warningf(check, "write the new URL to hooks.url_file, then run 'systemctl reload cis490-receiver'",
			"%s: paused until a reload, %d queued: %s", q.Queue, q.Queued, q.Error)
	case q.Error != "":
		return doctor.Warningf(check, "run 'receiver hooks test', then correct hooks.url_file or the server",
			"%s: failing since %s, %d queued: %s", q.Queue, q.Since.UTC().Format(time.DateTime), q.Queued, q.Error)
	case isOverdue(q, now):
		return doctor.Warningf(check, "see 'journalctl -u cis490-hook' and 'systemctl status cis490-hook.path'",
			"%s: %d queued, the oldest since %s", q.Queue, q.Queued, q.Oldest.UTC().Format(time.DateTime))
	}
	return doctor.OKf(check, "%s: %d queued", q.Queue, q.Queued)
}
