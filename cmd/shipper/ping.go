package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/credentials"
	"cis490/internal/durable"
	"cis490/internal/hint"
	"cis490/internal/outbox"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/uplink"
	"cis490/internal/wire"
)

// pingTimeout bounds the whole test, since its user waits for it.
const pingTimeout = 20 * time.Second

// maxClockSkew is how far the clocks may be apart before --ping warns.
const maxClockSkew = 5 * time.Second

// pingReport is what --ping --json prints.
type pingReport struct {
	OK        bool               `json:"ok"`
	URL       string             `json:"url"`
	Error     string             `json:"error,omitempty"`
	Hint      string             `json:"hint,omitempty"`
	ClockSkew float64            `json:"clock_skew_seconds"` // local minus the receiver's
	Receiver  *wire.PingResponse `json:"receiver,omitempty"`
}

// pingResult is what a test of the connection found.
type pingResult struct {
	cfg      shipper.Config
	creds    *credentials.Client
	adopted  bool // this host has adopted a store
	response wire.PingResponse
	skew     time.Duration
	err      error
	hint     string // what to do about err
}

// exitError returns the error of the test as a command reports it, or nil.
func (p *pingResult) exitError() error {
	if p.err == nil {
		return nil
	}
	err := p.err
	if p.hint != "" {
		err = fmt.Errorf("%w\n  hint: %s", err, p.hint)
	}
	return &cli.ExitError{Code: cli.Unreachable, Err: fmt.Errorf("ping %s: %w", p.cfg.Receiver.URL, err)}
}

// runPing tests the connection to the receiver and explains what is wrong.
func runPing(c *cobra.Command, o *options) error {
	p, err := pingReceiver(c, o)
	if err != nil {
		return err
	}
	if !o.json {
		if p.err != nil {
			return p.exitError()
		}
		return printPing(c, p)
	}
	r := pingReport{OK: p.err == nil, URL: p.cfg.Receiver.URL, Hint: p.hint, ClockSkew: p.skew.Seconds()}
	if p.err != nil {
		r.Error = p.err.Error()
	}
	if p.response.Status != "" {
		r.Receiver = &p.response
	}
	return errors.Join(cli.WriteJSON(c.OutOrStdout(), r), p.exitError())
}

// pingReceiver tests the connection. It returns an error if the test cannot begin.
func pingReceiver(c *cobra.Command, o *options) (*pingResult, error) {
	cfg, client, creds, err := o.connectAsUser(c, false)
	if err != nil {
		return nil, err
	}
	if err := serviceuser.CheckReadable(reloadedFiles(cfg), cli.CheckLine(c)); err != nil {
		return nil, cli.UsageError(err)
	}
	adopted, err := uplink.AdoptedBy(cfg.DirsConfig())
	if err != nil {
		return nil, err
	}
	p := &pingResult{cfg: cfg, creds: creds, adopted: adopted.ID != ""}
	if p.response, p.skew, p.err = measurePing(c.Context(), client, creds, cfg, adopted); p.err == nil {
		p.err = p.response.Storage.Err()
	}
	p.hint = hint.For(p.err)
	return p, nil
}

// measurePing pings the receiver and returns how far the local clock is ahead of it.
func measurePing(ctx context.Context, client *wire.Client, creds *credentials.Client, cfg shipper.Config, adopted outbox.Store) (wire.PingResponse, time.Duration, error) {
	if err := creds.CheckValidity(cfg.HostID, time.Now()); err != nil {
		return wire.PingResponse{}, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	// The first ping opens the connection, the second one measures the skew.
	if _, err := uplink.Ping(ctx, cfg.DirsConfig(), client, adopted); err != nil {
		return wire.PingResponse{}, 0, err
	}
	sent := time.Now()
	resp, err := uplink.Ping(ctx, cfg.DirsConfig(), client, adopted)
	if err != nil {
		return wire.PingResponse{}, 0, err
	}
	return resp, sent.Add(time.Since(sent) / 2).Sub(resp.Time), nil
}

func printPing(c *cobra.Command, p *pingResult) error {
	cfg, creds, resp := p.cfg, p.creds, p.response
	row := func(name, format string, args ...any) cli.TableRow {
		return cli.TableRow{Name: name, Lines: []string{fmt.Sprintf(format, args...)}}
	}
	certificate := row("certificate", "valid until %s, %s", creds.NotAfter().UTC().Format(time.DateOnly), humanize.Time(creds.NotAfter()))
	if at, renews := creds.RenewAt(); renews {
		certificate.Lines = append(certificate.Lines, cli.FormatRenewal(at, time.Now()))
	}
	return cli.PrintRows(c.OutOrStdout(), []cli.TableRow{
		row("receiver", "%s, version %+q", cfg.Receiver.URL, resp.Receiver.Version),
		row("this host", "%s by %+q", resp.Host, resp.Auth.Method),
		certificate,
		row("clock", "%s", clockText(p.skew)),
		row("storage", "%s available to this host", sizeOrUnknown(resp.Storage.FreeBytes)),
		row("store", "%s", storeOf(resp.Store, p.adopted)),
		row("limits", "%s per archive, %d concurrent uploads", humanize.IBytes(uint64(max(resp.Limits.MaxSize, 0))), resp.Limits.UploadsPerHost),
		row("ok", "the receiver accepts episodes from this host"),
	})
}

// clockText describes how far the local clock is ahead of the receiver's.
func clockText(skew time.Duration) string {
	if skew.Abs() <= maxClockSkew {
		return fmt.Sprintf("within %v of the receiver", max(skew.Abs(), time.Millisecond).Round(time.Millisecond))
	}
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	return fmt.Sprintf("%v %s the receiver: check both clocks, certificates depend on them", skew.Abs().Round(time.Second), side)
}

// sizeOrUnknown shows how much is free. A file system that does not report it counts as
// [durable.UnknownSpace], from which the receiver has subtracted min_free.
func sizeOrUnknown(free int64) string {
	if free > durable.UnknownSpace/2 {
		return "an unknown amount is"
	}
	return humanize.IBytes(uint64(max(free, 0)))
}

// storeOf describes the store of the receiver, and whether this host has adopted it.
func storeOf(s *wire.Store, adopted bool) string {
	switch {
	case s == nil:
		return "not reported: upgrade the receiver"
	case adopted:
		return s.ID + ", adopted by this host"
	}
	return s.ID + ", will be adopted with the first receipt"
}
