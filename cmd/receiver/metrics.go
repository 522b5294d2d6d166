package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"cis490/internal/admin"
	"cis490/internal/bucket"
	"cis490/internal/cli"
	"cis490/internal/diskbackend"
	"cis490/internal/durable"
	"cis490/internal/hosts"
	"cis490/internal/metrics"
	"cis490/internal/notify"
	"cis490/internal/receiver"
	"cis490/internal/s3backend"
	"cis490/internal/scrub"
)

// Metrics of the receiver that are read from its directories. docs/metrics.md lists them.
var (
	metricStateSuccess = metrics.Desc("cis490_receiver_state_success", "1 if all that is read from the disk could be read, at the last reading.")

	metricReady         = metrics.Desc("cis490_receiver_ready", "1 if an upload would be taken now, as /readyz says.")
	metricFreeBytes     = metrics.Desc("cis490_receiver_free_bytes", "Free space on the disk of data_dir.")
	metricMinFreeBytes  = metrics.Desc("cis490_receiver_min_free_bytes", "Below this free space, uploads are refused.")
	metricFreeInodes    = metrics.Desc("cis490_receiver_free_inodes", "Free inodes on the disk of data_dir. Absent if it has no limit.")
	metricMinFreeInodes = metrics.Desc("cis490_receiver_min_free_inodes", "Below this number of free inodes, uploads are refused. Absent if the disk has no limit of inodes.")
	metricFullSeconds   = metrics.Desc("cis490_receiver_full_seconds", "Seconds until free space falls to its minimum, at the rate of the last day or week. Absent if it does not fall.")
	metricCertNotAfter  = metrics.Desc("cis490_receiver_certificate_not_after_timestamp_seconds", "When the receiver's certificate expires.")

	metricProblems        = metrics.Desc("cis490_receiver_problems", "Entries of data_dir that cannot be used: see 'receiver status'.")
	metricQuarantined     = metrics.Desc("cis490_receiver_quarantined_files", "Files in quarantine.")
	metricTornTails       = metrics.Desc("cis490_receiver_index_torn_tails", "Torn ends of the index that were cut off and saved.")
	metricDisabledHosts   = metrics.Desc("cis490_receiver_disabled_hosts", "Hosts that are disabled or removed.")
	metricScrubFindings   = metrics.Desc("cis490_receiver_scrub_findings", "Archives found by the current scrub, or else the last one.", "finding")
	metricScrubHosts      = metrics.Desc("cis490_receiver_scrub_incomplete_hosts", "Hosts of whose archives the current scrub, or else the last one, did not read all: their directory cannot be listed, or they sent too fast.", "reason")
	metricScrubArchives   = metrics.Desc("cis490_receiver_scrub_archives", "Archives read by the current scrub, or else the last one.")
	metricScrubBytes      = metrics.Desc("cis490_receiver_scrub_bytes", "Bytes read by the current scrub, or else the last one.")
	metricScrubStarted    = metrics.Desc("cis490_receiver_scrub_started_timestamp_seconds", "When the current scrub started, or else the last one.")
	metricScrubEnded      = metrics.Desc("cis490_receiver_scrub_ended_timestamp_seconds", "When the last scrub ended. Absent while one runs.")
	metricScrubWholeSince = metrics.Desc("cis490_receiver_verified_since_timestamp_seconds", "Since when every archive has been verified. Absent before the first complete scrub.")
)

// Metrics of a store on S3. They are absent with a store on a disk, and what is unknown is absent as well.
var (
	metricBucketUp        = metrics.Desc("cis490_receiver_bucket_up", "1 if the object store has answered everything that was asked of it, at the last reading.")
	metricBucketArchives  = metrics.Desc("cis490_receiver_bucket_archives", "Archives that the copy of the index in data_dir has.")
	metricBucketBytes     = metrics.Desc("cis490_receiver_bucket_archive_bytes", "Bytes of the archives that the copy of the index in data_dir has.")
	metricBucketBehind    = metrics.Desc("cis490_receiver_bucket_index_batches_behind", "Batches of the index that the copy in data_dir lacks.")
	metricBucketLastBatch = metrics.Desc("cis490_receiver_bucket_last_batch_timestamp_seconds", "When a receiver last wrote rows.")
	metricBucketUploads   = metrics.Desc("cis490_receiver_bucket_unfinished_uploads", "Uploads that have begun and are not stored, of all receivers, up to 1000.")
	metricBucketProbed    = metrics.Desc("cis490_receiver_bucket_probe_timestamp_seconds", "When the object store last passed the probe here.")
	metricBucketRequests  = metrics.Desc("cis490_receiver_bucket_requests_total", "Requests to the object store: answered, also that an object is missing, or failed.", "endpoint", "result")
)

// Metrics of hooks and of the heartbeat. They are absent without them.
var (
	metricHookQueued     = metrics.Desc("cis490_receiver_hook_queued_events", "Events that wait for a hook.", "queue")
	metricHookOldest     = metrics.Desc("cis490_receiver_hook_oldest_event_timestamp_seconds", "When the oldest event that waits for a hook was queued. Absent if none waits.", "queue")
	metricHookDropped    = metrics.Desc("cis490_receiver_hook_dropped_events_total", "Events that did not fit into the queue or could not be written to it.", "queue")
	metricHookAttempts   = metrics.Desc("cis490_receiver_webhook_attempts_total", "Attempts to deliver an event to the webhook: delivered or failed.", "result")
	metricHeartbeatSince = metrics.Desc("cis490_receiver_heartbeat_success_timestamp_seconds", "When the heartbeat was last delivered.")
)

// Metrics of each host, as the receiver knows it.
var (
	metricHostActive       = metrics.Desc("cis490_host_active", "1 if the host has access.", "host")
	metricHostProblem      = metrics.Desc("cis490_host_problem", "1 for each problem that 'receiver hosts' shows.", "host", "kind", "severity")
	metricHostContact      = metrics.Desc("cis490_host_last_contact_timestamp_seconds", "When the host last connected, to about ten minutes.", "host")
	metricHostCertNotAfter = metrics.Desc("cis490_host_certificate_not_after_timestamp_seconds", "When the certificate expires that gives the host access for longest, or when the last one expired.", "host")

	metricHostReported    = metrics.Desc("cis490_host_last_report_timestamp_seconds", "When the host last reported.", "host")
	metricHostSilent      = metrics.Desc("cis490_host_silent", "1 if the host has not reported, or not connected, for longer than is usual for it.", "host")
	metricHostSameVersion = metrics.Desc("cis490_host_same_version", "1 if the host runs the version of the receiver.", "host")
	metricHostStored      = metrics.Desc("cis490_host_stored_archives", "Archives of the host that are stored here.", "host")
	metricHostFullSeconds = metrics.Desc("cis490_host_full_seconds", "Seconds until the host's disk is full, at the rate of the last day or week. Absent if it does not fill.", "host")
	metricHostClockSkew   = metrics.Desc("cis490_host_clock_skew_seconds", "The host's clock minus the receiver's, at the last report.", "host")

	metricsHostReport = metrics.NewReportDescs("cis490_host_", "host")
)

// newDaemonAdmin returns what the admin listener of a receiver serves. Metrics and pages share one reading
// of the directories.
func newDaemonAdmin(r *receiver.Receiver, source *factSource, heartbeat *notify.Heartbeat, log *slog.Logger) (admin.Daemon, error) {
	reg := metrics.NewRegistry("receiver", cli.Version())
	metrics.AddProcess(reg)
	live := metrics.Live(func(to *metrics.Reading) {
		to.SetBool(metricReady, r.Ready(context.Background()) == nil)
		to.SetTime(metricCertNotAfter, r.CertNotAfter())
		to.SetTime(metricHeartbeatSince, heartbeat.LastSuccess())
		countHooks(to, r.Hooks())
		countRequests(to, r.Bucket())
	})
	state := &metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return setFacts(to, source.latest())
	}}
	err := errors.Join(reg.Register(live), reg.Register(state), r.Register(reg))
	return admin.Daemon{
		Name: "receiver", Metrics: metrics.Handler(reg, log), Alive: r.Alive, Ready: r.Ready,
		Pages: newPages(r, source),
	}, err
}

// countHooks sets the counters of the hooks.
func countHooks(to *metrics.Reading, hooks *notify.Notifier) {
	if hooks == nil {
		return
	}
	n := hooks.Counts()
	for queue, dropped := range n.Dropped {
		to.Count(metricHookDropped, float64(dropped), queue)
	}
	if _, webhook := n.Dropped[notify.WebhookQueue]; webhook {
		to.Count(metricHookAttempts, float64(n.Delivered), "delivered")
		to.Count(metricHookAttempts, float64(n.Failed), "failed")
	}
}

// countRequests sets the counters of requests to the object store.
func countRequests(to *metrics.Reading, in *bucket.S3) {
	if in == nil {
		return
	}
	for _, n := range in.Requests() {
		to.Count(metricBucketRequests, float64(n.Answered), n.Endpoint, "answered")
		to.Count(metricBucketRequests, float64(n.Failed), n.Endpoint, "failed")
	}
}

// setFacts sets the metrics of a receiver and its hosts.
func setFacts(to *metrics.Reading, f facts) error {
	if f.statusErr == nil {
		setStatus(to, f.status)
		if f.bucket == nil || f.bucket.Quarantined != nil {
			to.SetInt(metricQuarantined, int64(f.status.Quarantined))
		}
		if f.bucket == nil || f.bucket.Scrub != nil {
			setScrub(to, f.status.Scrub)
		}
		setBucket(to, f.bucket)
	}
	for _, h := range f.hosts {
		setHost(to, h)
	}
	for _, q := range f.hooks {
		to.SetInt(metricHookQueued, q.Queued, q.Queue)
		to.SetTime(metricHookOldest, q.Oldest, q.Queue)
	}
	return errors.Join(f.statusErr, f.hostsErr)
}

func setStatus(to *metrics.Reading, st diskbackend.Status) {
	if st.FreeBytes != durable.UnknownSpace {
		to.SetInt(metricFreeBytes, st.FreeBytes)
	}
	to.SetInt(metricMinFreeBytes, st.MinFree)
	if st.FreeInodes != nil {
		to.SetInt(metricFreeInodes, *st.FreeInodes)
		to.SetInt(metricMinFreeInodes, st.MinFreeInodes)
	}
	setHours(to, metricFullSeconds, st.FullInHours)
	to.SetInt(metricProblems, int64(len(st.Problems)))
	to.SetInt(metricTornTails, int64(st.TornTails.Count))
	if st.DisabledHosts != nil {
		to.SetInt(metricDisabledHosts, int64(*st.DisabledHosts))
	}
}

func setScrub(to *metrics.Reading, p scrub.Progress) {
	for finding, n := range map[string]int64{
		"damaged": p.Damaged, "unreadable": p.Unreadable, "undecodable": p.Undecodable, "missing": p.Missing,
		"not_opened": p.NotOpened,
	} {
		to.SetInt(metricScrubFindings, n, finding)
	}
	to.SetInt(metricScrubHosts, p.HostsUnreadable, "unreadable")
	to.SetInt(metricScrubHosts, p.HostsUnfinished, "unfinished")
	to.SetInt(metricScrubArchives, p.Objects)
	to.SetInt(metricScrubBytes, p.Bytes)
	to.SetTime(metricScrubStarted, p.Started)
	to.SetTime(metricScrubEnded, p.Ended)
	to.SetTime(metricScrubWholeSince, p.WholeSince)
}

// setBucket sets the metrics of the bucket b, or none if it is nil.
func setBucket(to *metrics.Reading, b *s3backend.Status) {
	if b == nil {
		return
	}
	to.SetBool(metricBucketUp, b.Error == "")
	for desc, n := range map[*prometheus.Desc]*int64{
		metricBucketArchives: b.Archives, metricBucketBytes: b.ArchiveBytes, metricBucketBehind: b.Behind,
	} {
		if n != nil {
			to.SetInt(desc, *n)
		}
	}
	if b.Unfinished != nil {
		to.SetInt(metricBucketUploads, int64(*b.Unfinished))
	}
	if b.LastBatchAt != nil {
		to.SetTime(metricBucketLastBatch, *b.LastBatchAt)
	}
	if b.ProbedAt != nil {
		to.SetTime(metricBucketProbed, *b.ProbedAt)
	}
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
	to.SetBool(metricHostSilent, h.HasProblem("silent"), host)
	if c := h.LastCertificate(); c != nil {
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
	to.SetBool(metricHostSameVersion, r.Version == cli.Version(), host)
	if r.Stored != nil {
		to.SetInt(metricHostStored, *r.Stored, host)
	}
	metricsHostReport.SetCounts(to, r.Report, host)
	metricsHostReport.SetDisk(to, r.Disk, host)
	setHours(to, metricHostFullSeconds, r.FullInHours, host)
	to.Set(metricHostClockSkew, r.ClockSkew, host)
}

func setHours(to *metrics.Reading, d *prometheus.Desc, hours *float64, labels ...string) {
	if hours != nil {
		to.Set(d, *hours*3600, labels...)
	}
}
