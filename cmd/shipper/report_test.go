package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/backlog"
	"cis490/internal/config"
	"cis490/internal/fixture"
	"cis490/internal/shipper"
	"cis490/internal/wire"
)

// newTestReporter returns a reporter for a host with a finished episode. It adds the times of its
// reports to times.
func newTestReporter(t *testing.T, log *bytes.Buffer, times *[]time.Time, answer func() error) *hostReporter {
	cfg := shipper.DefaultConfig()
	dir := t.TempDir()
	cfg.HostID = "lab-01"
	for path, to := range map[string]*config.Path{"episodes": &cfg.EpisodesDir, "outbox": &cfg.OutboxDir, "shipped": &cfg.ShippedDir} {
		*to = config.Path(filepath.Join(dir, path))
		fixture.Must(t, os.Mkdir(string(*to), 0o750))
	}
	fixture.Must(t, os.Mkdir(filepath.Join(dir, "episodes", "run-1"), 0o750))
	fixture.WriteFile(t, filepath.Join(dir, "episodes", "run-1", "done.marker"), "")
	return &hostReporter{
		log: slog.New(slog.NewTextHandler(log, nil)), interval: 5 * time.Minute, reporter: backlog.NewReporter(cfg.Backlog(), "test"),
		certificate: func() time.Time { return time.Time{} },
		send: func(_ context.Context, r wire.Report) error {
			*times = append(*times, time.Now())
			if r.Waiting != 1 || r.Interval != 300 || r.Validate() != nil {
				t.Errorf("got %+v", r)
			}
			return answer()
		},
	}
}

func TestReportsFollowAnIntervalAndChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var times []time.Time
		r := newTestReporter(t, &log, &times, func() error { return errors.New("no route") })
		changes := make(chan struct{}, 1)
		r.changes = changes
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		go func() {
			time.Sleep(30 * time.Minute)
			for range 100 { // as the dispatcher does
				select {
				case changes <- struct{}{}:
				default:
				}
				time.Sleep(time.Second)
			}
		}()
		fixture.Must(t, r.reportUntilDone(ctx))
		if len(times) < 12+3 || len(times) > 15+5 || times[0].Sub(start) > 2*time.Second {
			t.Errorf("%d reports within an hour, the first after %v", len(times), times[0].Sub(start))
		}
		for i := range times[1:] {
			if gap := times[i+1].Sub(times[i]); gap < 30*time.Second || gap > 5*time.Minute {
				t.Errorf("report %d came %v after the last one", i+1, gap)
			}
		}
		if log.Len() > 0 { // a receiver that is away is in the log already
			t.Errorf("it logs %s", &log)
		}
	})
}

func TestReceiverWithoutReportsCostsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var times []time.Time
		r := newTestReporter(t, &log, &times, func() error { return wire.ErrNoReports })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Hour)
		defer cancel()
		fixture.Must(t, r.reportUntilDone(ctx))
		if lines := strings.Count(log.String(), "\n"); lines != 1 || len(times) > 21 {
			t.Errorf("%d requests and %d lines in 20 hours:\n%s", len(times), lines, &log)
		}
	})
}

func TestReportsCanBeDisabled(t *testing.T) {
	var times []time.Time
	r := newTestReporter(t, new(bytes.Buffer), &times, func() error { return nil })
	r.interval = 0
	fixture.Must(t, r.reportUntilDone(t.Context()))
	r.reportOnce(t.Context())
	if len(times) > 0 {
		t.Errorf("%d reports", len(times))
	}
}
