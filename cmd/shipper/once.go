package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/hint"
	"cis490/internal/logging"
	"cis490/internal/progress"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// runOnce processes all pending episodes once.
func runOnce(c *cobra.Command, o *options) error {
	result := passResult{begun: time.Now()}
	cfg, client, creds, err := o.connectToShip(c)
	if err != nil {
		return err
	}
	display := cli.NewDisplay(c)
	log := logging.NewAbove(display.Above(c.ErrOrStderr()), o.verbose, cfg.LogFormat)
	err = runPass(c, o, &pass{cfg, client, creds, log, display}, &result.tally)
	result.code, result.certificate = cli.ExitCodeOf(err), creds.NotAfter() // which the pass may have renewed
	writePassMetrics(c.Context(), cfg, result, log)
	return err
}

// pass is what a single pass needs.
type pass struct {
	cfg    shipper.Config
	client *wire.Client
	creds  *credentials.Client
	log    *slog.Logger

	display *progress.Display // of transfers, on a terminal
}

func runPass(c *cobra.Command, o *options, p *pass, tally *shipper.Tally) error {
	s, err := shipper.New(p.cfg, p.client, cli.LockHolder("shipper --once"), p.log)
	if err != nil {
		return startError(err, o.config)
	}
	defer s.Close()
	cli.LogFolders(p.log, o.missing, config.LiteralPaths(p.cfg))
	p.display.Start(func() progress.Status { return activityStatus(s) })
	*tally, err = s.RunOnce(c.Context())
	p.display.Stop()
	return finishPass(c, o, p, *tally, err)
}

// finishPass renews the certificate if that is due, prints the result, and reports it to the receiver.
func finishPass(c *cobra.Command, o *options, p *pass, tally shipper.Tally, passErr error) (err error) {
	canceled := errors.Is(passErr, context.Canceled)
	if c.Context().Err() != nil && canceled {
		passErr = nil
	}
	if _, unreachable := errors.AsType[*uplink.UnreachableError](passErr); passErr != nil && (canceled || !unreachable) {
		return passErr
	}
	if passErr == nil { // the receiver was reached, or nothing had to be sent
		renewer := &certificateRenewer{log: p.log, cfg: p.cfg, creds: p.creds, client: p.client, once: true}
		renewer.learnCAs(c.Context())
		renewer.renewIfDue(c.Context())
	}
	if o.json {
		err = cli.WriteJSON(c.OutOrStdout(), tally)
	} else {
		_, err = fmt.Fprintln(c.OutOrStdout(), tally)
	}
	if c.Context().Err() != nil {
		return errors.Join(err, &cli.ExitError{Code: cli.Failed, Err: errors.New("interrupted; episodes that were not reached are unchanged")})
	}
	if passErr == nil {
		report := func(ctx context.Context, r wire.Report) error {
			_, err := p.client.SendReport(ctx, r) // the next pass checks the store
			return err
		}
		newHostReporter(p.cfg, p.creds, report, p.log).reportOnce(c.Context())
	}
	return errors.Join(err, passError(p.cfg, tally, passErr))
}

// passError returns the error, with its exit code, for the result of a pass.
func passError(cfg shipper.Config, t shipper.Tally, unreachable error) error {
	switch {
	case unreachable != nil:
		return unreachableError(cfg, unreachable)
	case t.Held+t.Conflicts > 0:
		return &cli.ExitError{Code: cli.SomeHeld, Err: fmt.Errorf("%s held: see 'shipper status'", cli.FormatCountWith(t.Held+t.Conflicts, "episode", "is", "are"))}
	case t.Transient > 0:
		return &cli.ExitError{Code: cli.Failed, Err: fmt.Errorf("%s could not be shipped now: see the log", cli.FormatCount(t.Transient, "episode"))}
	}
	return nil
}

// unreachableError returns the error, with its exit code, for a receiver that cannot be asked.
func unreachableError(cfg shipper.Config, err error) error {
	err = fmt.Errorf("receiver %s: %w", cfg.Receiver.URL, err)
	if hint := hint.For(err); hint != "" {
		err = fmt.Errorf("%w (%s)", err, hint)
	}
	return &cli.ExitError{Code: cli.Unreachable, Err: err}
}

// activityStatus returns the progress of a pass.
func activityStatus(s *shipper.Shipper) progress.Status {
	a := s.Activity()
	status := progress.Status{
		What: "episodes", Items: int64(a.Tally.ResultCount()), TotalItems: int64(a.Tally.Scanned),
		Bytes: a.SentBytes, TotalBytes: a.PackedBytes, Moved: a.ReadBytes, Growing: !a.AllPacked,
	}
	for _, t := range a.Transfers {
		state := "packing"
		if t.Sends {
			state = "sending"
		}
		status.Transfers = append(status.Transfers,
			progress.Transfer{Name: string(t.Episode), State: state, Bytes: t.Bytes, Size: t.Size, Moved: t.Moved})
	}
	return status
}
