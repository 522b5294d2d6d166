package receiver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

func (l *lab) record(t *testing.T, host string) fleet.Record {
	t.Helper()
	data, err := durable.Open(l.Data)
	fixture.Must(t, err)
	defer data.Close()
	all, _, err := fleet.Read(data)
	fixture.Must(t, err)
	for name, r := range all {
		if string(name) == host {
			return r
		}
	}
	t.Fatalf("no record of %s", host)
	return fleet.Record{}
}

func TestReportCountsWhatIsStored(t *testing.T) {
	l := newLab(t, nil)
	report := wire.Report{Version: "test", At: time.Now().Add(-time.Minute), Shipped: 2}
	l.WantReceipt(key("lab-01", "run-1"), packNoise(100, 1), wire.Stored)
	l.WantReceipt(key("lab-01", "run-2"), packNoise(100, 2), wire.Stored)
	l.WantReceipt(key("lab-02", "run-1"), packNoise(100, 3), wire.Stored)
	fixture.Must(t, l.r.KeepReport(t.Context(), "lab-01", report))
	r := l.record(t, "lab-01")
	if r.Stored != 2 || r.Report.Shipped != 2 || r.ClockSkew > -59 || r.ClockSkew < -90 || r.LastChange.IsZero() {
		t.Errorf("got %+v", r)
	}
	if err := l.r.KeepReport(t.Context(), "lab-01", report); !errors.Is(err, wire.HostBusy) {
		t.Errorf("the next one at once: got %v, want %v", err, wire.HostBusy)
	}
	fixture.Must(t, l.r.KeepReport(t.Context(), "lab-03", report))
	if r := l.record(t, "lab-03"); r.Stored != 0 || !r.LastChange.IsZero() {
		t.Errorf("of a host without archives: got %+v", r)
	}
}

// TestReportThatCannotBeKeptIsNoFault: nothing depends on it, so the receiver continues.
func TestReportThatCannotBeKeptIsNoFault(t *testing.T) {
	l := newLab(t, func(c *receiver.Config) { c.DataDir = config.Path(fixture.MountTmpfs(t, "size=1m")) })
	fill := filepath.Join(l.Data, "fill")
	fixture.FillDisk(t, fill)
	if err := l.r.KeepReport(t.Context(), "lab-01", wire.Report{}); !errors.Is(err, wire.Full) {
		t.Errorf("on a full disk: got %v, want %v", err, wire.Full)
	}
	fixture.Must(t, os.Remove(fill))
	reports := filepath.Join(l.Data, "reports")
	fixture.Must(t, os.RemoveAll(reports))
	if err := l.r.KeepReport(t.Context(), "lab-01", wire.Report{}); err == nil {
		t.Error("without its directory a report is kept")
	}
	l.WantReceipt(key("lab-01", "run-1"), packNoise(100, 1), wire.Stored)
}

// TestReceiverStartsWithAFullDisk: an upgraded receiver has no directory for reports yet.
func TestReceiverStartsWithAFullDisk(t *testing.T) {
	l := newLab(t, func(c *receiver.Config) { c.DataDir = config.Path(fixture.MountTmpfs(t, "size=1m,nr_inodes=60")) })
	l.stop()
	fixture.Must(t, os.RemoveAll(filepath.Join(l.Data, "reports")))
	for i := 0; ; i++ { // no inode is left for a directory
		if err := os.Mkdir(filepath.Join(l.Data, "fill"+strconv.Itoa(i)), 0o750); err != nil {
			break
		}
	}
	l.start()
	if err := l.r.KeepReport(t.Context(), "lab-01", wire.Report{}); !errors.Is(err, wire.Full) {
		t.Errorf("got %v, want %v", err, wire.Full)
	}
	fixture.Must(t, os.Remove(filepath.Join(l.Data, "fill0")))
	fixture.Must(t, os.Remove(filepath.Join(l.Data, "fill1")))
	fixture.Must(t, os.Remove(filepath.Join(l.Data, "fill2")))
	fixture.Must(t, l.r.KeepReport(t.Context(), "lab-01", wire.Report{}))
}

// TestFreeSpaceIsRecordedEachHour: from it a status tells when the disk will be full.
func TestFreeSpaceIsRecordedEachHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour+time.Minute)
		defer cancel()
		l.r.RecordSpace(ctx)
		data, err := durable.Open(l.Data)
		fixture.Must(t, err)
		defer data.Close()
		recorded, err := fleet.ReadReceiver(data)
		fixture.Must(t, err)
		if n := len(recorded.Samples); n != 3 {
			t.Errorf("%d times in three hours, want 3: %+v", n, recorded.Samples)
		}
	})
}
