package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"cis490/internal/admin"
	"cis490/internal/backlog"
	"cis490/internal/cli"
	"cis490/internal/metrics"
	"cis490/internal/serviceuser"
	"cis490/internal/shipper"
	"cis490/internal/snapshot"
	"cis490/internal/wire"
)

// Metrics of the shipper. docs/metrics.md lists them.
var (
	metricStateSuccess = metrics.Desc("cis490_shipper_state_success", "1 if the directories could be read, at the last reading.")

	metricReceiverUp       = metrics.Desc("cis490_shipper_receiver_up", "1 if the receiver accepts uploads, as far as the shipper knows.")
	metricReceiverAnswered = metrics.Desc("cis490_shipper_receiver_answered_timestamp_seconds", "When the receiver last accepted something.")
	metricOutcomes         = metrics.Desc("cis490_shipper_attempts_total", "Attempts with an episode that have ended: shipped, already_present, failed (tried again later) or held.", "result")
	metricDeliveredBytes   = metrics.Desc("cis490_shipper_delivered_bytes_total", "Bytes of the archives that the receiver has confirmed.")
	metricCertNotAfter     = metrics.Desc("cis490_shipper_certificate_not_after_timestamp_seconds", "When the certificate of this host expires.")
	metricHeartbeatSince   = metrics.Desc("cis490_shipper_heartbeat_success_timestamp_seconds", "When the heartbeat was last delivered. Absent without one.")

	metricsReport = metrics.NewReportDescs("cis490_shipper_")

	metricPassEnded   = metrics.Desc("cis490_shipper_last_pass_timestamp_seconds", "When the last --once ended.")
	metricPassSeconds = metrics.Desc("cis490_shipper_last_pass_duration_seconds", "How long it took.")
	metricPassCode    = metrics.Desc("cis490_shipper_last_pass_exit_code", "Its exit code.")
	metricPassResults = metrics.Desc("cis490_shipper_last_pass_episodes", "Episodes by the result of that pass.", "result")
)

// newDaemonAdmin returns what the admin listener of a shipper serves.
func newDaemonAdmin(s *shipper.Shipper, cfg shipper.Config, certificate, heartbeat func() time.Time, log *slog.Logger) (admin.Daemon, error) {
	reg := metrics.NewRegistry("shipper", cli.Version())
	metrics.AddProcess(reg)
	live := metrics.Live(func(to *metrics.Reading) {
		link, n := s.LinkStatus(), s.Outcomes()
		to.SetBool(metricReceiverUp, link.Up && !link.AnsweredAt.IsZero())
		to.SetTime(metricReceiverAnswered, link.AnsweredAt)
		to.SetTime(metricCertNotAfter, certificate())
		to.SetTime(metricHeartbeatSince, heartbeat())
		for result, n := range map[string]int64{"shipped": n.Shipped, "already_present": n.AlreadyPresent, "failed": n.Failed, "held": n.Held} {
			to.Count(metricOutcomes, float64(n), result)
		}
		to.Count(metricDeliveredBytes, float64(n.DeliveredBytes))
	})
	reporter := backlog.NewReporter(cfg.Backlog(), cli.Version())
	var shared snapshot.Shared[reading]
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return setState(to, shared.Latest(func() reading { return readState(context.Background(), reporter) }))
	}}
	err := errors.Join(reg.Register(live), reg.Register(state))
	return admin.Daemon{Name: "shipper", Metrics: metrics.Handler(reg, log), Alive: s.IsAlive, Ready: s.Ready}, err
}

// stateTimeout bounds how long the directories are read for a scrape.
const stateTimeout = 15 * time.Second

// reading is the state of the directories, and why the rest could not be read.
type reading struct {
	wire.Report
	err error
}

func readState(ctx context.Context, reporter *backlog.Reporter) reading {
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	r, err := reporter.Report(ctx, time.Now(), 0, time.Time{})
	return reading{r, err}
}

// setState sets the metrics of the directories. The disk is known even if there are too many episodes to
// count them in time.
func setState(to *metrics.Reading, r reading) error {
	metricsReport.SetDisk(to, r.Disk)
	if r.err == nil {
		metricsReport.SetCounts(to, r.Report)
	}
	return r.err
}

// passResult is the result of a single pass for metrics.
type passResult struct {
	begun       time.Time
	tally       shipper.Tally
	certificate time.Time // when it expires
	code        int       // the exit code
}

// writePassMetrics writes the metrics of a pass for node_exporter. A failure changes nothing about the
// result of the pass.
func writePassMetrics(ctx context.Context, cfg shipper.Config, p passResult, log *slog.Logger) {
	if cfg.MetricsFile == "" {
		return
	}
	reg := metrics.NewRegistry("shipper", cli.Version())
	live := metrics.Live(func(to *metrics.Reading) {
		now, t := time.Now(), p.tally
		to.SetTime(metricPassEnded, now)
		to.Set(metricPassSeconds, now.Sub(p.begun).Seconds())
		to.SetInt(metricPassCode, int64(p.code))
		to.SetTime(metricCertNotAfter, p.certificate)
		for result, n := range map[string]int{
			"shipped": t.Shipped, "already_present": t.AlreadyPresent, "transient": t.Transient, "conflicts": t.Conflicts, "held": t.Held,
		} {
			to.SetInt(metricPassResults, int64(n), result)
		}
	})
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return setState(to, readState(ctx, backlog.NewReporter(cfg.Backlog(), cli.Version())))
	}}
	err := errors.Join(reg.Register(live), reg.Register(state))
	var text []byte
	if err == nil {
		text, err = metrics.Text(reg)
	}
	if err == nil {
		err = replaceFile(string(cfg.MetricsFile), text)
	}
	if err != nil {
		log.Warn("metrics not written", "err", err, "hint", "the directory of metrics_file must be writable for the shipper's user")
	}
}

// replaceFile replaces a file. Other users may be able to write to its directory, so that is opened once, and
// nothing in it is followed.
func replaceFile(path string, text []byte) error {
	dir, err := serviceuser.OpenDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.WriteFileNoSync(filepath.Base(path), text, 0o644)
}
