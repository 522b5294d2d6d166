package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/admin"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/hint"
	"cis490/internal/hostdir"
	"cis490/internal/logging"
	"cis490/internal/notify"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// credentialFiles returns the files that a start and a reload read.
func credentialFiles(c shipper.Config) credentials.Config {
	return credentials.Config{
		CAFile:    string(c.Receiver.CAFile),
		CertFile:  string(c.Receiver.CertFile),
		KeyFile:   string(c.Receiver.KeyFile),
		TokenFile: string(c.Receiver.TokenFile),

		IdentityDir: string(c.IdentityDir),
		Host:        c.HostID,
	}
}

func reloadedFiles(c shipper.Config) []string { return credentialFiles(c).Files() }

// newClient returns the client of c, and the credentials that it presents.
func newClient(c shipper.Config) (*wire.Client, *credentials.Client, error) {
	creds, err := credentials.Load(credentialFiles(c))
	if err != nil {
		return nil, nil, cli.UsageError(err)
	}
	client, err := newClientOf(c, creds)
	return client, creds, err
}

// newClientOf returns a client that presents the given credentials.
func newClientOf(c shipper.Config, creds *credentials.Client) (*wire.Client, error) {
	client, err := wire.NewClient(wire.ClientConfig{
		URL:     c.Receiver.URL,
		Host:    c.HostID,
		DialTLS: creds.DialTLS(wire.Dial),
		Token:   creds.Token,
		Version: cli.Version(),
		Conns:   c.Senders + 3, // one for the ping, one for a renewal, and one for a report

		TrustedCAs: creds.TrustedCAs,
		Pinged: func(p wire.PingResponse) {
			if p.CAs != nil {
				creds.NoteAnnouncement(credentials.Announcement{ServerCAs: p.CAs.Server, Renew: p.CAs.Renew})
			}
		},
	})
	if err != nil {
		return nil, cli.UsageError(fmt.Errorf("receiver.url: %w", err))
	}
	return client, nil
}

// runDaemon ships episodes until SIGTERM.
func runDaemon(c *cobra.Command, o *options) error {
	hup := cli.NotifyHangup()
	cfg, client, creds, err := o.connectToShip(c)
	if err != nil {
		return err
	}
	log, flush := logging.NewDaemon(o.verbose, cfg.LogFormat)
	defer flush()
	reloads := &cli.Reloader{Log: log, Files: reloadedFiles(cfg), Config: o.config, Check: cli.CheckLine(c)}
	reloads.Prepare()
	s, err := shipper.New(cfg, client, cli.LockHolder("shipper"), log)
	if err != nil {
		return startError(err, o.config)
	}
	defer s.Close()
	cli.LogFolders(log, o.missing, config.LiteralPaths(cfg))
	cli.WarnAtStart(log, shipper.BareSizes(o.config), string(cfg.OutboxDir), secretFiles(cfg)...)
	renewer := &certificateRenewer{log: log, cfg: cfg, creds: creds, client: client}
	reloader := &credentialReloader{log: log, cfg: cfg, creds: creds, client: client, reloads: reloads, renewer: renewer}
	s.Status, s.ReloadCredentials = reloads.NotifyStatus, reloader.reloadAfterRefusal
	reporter := newHostReporter(cfg, creds, s.SendReport, log)
	reporter.changes = s.StateChanges()
	adminLn, err := admin.Listen(cfg.Admin, log)
	if err != nil {
		return err
	}
	heartbeat := &notify.Heartbeat{Config: cfg.Heartbeat, Agent: "cis490-shipper/" + cli.Version(), Ready: s.Ready, Log: log}
	served, err := newDaemonAdmin(s, cfg, creds.NotAfter, heartbeat.LastSuccess, log)
	if err != nil {
		return err
	}
	log.Info("shipper started", "version", cli.Version(), "host", cfg.HostID, "receiver", cfg.Receiver.URL)
	reloads.Load = func() error {
		if err := creds.Reload(); err != nil {
			return err
		}
		client.CloseIdle()
		s.RequestPing()
		reloader.warnExpiry()
		return nil
	}
	return reloads.RunDaemon(c.Context(), hup, "looking for episodes", s.IsAlive, reloader.warnExpiry, func(ctx context.Context) error {
		if err := s.Run(ctx); err != nil {
			return err
		}
		log.Info("shipper stopped", "result", s.Tally().String())
		return nil
	}, renewer.renewUntilDone, reporter.reportUntilDone, func(ctx context.Context) error {
		heartbeat.Run(ctx)
		return nil
	}, func(ctx context.Context) error { return cfg.Admin.Serve(ctx, adminLn, served, log) })
}

// startError gives an error of the shipper's start its exit code. The operator must correct
// what the configuration names.
func startError(err error, file string) error {
	if _, named := errors.AsType[*hostdir.ConfigError](err); named {
		return cli.UsageError(fmt.Errorf("%w; fix that or change %s", err, file))
	}
	return cli.StartError(err)
}

// credentialReloader loads credentials that were renewed on disk and not reloaded.
type credentialReloader struct {
	log     *slog.Logger
	cfg     shipper.Config
	creds   *credentials.Client
	client  *wire.Client
	reloads *cli.Reloader
	renewer *certificateRenewer
	warner  cli.ExpiryWarner
}

// reloadAfterRefusal is [shipper.Shipper.ReloadCredentials].
func (r *credentialReloader) reloadAfterRefusal(refusal error) (changed bool, advice string) {
	own := r.creds.CheckValidity(r.cfg.HostID, time.Now())
	if own == nil && !hint.BlamesCredentials(refusal) {
		return false, ""
	}
	r.client.CloseIdle() // these connections use the old credentials
	changed, err := r.reloadCredentials()
	switch {
	case err != nil:
		return false, fmt.Sprintf("fix this, then 'systemctl reload cis490-shipper': the credentials on this host's disk, perhaps newer, cannot be loaded: %v", err)
	case changed:
		return true, ""
	case own != nil:
		return false, "this host's disk has no other certificate: " + own.Error()
	}
	return false, hint.For(refusal) + "; this host's disk has no other certificate, CA or token"
}

// reloadCredentials loads the credentials on disk, and reports whether they changed.
func (r *credentialReloader) reloadCredentials() (changed bool, err error) {
	changed, err = r.creds.ReloadIfChanged()
	if err != nil {
		return false, serviceuser.Explain(err, r.reloads.Check)
	}
	if changed {
		r.client.CloseIdle()
		r.reloads.ClearFailure()
		r.log.Info("loaded renewed certificates", "files", strings.Join(r.reloads.Files, " "), "not_after", r.creds.NotAfter().UTC().Format(time.RFC3339))
	}
	return changed, nil
}

// warnExpiry logs that the certificate expires or gives no access, unless a newer one is on disk.
func (r *credentialReloader) warnExpiry() {
	if r.expiresSoon() {
		// A reload and the receiver's refusal report what cannot be loaded.
		_, _ = r.reloadCredentials()
	}
	if err := r.creds.CheckValidity(r.cfg.HostID, time.Now()); err != nil {
		r.log.Error("the receiver will refuse this host", "err", err)
		return
	}
	if now := time.Now(); r.warner.IsDue(r.creds.NotAfter(), now) {
		r.log.Warn("certificate expires soon", "file", r.creds.CertFile(), "days", cli.DaysLeft(r.creds.NotAfter(), now),
			"hint", r.renewalHint())
	}
}

// renewalHint says how the host gets its next certificate.
func (r *credentialReloader) renewalHint() string {
	if _, renews := r.creds.RenewAt(); renews {
		why := "not tried yet"
		if failure := r.renewer.failure.Load(); failure != nil {
			why = *failure
		}
		return fmt.Sprintf("it was not renewed (%s); to join again before it expires, run 'receiver invite %s --again' on the receiver", why, r.cfg.HostID)
	}
	return "issue a new one with 'receiver pki issue'"
}

// expiresSoon reports whether the certificate expires soon or is not valid now.
func (r *credentialReloader) expiresSoon() bool {
	return time.Until(r.creds.NotAfter()) < cli.FirstExpiryWarning || r.creds.CheckValidity(r.cfg.HostID, time.Now()) != nil
}
