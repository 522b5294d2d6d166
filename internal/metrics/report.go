package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"cis490/internal/wire"
)

// ReportDescs describe the metrics of a [wire.Report], which a shipper serves of itself and the receiver of
// each host.
type ReportDescs struct {
	unfinished, oldestUnfinished         *prometheus.Desc
	waiting, waitingBytes, oldestWaiting *prometheus.Desc
	failing, failingSince                *prometheus.Desc
	held, shipped, countedInPart         *prometheus.Desc
	freeBytes, diskBytes, minFreeBytes   *prometheus.Desc
	freeInodes                           *prometheus.Desc
}

// NewReportDescs returns descriptions whose names begin with prefix, and which have further labels.
func NewReportDescs(prefix string, labels ...string) *ReportDescs {
	reportDesc := func(name, help string, more ...string) *prometheus.Desc {
		return Desc(prefix+name, help, append(labels[:len(labels):len(labels)], more...)...)
	}
	return &ReportDescs{
		unfinished:       reportDesc("unfinished_episodes", "Episodes without done.marker."),
		oldestUnfinished: reportDesc("oldest_unfinished_timestamp_seconds", "When the unfinished episode that is idle for longest last changed."),
		waiting:          reportDesc("waiting_episodes", "Finished episodes that are not delivered, without those held."),
		waitingBytes:     reportDesc("waiting_bytes", "Bytes of those that are packed."),
		oldestWaiting:    reportDesc("oldest_waiting_timestamp_seconds", "Since when the oldest of the waiting episodes has been waiting."),
		failing:          reportDesc("failing_episodes", "Waiting episodes that have failed at least once."),
		failingSince:     reportDesc("failing_since_timestamp_seconds", "Since when the first of them has failed."),
		held:             reportDesc("held_episodes", "Episodes that wait for an operator.", "reason"),
		shipped:          reportDesc("shipped_episodes", "Delivered episodes that the host still has."),
		countedInPart:    reportDesc("counted_in_part", "1 if there are more unfinished, waiting and held episodes than were counted."),
		freeBytes:        reportDesc("free_bytes", "Free space on the disk of the outbox."),
		diskBytes:        reportDesc("disk_bytes", "Size of that disk."),
		minFreeBytes:     reportDesc("min_free_bytes", "Below this free space, nothing is packed."),
		freeInodes:       reportDesc("free_inodes", "Free inodes on the disk of the outbox. Absent if it has no limit."),
	}
}

// SetCounts sets the metrics of the episodes in a report. values are those of the further labels.
func (d *ReportDescs) SetCounts(to *Reading, r wire.Report, values ...string) {
	to.SetInt(d.unfinished, r.Unfinished, values...)
	to.SetTime(d.oldestUnfinished, r.OldestUnfinished, values...)
	to.SetInt(d.waiting, r.Waiting, values...)
	to.SetInt(d.waitingBytes, r.WaitingBytes, values...)
	to.SetTime(d.oldestWaiting, r.OldestWaiting, values...)
	to.SetInt(d.failing, r.Failing, values...)
	to.SetTime(d.failingSince, r.FailingSince, values...)
	for reason, n := range r.HeldByReason() {
		to.SetInt(d.held, n, append(values[:len(values):len(values)], reason)...)
	}
	to.SetInt(d.shipped, r.Shipped, values...)
	to.SetBool(d.countedInPart, r.CountedInPart, values...)
}

// SetDisk sets the metrics of the disk in a report, as far as they are known.
func (d *ReportDescs) SetDisk(to *Reading, disk wire.DiskSpace, values ...string) {
	if disk.SizeBytes > 0 {
		to.SetInt(d.freeBytes, disk.FreeBytes, values...)
		to.SetInt(d.diskBytes, disk.SizeBytes, values...)
		to.SetInt(d.minFreeBytes, disk.MinFree, values...)
	}
	if disk.Inodes > 0 {
		to.SetInt(d.freeInodes, disk.FreeInodes, values...)
	}
}
