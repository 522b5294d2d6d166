package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/doctor"
	"cis490/internal/durable"
	"cis490/internal/hostdir"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

func doctorCommand(o *options) *cobra.Command {
	bundle := ""
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this host and its connection, and say what to do",
		Long: `Doctor examines the configuration, files, file systems, disk and clock of this
host, its service, and each step to the receiver: name, route, connection, MTU,
TLS, certificates, access and throughput. Each line has a verdict and a fact;
below a warning or a failure is what to do. If a check fails, those that need
its result are skipped. If the network drops packets, all of this takes a minute
or two.

If root runs it, it works as the shipper's user, and hands over files as
'shipper check' does. To test the file system and time the disk, it creates
files in the shipper's directories, and removes them. It sends up to 8 MiB,
whatever bandwidth_limit is; the receiver discards them. Nothing else changes.

With --bundle it also writes a file for a bug report: the findings, the
configuration, the status and the journal, without keys, tokens and passwords.

Exit codes: 0 nothing has failed, 2 wrong arguments or a configuration that
cannot be loaded, 4 only the network or the receiver has failed, 74 storage
fault, 1 any other failure.`,
		Example: "  sudo shipper doctor\n  sudo shipper doctor --bundle report.tar.gz",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runDoctor(c, o, bundle) },
	}
	c.Flags().StringVar(&bundle, "bundle", "", "also write `FILE`, a tar.gz for a bug report")
	return c
}

// hostDoctor examines a host. It keeps what later checks need of earlier ones.
type hostDoctor struct {
	*cli.Doctor

	c       *cobra.Command
	o       *options
	cfg     shipper.Config
	address string // of the receiver, with its port

	client   *wire.Client
	creds    *credentials.Client // nil if they cannot be loaded
	credsErr error
	leaf     *x509.Certificate // of the receiver
	route    doctor.Route
	connects bool // TCP connections to the receiver open
	mtuFits  bool // packets of the route's MTU arrive, or a router says which do
}

func runDoctor(c *cobra.Command, o *options, bundle string) (err error) {
	cfg, err := o.loadConfig()
	if err != nil {
		return err
	}
	address, err := wire.AddressOf(cfg.Receiver.URL)
	if err != nil {
		return cli.UsageError(fmt.Errorf("receiver.url: %w", err))
	}
	d := &hostDoctor{c: c, o: o, cfg: cfg, address: address}
	d.Doctor, err = cli.NewDoctor(c, cli.DoctorOptions{
		JSON: o.json, Bundle: bundle, Config: o.config, DefaultConfig: shipper.DefaultConfigFile,
		Units: doctor.UnitNames{Daemon: serviceUnit, Starter: timerUnit, Started: onceUnit},
	})
	if err != nil {
		return err
	}
	defer func() { err = d.Close(err) }()
	// What only root may read comes first. Nothing touches the directories before the configuration is shown.
	d.client, d.creds, d.credsErr = newClient(cfg)
	d.AddConfig(fmt.Sprintf("%s, host %s, receiver %s", o.config, cfg.HostID, cfg.Receiver.URL), shipper.BareSizes(o.config), config.LiteralPaths(cfg))
	if err := d.BecomeServiceUser(stateOf(cfg), d.dirs()...); err != nil {
		return err
	}
	d.examineMachine()
	d.examineNetwork()
	d.BundleStatus(func() (any, error) { return inspectStatus(cfg) }, d.dirs()...)
	return d.Finish()
}

// dirs returns the directories of the shipper, beginning with that of its state.
func (d *hostDoctor) dirs() []string {
	return []string{string(d.cfg.OutboxDir), string(d.cfg.ShippedDir), string(d.cfg.EpisodesDir)}
}

// examineMachine checks what needs no network.
func (d *hostDoctor) examineMachine() {
	cfg, outbox := d.cfg, string(d.cfg.OutboxDir)
	d.examineFiles()
	d.CheckFolders(func(k *cli.CheckReport) { examineFolders(cfg, k, d.o.config) }, d.dirs()...)
	d.CheckOne("kernel", func(context.Context) doctor.Finding { return doctor.CheckKernel(hostdir.CheckKernel()) })
	d.CheckFileSystems(d.dirs()...)
	var free durable.Free
	var err error
	switch {
	case !d.Guard("space", func(context.Context) { free, err = cli.FreeAt(outbox) }, outbox):
	case err != nil:
		d.Skip("space", "%v", err)
	default:
		d.AddSpace(spaceOf(cfg, free), checkSpace(cfg, free), checkInodes(cfg, free))
	}
	d.CheckOne("disk", func(ctx context.Context) doctor.Finding { return doctor.CheckDisk(ctx, outbox) }, outbox)
	d.CheckOne("clock", func(context.Context) doctor.Finding { return doctor.CheckClock() })
	d.CheckOne("unit", func(context.Context) doctor.Finding { return doctor.CheckUnit(d.Unit) })
	d.Check("daemon", func(context.Context) []doctor.Finding { return d.examineDaemon() }, d.dirs()...)
}

// examineFiles checks that the shipper's user can read what a start reads, and that it can be loaded.
func (d *hostDoctor) examineFiles() {
	k := d.NewReport()
	files := reloadedFiles(d.cfg)
	if !d.Guard("files", func(context.Context) {
		examineFiles(d.cfg, k, cli.CheckLine(d.c))
		if !k.HasErrors() {
			k.AddError(d.credsErr)
		}
		if d.credsErr == nil {
			k.AddError(credentialFiles(d.cfg).CheckRoles())
		}
	}, files...) {
		return
	}
	d.AddReport("files", k, fmt.Sprintf("issue them again with 'receiver pki issue %s', or join again", d.cfg.HostID), strings.Join(files, ", ")+": readable for "+serviceuser.Current().Name())
}

// examineDaemon reports whether a shipper runs, and what it fails at.
func (d *hostDoctor) examineDaemon() []doctor.Finding {
	const check = "daemon"
	st, err := backlog.InspectStatus(d.cfg.Backlog())
	if errors.Is(err, fs.ErrNotExist) {
		return []doctor.Finding{doctor.Skippedf(check, "no shipper has run here: its first start makes the directories")}
	}
	if err != nil {
		return []doctor.Finding{d.FromError(check, err, "run 'shipper check' as root")}
	}
	found := []doctor.Finding{d.judgeRunning(st)}
	if st.StoreProblem != "" {
		found = append(found, doctor.FromError(check, errors.New(st.StoreProblem), "run 'shipper status'"))
	}
	if down := st.Receiver; down != nil && st.ReceiverState == backlog.ReceiverDown {
		found = append(found, doctor.Warningf(check, "do what the checks of the network below say",
			"the receiver has accepted nothing since %s: %s", down.Since.UTC().Format(time.DateTime), down.Cause))
	}
	if len(st.Failing) > 0 {
		f := st.Failing[0]
		found = append(found, doctor.Warningf(check, "run 'shipper status': it lists them",
			"%s, the first since %s: %s", cli.FormatCountWith(st.FailingTotal, "episode", "fails", "fail"), f.Since.UTC().Format(time.DateTime), f.Cause))
	}
	if st.HeldTotal > 0 {
		found = append(found, doctor.Warningf(check, "run 'shipper held', and fix what it says", "%s held", cli.FormatCountWith(st.HeldTotal, "episode", "is", "are")))
	}
	return found
}

// judgeRunning reports whether a shipper runs, or need not run now.
func (d *hostDoctor) judgeRunning(st backlog.Status) doctor.Finding {
	const check = "daemon"
	switch {
	case st.RunningUnknown:
		return doctor.Skippedf(check, "only root and the shipper's user can see whether a shipper runs")
	case st.Running == "" && d.Unit.Waiting:
		return doctor.OKf(check, "no shipper runs now: %s starts it; %s, %d shipped", d.Unit.Starter, describeWaiting(st), st.Shipped)
	case st.Running == "":
		return doctor.Warningf(check, "run 'systemctl start cis490-shipper', unless cron starts 'shipper --once'", "no shipper runs; %s", describeWaiting(st))
	}
	return doctor.OKf(check, "%s runs; %s, %d shipped", st.Running, describeWaiting(st), st.Shipped)
}

func describeWaiting(st backlog.Status) string {
	return cli.FormatCountWith(st.Waiting+st.Sealed, "episode", "waits", "wait")
}

// examineNetwork checks each step to the receiver.
func (d *hostDoctor) examineNetwork() {
	var addrs []netip.AddrPort
	d.CheckNetwork("name", func(ctx context.Context) (f doctor.Finding) {
		f, addrs = doctor.CheckName(ctx, d.address)
		return f
	})
	if len(addrs) == 0 {
		d.skipAll("the address of the receiver is not known", "route", "connection", "path MTU", "TLS", "authorisation", "throughput")
		d.examineCertificate()
		return
	}
	d.CheckNetwork("route", func(context.Context) (f doctor.Finding) {
		f, d.route = doctor.CheckRoute(addrs)
		return f
	})
	d.CheckNetwork("connection", func(ctx context.Context) (f doctor.Finding) {
		f, to := doctor.CheckConnection(ctx, wire.Dial, d.address)
		d.connects = to.IsValid()
		if d.connects && to != d.route.To { // a different one of several addresses has answered
			_, d.route = doctor.CheckRoute([]netip.AddrPort{to})
		}
		return f
	})
	if !d.route.To.IsValid() {
		d.Skip("path MTU", "there is no route")
	} else {
		d.CheckNetwork("path MTU", d.examinePathMTU)
	}
	if d.creds == nil {
		d.skipAll("the files of this host cannot be loaded, see above", "TLS", "certificate", "authorisation", "throughput")
		return
	}
	d.examineReceiver()
}

// examinePathMTU tries TLS too before it calls a path a black hole: TCP may work where large datagrams
// vanish.
func (d *hostDoctor) examinePathMTU(ctx context.Context) doctor.Finding {
	f := doctor.CheckPathMTU(ctx, d.route)
	d.mtuFits = f.Verdict == doctor.OK
	if f.Verdict != doctor.Failed {
		return f
	}
	hello := doctor.HelloUnknown
	if d.creds != nil && d.connects {
		_, _, hello = doctor.CheckTLS(ctx, d.dialTLS, d.route, false)
	}
	return doctor.ConfirmBlackHole(f, hello)
}

// dialTLS is a [doctor.DialTLS] with the credentials of this host.
func (d *hostDoctor) dialTLS(ctx context.Context, groups ...tls.CurveID) (net.Conn, error) {
	return d.creds.DialTLSGroups(wire.Dial, groups...)(ctx, "tcp", d.address)
}

func (d *hostDoctor) skipAll(reason string, checks ...string) {
	for _, check := range checks {
		d.Skip(check, "%s", reason)
	}
}

// examineReceiver checks what needs the credentials of this host.
func (d *hostDoctor) examineReceiver() {
	if !d.connects {
		d.Skip("TLS", "there is no connection")
		d.examineCertificate()
		d.skipAll("there is no connection", "authorisation", "throughput")
		return
	}
	d.Check("TLS", func(ctx context.Context) (found []doctor.Finding) {
		found, d.leaf, _ = doctor.CheckTLS(ctx, d.dialTLS, d.route, d.mtuFits)
		return found
	})
	d.examineCertificate()
	if d.leaf == nil {
		d.skipAll("TLS fails", "authorisation", "throughput")
		return
	}
	admitted := false
	d.Check("authorisation", func(ctx context.Context) (found []doctor.Finding) {
		found, admitted = d.examineAccess(ctx)
		return found
	}, d.dirs()...)
	if !admitted {
		d.Skip("throughput", "the receiver has not admitted this host")
		return
	}
	d.CheckNetwork("throughput", func(ctx context.Context) doctor.Finding { return doctor.CheckThroughput(ctx, d.client.Probe) })
}

// examineCertificate reports for how long the certificates of this host and of the receiver are
// valid.
func (d *hostDoctor) examineCertificate() {
	if d.creds == nil {
		d.Skip("certificate", "the files of this host cannot be loaded, see above")
		return
	}
	now := time.Now()
	renewsAt, renews := d.creds.RenewAt()
	if !renews {
		renewsAt = time.Time{}
	}
	renew := fmt.Sprintf("issue a new one with 'receiver pki issue %s'", d.cfg.HostID)
	if renews {
		renew = fmt.Sprintf("join again: run 'receiver invite %s --again' on the receiver, and the line that it prints here", d.cfg.HostID)
	}
	f := doctor.CheckCertificate("certificate", d.creds.CertFile()+", of this host,", time.Time{}, d.creds.NotAfter(), renewsAt, now, renew)
	if err := d.creds.CheckValidity(d.cfg.HostID, now); err != nil {
		f = doctor.FromError("certificate", err, renew)
	}
	d.Add(f)
	if d.leaf == nil {
		return
	}
	// This host does not know whether the receiver renews its own.
	f = doctor.CheckCertificate("certificate", "the receiver's certificate", d.leaf.NotBefore, d.leaf.NotAfter, time.Time{}, now,
		"run 'receiver check' on the receiver: it says whether the certificate renews itself; if not, 'receiver pki renew'")
	f.Network = true
	d.Add(f)
}

// examineAccess pings the receiver, and reports whether it admits this host.
func (d *hostDoctor) examineAccess(ctx context.Context) (found []doctor.Finding, admitted bool) {
	const check = "authorisation"
	adopted, err := uplink.AdoptedBy(d.cfg.DirsConfig())
	if err != nil {
		return []doctor.Finding{d.FromError(check, err, "run 'shipper status'")}, false
	}
	resp, skew, err := measurePing(ctx, d.client, d.creds, d.cfg, adopted)
	if err != nil {
		f := doctor.FromNetworkError(check, err, "the journal of the receiver says why: journalctl -u cis490-receiver")
		if _, ours := errors.AsType[*uplink.OtherStoreError](err); ours {
			f = doctor.FromError(check, err, f.Remedy)
		} else if verr := d.creds.CheckValidity(d.cfg.HostID, time.Now()); verr != nil {
			f = doctor.FromError(check, verr, f.Remedy)
		}
		f.Network = true
		return []doctor.Finding{f}, false
	}
	access := doctor.OKf(check, "admitted as %s by %s; receiver version %s; %s per archive, %d uploads at once; store %s",
		resp.Host, resp.Auth.Method, resp.Receiver.Version, config.Bytes(max(resp.Limits.MaxSize, 0)), resp.Limits.UploadsPerHost, storeOf(resp.Store, adopted.ID != ""))
	storage := doctor.OKf("storage", "%s available to this host at the receiver", sizeOrUnknown(resp.Storage.FreeBytes))
	if err := resp.Storage.Err(); err != nil {
		storage = doctor.FromNetworkError("storage", err, "run 'receiver status' on the receiver")
	}
	clock := doctor.OKf("clock", "%s", clockText(skew))
	if skew.Abs() > maxClockSkew {
		clock = doctor.FromNote("clock", clockText(skew), "check both clocks")
	}
	return []doctor.Finding{access, storage, clock}, true
}
