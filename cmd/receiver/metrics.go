package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"cis490/internal/admin"
	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/hosts"
	"cis490/internal/metrics"
	"cis490/internal/receiver"
)

// Metrics of the receiver that are read from its directories. docs/metrics.md lists them.
var (
	metricStateSuccess = metrics.Desc("cis490_receiver_state_success", "1 if everything below could be read for this scrape.")

	metricReady        = metrics.Desc("cis490_receiver_ready", "1 if an upload would be taken now, as /readyz says.")
	metricFreeBytes    = metrics.Desc("cis490_receiver_free_bytes", "Free space on the disk of data_dir.")
	metricMinFreeBytes = metrics.Desc("cis490_receiver_min_free_bytes", "Below this free space, uploads are refused.")
	metricFreeInodes   = metrics.Desc("cis490_receiver_free_inodes", "Free inodes on that disk. Absent if it has no limit.")
	metricFullSeconds  = metrics.Desc("cis490_receiver_full_seconds", "Seconds until free space falls to its minimum, at the rate of the last day or week. Absent if it does not fall.")
	metricCertNotAfter = metrics.Desc("cis490_receiver_certificate_not_after_timestamp_seconds", "When the receiver's certificate expires.")

	metricProblems        = metrics.Desc("cis490_receiver_problems", "Problems that 'receiver status' shows.")
	metricQuarantined     = metrics.Desc("cis490_receiver_quarantined_files", "Files in quarantine.")
	metricTornTails       = metrics.Desc("cis490_receiver_index_torn_tails", "Torn ends of the index that were cut off and saved.")
	metricDisabledHosts   = metrics.Desc("cis490_receiver_disabled_hosts", "Hosts that are disabled or removed.")
	metricScrubFindings   = metrics.Desc("cis490_receiver_scrub_findings", "Archives found by the current scrub, or else the last one.", "finding")
	metricScrubArchives   = metrics.Desc("cis490_receiver_scrub_archives", "Archives read by that scrub.")
	metricScrubBytes      = metrics.Desc("cis490_receiver_scrub_bytes", "Bytes read by that scrub.")
	metricScrubStarted    = metrics.Desc("cis490_receiver_scrub_started_timestamp_seconds", "When that scrub started.")
	metricScrubEnded      = metrics.Desc("cis490_receiver_scrub_ended_timestamp_seconds", "When that scrub ended. Absent while it runs.")
	metricScrubWholeSince = metrics.Desc("cis490_receiver_verified_since_timestamp_seconds", "Since when every archive has been verified. Absent before the first complete scrub.")
)

// Metrics of each host, as the receiver knows it.
var (
	metricHostActive       = metrics.Desc("cis490_host_active", "1 if the host has access.", "host")
	metricHostProblem      = metrics.Desc("cis490_host_problem", "1 for each problem that 'receiver hosts' shows.", "host", "kind", "severity")
	metricHostContact      = metrics.Desc("cis490_host_last_contact_timestamp_seconds", "When the host last connected, to about ten minutes.", "host")
	metricHostCertNotAfter = metrics.Desc("cis490_host_certificate_not_after_timestamp_seconds", "When the certificate expires that gives the host access for longest.", "host")

	metricHostReported    = metrics.Desc("cis490_host_last_report_timestamp_seconds", "When the host last reported.", "host")
	metricHostSilent      = metrics.Desc("cis490_host_silent", "1 if the host has not reported for longer than is usual for it.", "host")
	metricHostSameVersion = metrics.Desc("cis490_host_same_version", "1 if the host runs the version of the receiver.", "host")
	metricHostStored      = metrics.Desc("cis490_host_stored_archives", "Archives of the host that are stored here.", "host")
	metricHostUnfinished  = metrics.Desc("cis490_host_unfinished_episodes", "Episodes on the host without done.marker.", "host")
	metricHostOldestOpen  = metrics.Desc("cis490_host_oldest_unfinished_timestamp_seconds", "When the unfinished episode that is idle for longest last changed.", "host")
	metricHostWaiting     = metrics.Desc("cis490_host_waiting_episodes", "Finished episodes that are not delivered, without those held.", "host")
	metricHostWaitingSize = metrics.Desc("cis490_host_waiting_bytes", "Bytes of those that are packed.", "host")
	metricHostOldest      = metrics.Desc("cis490_host_oldest_waiting_timestamp_seconds", "Since when the oldest of them has been waiting.", "host")
	metricHostFailing     = metrics.Desc("cis490_host_failing_episodes", "Waiting episodes that have failed at least once.", "host")
	metricHostFailedSince = metrics.Desc("cis490_host_failing_since_timestamp_seconds", "Since when the first of them has failed.", "host")
	metricHostHeld        = metrics.Desc("cis490_host_held_episodes", "Episodes that wait for an operator.", "host", "reason")
	metricHostShipped     = metrics.Desc("cis490_host_shipped_episodes", "Delivered episodes that the host still has.", "host")
	metricHostFreeBytes   = metrics.Desc("cis490_host_free_bytes", "Free space on the host's disk.", "host")
	metricHostSizeBytes   = metrics.Desc("cis490_host_disk_bytes", "Size of the host's disk.", "host")
	metricHostMinFree     = metrics.Desc("cis490_host_min_free_bytes", "Below this free space, the host packs nothing.", "host")
	metricHostFreeInodes  = metrics.Desc("cis490_host_free_inodes", "Free inodes on that disk. Absent if it has no limit.", "host")
	metricHostFullSeconds = metrics.Desc("cis490_host_full_seconds", "Seconds until that disk is full, at the rate of the last day or week. Absent if it does not fill.", "host")
	metricHostClockSkew   = metrics.Desc("cis490_host_clock_skew_seconds", "The host's clock minus the receiver's, at the last report.", "host")
)

// newDaemonAdmin returns what the admin listener of a receiver serves.
func newDaemonAdmin(r *receiver.Receiver, cfg receiver.Config, log *slog.Logger) (admin.Daemon, error) {
	reg := metrics.NewRegistry("receiver", cli.Version())
	metrics.AddRuntime(reg)
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		to.SetBool(metricReady, r.Ready(context.Background()) == nil)
		to.SetTime(metricCertNotAfter, r.CertNotAfter())
		return readState(to, cfg, time.Now())
	}}
	err := errors.Join(reg.Register(state), r.Register(reg))
	return admin.Daemon{Name: "receiver", Metrics: metrics.Handler(reg, log), Alive: r.Alive, Ready: r.Ready}, err
}

// readState reads the state of a receiver and its hosts.
func readState(to *metrics.Reading, cfg receiver.Config, now time.Time) error {
	st, err := receiver.InspectStatus(cfg, now)
	if err == nil {
		setStatus(to, st)
	}
	list, _, herr := listHosts(cfg, now)
	for _, h := range list {
		setHost(to, h)
	}
	return errors.Join(err, herr)
}

func setStatus(to *metrics.Reading, st receiver.Status) {
	if st.FreeBytes != durable.UnknownSpace {
		to.SetInt(metricFreeBytes, st.FreeBytes)
	}
	to.SetInt(metricMinFreeBytes, st.MinFree)
	if st.FreeInodes != nil {
		to.SetInt(metricFreeInodes, *st.FreeInodes)
	}
	setHours(to, metricFullSeconds, st.FullInHours)
	to.SetInt(metricProblems, int64(len(st.Problems)))
	to.SetInt(metricQuarantined, int64(st.Quarantined))
	to.SetInt(metricTornTails, int64(st.TornTails.Count))
	if st.DisabledHosts != nil {
		to.SetInt(metricDisabledHosts, int64(*st.DisabledHosts))
	}
	for finding, n := range map[string]int64{
		"damaged": st.Scrub.Damaged, "unreadable": st.Scrub.Unreadable, "undecodable": st.Scrub.Undecodable, "missing": st.Scrub.Missing,
	} {
		to.SetInt(metricScrubFindings, n, finding)
	}
	to.SetInt(metricScrubArchives, st.Scrub.Objects)
	to.SetInt(metricScrubBytes, st.Scrub.Bytes)
	to.SetTime(metricScrubStarted, st.Scrub.Started)
	to.SetTime(metricScrubEnded, st.Scrub.Ended)
	to.SetTime(metricScrubWholeSince, st.Scrub.WholeSince)
}

// setHost sets the metrics of a host that has access or should have it. Of another one there is nothing
// to watch.
func setHost(to *metrics.Reading, h hosts.Host) {
	if !h.IsServed() {
		return
	}
	host := string(h.Name())
	to.SetBool(metricHostActive, h.State != hosts.Expired, host)
	for kind, severity := range h.WorstByKind() {
		to.Set(metricHostProblem, 1, host, kind, severity.String())
	}
	if h.LastContact != nil {
		to.SetTime(metricHostContact, *h.LastContact, host)
	}
	if c := h.BestCertificate(); c != nil {
		to.SetTime(metricHostCertNotAfter, c.NotAfter, host)
	}
	if h.Report != nil {
		setReport(to, host, *h.Report)
	}
}

// setReport sets the metrics of a host's last report. They stay while the host is silent: metricHostReported
// says how old they are.
func setReport(to *metrics.Reading, host string, r hosts.Report) {
	to.SetTime(metricHostReported, r.ReceivedAt, host)
	to.SetBool(metricHostSilent, r.Silent, host)
	to.SetBool(metricHostSameVersion, r.Version == cli.Version(), host)
	if r.Stored != nil {
		to.SetInt(metricHostStored, *r.Stored, host)
	}
	to.SetInt(metricHostUnfinished, r.Unfinished, host)
	to.SetTime(metricHostOldestOpen, r.OldestUnfinished, host)
	to.SetInt(metricHostWaiting, r.Waiting, host)
	to.SetInt(metricHostWaitingSize, r.WaitingBytes, host)
	to.SetTime(metricHostOldest, r.OldestWaiting, host)
	to.SetInt(metricHostFailing, r.Failing, host)
	to.SetTime(metricHostFailedSince, r.FailingSince, host)
	for reason, n := range r.HeldByReason() {
		to.SetInt(metricHostHeld, n, host, reason)
	}
	to.SetInt(metricHostShipped, r.Shipped, host)
	to.Set(metricHostClockSkew, r.ClockSkew, host)
	if r.Disk.SizeBytes > 0 {
		to.SetInt(metricHostFreeBytes, r.Disk.FreeBytes, host)
		to.SetInt(metricHostSizeBytes, r.Disk.SizeBytes, host)
		to.SetInt(metricHostMinFree, r.Disk.MinFree, host)
	}
	if r.Disk.Inodes > 0 {
		to.SetInt(metricHostFreeInodes, r.Disk.FreeInodes, host)
	}
	setHours(to, metricHostFullSeconds, r.FullInHours, host)
}

func setHours(to *metrics.Reading, d *prometheus.Desc, hours *float64, labels ...string) {
	if hours != nil {
		to.Set(d, *hours*3600, labels...)
	}
}
