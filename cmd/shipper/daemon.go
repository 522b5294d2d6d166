package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/hostdir"
	"cis490/internal/logging"
	"cis490/internal/pki"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// expiresSoon is how long before its expiry a certificate is warned about.
const expiresSoon = 30 * 24 * time.Hour

// credentialFiles returns the files that a start and a reload read.
func credentialFiles(c shipper.Config) pki.ClientConfig {
	return pki.ClientConfig{
		CAFile:    string(c.Receiver.CAFile),
		CertFile:  string(c.Receiver.CertFile),
		KeyFile:   string(c.Receiver.KeyFile),
		TokenFile: string(c.Receiver.TokenFile),
	}
}

func reloadedFiles(c shipper.Config) []string { return credentialFiles(c).Files() }

// newClient returns the client of c, and the credentials that it presents.
func newClient(c shipper.Config) (*wire.Client, *pki.Client, error) {
	creds, err := pki.LoadClient(credentialFiles(c))
	if err != nil {
		return nil, nil, cli.UsageError(err)
	}
	client, err := wire.NewClient(wire.ClientConfig{
		URL:     c.Receiver.URL,
		Host:    c.HostID,
		DialTLS: creds.DialTLS(wire.Dial),
		Token:   creds.Token,
		Version: cli.Version(),
		Conns:   c.Senders + 1, // one for the ping
	})
	if err != nil {
		return nil, nil, cli.UsageError(fmt.Errorf("receiver.url: %w", err))
	}
	return client, creds, nil
}

// runDaemon ships episodes until SIGTERM.
func runDaemon(c *cobra.Command, o *options) error {
	hup := cli.NotifyHangup()
	cfg, client, creds, err := o.connectToShip(c)
	if err != nil {
		return err
	}
	log, flush := logging.NewDaemon(o.verbose)
	defer flush()
	reloads := &cli.Reloader{Log: log, Files: reloadedFiles(cfg), Config: o.config, Check: cli.CheckLine(c)}
	reloads.Prepare()
	s, err := shipper.New(cfg, client, cli.LockHolder("shipper"), log)
	if err != nil {
		return startError(err, o.config)
	}
	defer s.Close()
	cli.LogFolders(log, o.missing, config.LiteralPaths(cfg))
	cli.WarnAtStart(log, shipper.BareSizes(o.config), string(cfg.OutboxDir), string(cfg.Receiver.KeyFile), string(cfg.Receiver.TokenFile))
	renewal := &credentialRenewal{log: log, cfg: cfg, creds: creds, client: client, reloads: reloads}
	s.Status, s.Renew = reloads.NotifyStatus, renewal.renewAfterRefusal
	log.Info("shipper started", "version", cli.Version(), "host", cfg.HostID, "receiver", cfg.Receiver.URL)
	reloads.Load = func() error {
		if err := creds.Reload(); err != nil {
			return err
		}
		client.CloseIdle()
		s.RequestPing()
		renewal.warnExpiry()
		return nil
	}
	return reloads.RunDaemon(c.Context(), hup, "looking for episodes", s.IsAlive, renewal.warnExpiry, func(ctx context.Context) error {
		if err := s.Run(ctx); err != nil {
			return err
		}
		log.Info("shipper stopped", "result", s.Tally().String())
		return nil
	})
}

// startError gives an error of the shipper's start its exit code. The operator must correct
// what the configuration names.
func startError(err error, file string) error {
	if _, named := errors.AsType[*hostdir.ConfigError](err); named {
		return cli.UsageError(fmt.Errorf("%w; fix that or change %s", err, file))
	}
	return cli.StartError(err)
}
