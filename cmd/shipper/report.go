package main

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/credentials"
	"cis490/internal/retry"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// Times of reports.
const (
	firstReport    = 2 * time.Second // after the start, at most
	onceTimeout    = 5 * time.Second // of a pass that is over
	noReportsPause = time.Hour       // for a receiver that keeps no reports
)

// hostReporter reports the state of the host to the receiver. A report that fails costs a line in the
// log at most: episodes are sent as before.
type hostReporter struct {
	log         *slog.Logger
	interval    time.Duration // 0: no reports
	reporter    *backlog.Reporter
	send        func(context.Context, wire.Report) error
	certificate func() time.Time // when it expires
	changes     <-chan struct{}  // see [shipper.Shipper.StateChanges]

	failure string // of the last report, if it is in the log
}

func newHostReporter(cfg shipper.Config, creds *credentials.Client, send func(context.Context, wire.Report) error, log *slog.Logger) *hostReporter {
	return &hostReporter{
		log: log, interval: cfg.ReportInterval.Std(), reporter: backlog.NewReporter(cfg.Backlog(), cli.Version()), send: send, certificate: creds.NotAfter,
	}
}

// reportOnce reports the result of a pass.
func (r *hostReporter) reportOnce(ctx context.Context) {
	if r.interval == 0 || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	if err := r.sendReport(ctx, 0); err != nil {
		r.log.Debug("report not sent", "err", err)
	}
}

// reportUntilDone reports at an interval, and after a change.
func (r *hostReporter) reportUntilDone(ctx context.Context) error {
	if r.interval == 0 || !retry.Sleep(ctx, rand.N(firstReport)) {
		return nil
	}
	for {
		next := r.interval - rand.N(r.interval/5)
		err := r.sendReport(ctx, r.interval)
		if ctx.Err() != nil {
			return nil
		}
		r.logFailure(err)
		if errors.Is(err, wire.NotFound) {
			retry.Sleep(ctx, noReportsPause)
		} else {
			r.waitForChange(ctx, next)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// logFailure logs once each kind of failure that an operator may have to know. The log has those of the
// network already, and the receiver's those of its disk.
func (r *hostReporter) logFailure(err error) {
	refusal, refused := errors.AsType[*wire.Problem](err)
	local, isLocal := errors.AsType[*localError](err)
	kind := ""
	switch {
	case err == nil:
		r.failure = ""
		return
	case errors.Is(err, wire.NotFound):
		kind = "not found"
		if r.failure != kind {
			r.log.Info("receiver keeps no reports", "hint", "it is an older one: 'receiver hosts' shows less of this host")
		}
	case refused && refusal.Code == wire.BadRequest:
		kind = string(refusal.Code)
	case isLocal:
		kind = local.Error()
	}
	if kind == "" {
		r.log.Debug("report not sent", "err", err)
		return
	}
	if r.failure != kind && !errors.Is(err, wire.NotFound) {
		r.log.Warn("no report of this host", "err", err)
	}
	r.failure = kind
}

// localError says that the state of this host cannot be read.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *localError) Unwrap() error { return e.err }

// waitForChange waits for a change or for a time.
func (r *hostReporter) waitForChange(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if !retry.Sleep(ctx, min(shipper.MinReportInterval, most)) {
		return
	}
	select {
	case <-ctx.Done():
	case <-r.changes:
	}
}

// sendReport makes a report and sends it. interval is the time until the next one, or 0 if that is unknown.
func (r *hostReporter) sendReport(ctx context.Context, interval time.Duration) error {
	report, err := r.reporter.Report(ctx, time.Now(), interval, r.certificate().UTC())
	if err != nil {
		return &localError{err}
	}
	return r.send(ctx, report)
}
