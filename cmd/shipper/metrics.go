package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cis490/internal/admin"
	"cis490/internal/cli"
	"cis490/internal/metrics"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// Metrics of the shipper. docs/metrics.md lists them.
var (
	metricStateSuccess = metrics.Desc("cis490_shipper_state_success", "1 if the directories could be read for this scrape.")

	metricReceiverUp       = metrics.Desc("cis490_shipper_receiver_up", "1 if the receiver accepts uploads, as far as the shipper knows.")
	metricReceiverAnswered = metrics.Desc("cis490_shipper_receiver_answered_timestamp_seconds", "When the receiver last accepted something.")
	metricResults          = metrics.Desc("cis490_shipper_results_total", "Results of attempts with an episode since the start, in the words of --once.", "result")
	metricSentBytes        = metrics.Desc("cis490_shipper_sent_bytes_total", "Bytes of the archives delivered since the start.")

	metricUnfinished       = metrics.Desc("cis490_shipper_unfinished_episodes", "Episodes without done.marker.")
	metricOldestUnfinished = metrics.Desc("cis490_shipper_oldest_unfinished_timestamp_seconds", "When the unfinished episode that is idle for longest last changed.")
	metricWaiting          = metrics.Desc("cis490_shipper_waiting_episodes", "Finished episodes that are not delivered, without those held.")
	metricWaitingBytes     = metrics.Desc("cis490_shipper_waiting_bytes", "Bytes of those that are packed.")
	metricOldestWaiting    = metrics.Desc("cis490_shipper_oldest_waiting_timestamp_seconds", "Since when the oldest of them has been waiting.")
	metricFailing          = metrics.Desc("cis490_shipper_failing_episodes", "Waiting episodes that have failed at least once.")
	metricFailingSince     = metrics.Desc("cis490_shipper_failing_since_timestamp_seconds", "Since when the first of them has failed.")
	metricHeld             = metrics.Desc("cis490_shipper_held_episodes", "Episodes that wait for an operator.", "reason")
	metricShipped          = metrics.Desc("cis490_shipper_shipped_episodes", "Delivered episodes that are still here.")
	metricCountedInPart    = metrics.Desc("cis490_shipper_counted_in_part", "1 if only some of the episodes were counted, because of their number.")
	metricFreeBytes        = metrics.Desc("cis490_shipper_free_bytes", "Free space on the disk of the outbox.")
	metricDiskBytes        = metrics.Desc("cis490_shipper_disk_bytes", "Size of that disk.")
	metricMinFreeBytes     = metrics.Desc("cis490_shipper_min_free_bytes", "Below this free space, nothing is packed.")
	metricFreeInodes       = metrics.Desc("cis490_shipper_free_inodes", "Free inodes on that disk. Absent if it has no limit.")
	metricCertNotAfter     = metrics.Desc("cis490_shipper_certificate_not_after_timestamp_seconds", "When the certificate of this host expires.")

	metricPassEnded   = metrics.Desc("cis490_shipper_last_pass_timestamp_seconds", "When the last --once ended.")
	metricPassSeconds = metrics.Desc("cis490_shipper_last_pass_duration_seconds", "How long it took.")
	metricPassCode    = metrics.Desc("cis490_shipper_last_pass_exit_code", "Its exit code.")
	metricPassResults = metrics.Desc("cis490_shipper_last_pass_episodes", "Episodes by the result of that pass.", "result")
)

// newDaemonAdmin returns what the admin listener of a shipper serves.
func newDaemonAdmin(s *shipper.Shipper, cfg shipper.Config, certificate func() time.Time, log *slog.Logger) (admin.Daemon, error) {
	reg := metrics.NewRegistry("shipper", cli.Version())
	metrics.AddRuntime(reg)
	reporter := shipper.NewReporter(cfg, cli.Version())
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		link := s.LinkStatus()
		to.SetBool(metricReceiverUp, link.Up && !link.AnsweredAt.IsZero())
		to.SetTime(metricReceiverAnswered, link.AnsweredAt)
		for result, n := range resultsOf(s.Tally()) {
			to.Count(metricResults, float64(n), result)
		}
		to.Count(metricSentBytes, float64(s.SentBytes()))
		return readState(to, reporter, certificate())
	}}
	err := reg.Register(state)
	return admin.Daemon{Name: "shipper", Metrics: metrics.Handler(reg, log), Alive: s.IsAlive, Ready: s.Ready}, err
}

// resultsOf returns a tally by the words that --once prints.
func resultsOf(t shipper.Tally) map[string]int {
	return map[string]int{
		"shipped": t.Shipped, "already_present": t.AlreadyPresent, "transient": t.Transient, "conflicts": t.Conflicts, "held": t.Held,
	}
}

// stateTimeout bounds how long the directories are read for a scrape.
const stateTimeout = 15 * time.Second

// readState reads what the directories say.
func readState(to *metrics.Reading, reporter *shipper.Reporter, certificate time.Time) error {
	to.SetTime(metricCertNotAfter, certificate)
	ctx, cancel := context.WithTimeout(context.Background(), stateTimeout)
	defer cancel()
	r, err := reporter.Report(ctx, time.Now(), 0, certificate)
	if err != nil {
		return err
	}
	setReport(to, r)
	return nil
}

func setReport(to *metrics.Reading, r wire.Report) {
	to.SetInt(metricUnfinished, r.Unfinished)
	to.SetTime(metricOldestUnfinished, r.OldestUnfinished)
	to.SetInt(metricWaiting, r.Waiting)
	to.SetInt(metricWaitingBytes, r.WaitingBytes)
	to.SetTime(metricOldestWaiting, r.OldestWaiting)
	to.SetInt(metricFailing, r.Failing)
	to.SetTime(metricFailingSince, r.FailingSince)
	for reason, n := range r.HeldByReason() {
		to.SetInt(metricHeld, n, reason)
	}
	to.SetInt(metricShipped, r.Shipped)
	to.SetBool(metricCountedInPart, r.CountedInPart)
	if r.Disk.SizeBytes > 0 {
		to.SetInt(metricFreeBytes, r.Disk.FreeBytes)
		to.SetInt(metricDiskBytes, r.Disk.SizeBytes)
		to.SetInt(metricMinFreeBytes, r.Disk.MinFree)
	}
	if r.Disk.Inodes > 0 {
		to.SetInt(metricFreeInodes, r.Disk.FreeInodes)
	}
}

// writeMetrics writes what a single pass says, for node_exporter. A failure changes nothing about the
// result of the pass.
func writeMetrics(cfg shipper.Config, certificate time.Time, t shipper.Tally, begun time.Time, code int, log *slog.Logger) {
	if cfg.MetricsFile == "" {
		return
	}
	reg := metrics.NewRegistry("shipper", cli.Version())
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		now := time.Now()
		to.SetTime(metricPassEnded, now)
		to.Set(metricPassSeconds, now.Sub(begun).Seconds())
		to.SetInt(metricPassCode, int64(code))
		for result, n := range resultsOf(t) {
			to.SetInt(metricPassResults, int64(n), result)
		}
		return readState(to, shipper.NewReporter(cfg, cli.Version()), certificate)
	}}
	if err := errors.Join(reg.Register(state), metrics.WriteFile(string(cfg.MetricsFile), reg)); err != nil {
		log.Warn("metrics not written", "err", err, "hint", "the directory of metrics_file must be writable for the shipper's user")
	}
}
