package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/cli"
	"cis490/internal/config"
	"cis490/internal/durable"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/fleet"
	"cis490/internal/hostrecord"
	"cis490/internal/metrics"
	"cis490/internal/receiver"
	"cis490/internal/wire"
)

// newFleet makes the directories of a receiver with hosts that joined and report.
func newFleet(t testing.TB, hosts int) receiver.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := receiver.DefaultConfig()
	cfg.DataDir, cfg.IdentityDir = config.Path(filepath.Join(dir, "data")), config.Path(filepath.Join(dir, "identity"))
	cfg.TLS.ClientCAFile = config.Path(filepath.Join(dir, "pki", "hosts-ca.crt"))
	fixture.Must(t, ca.Init(filepath.Join(dir, "pki"), ca.InitOptions{Names: []string{"localhost"}}))
	data, err := durable.Create(string(cfg.DataDir))
	fixture.Must(t, err)
	t.Cleanup(func() { data.Close() })
	fixture.Must(t, os.Mkdir(string(cfg.IdentityDir), 0o700))
	now := time.Now()
	reports, err := fleet.Open(data, func(episode.Name, time.Time) (fleet.Count, bool, error) {
		return fleet.Count{Archives: 7, LastChange: now}, true, nil
	}, now)
	fixture.Must(t, err)
	t.Cleanup(func() { reports.Close() })
	records, err := hostrecord.Open(string(cfg.IdentityDir), slog.New(slog.DiscardHandler))
	fixture.Must(t, err)
	t.Cleanup(func() { records.Close() })
	for i := range hosts {
		host := episode.Name(fmt.Sprintf("lab-%03d", i))
		fixture.Must(t, os.MkdirAll(filepath.Join(string(cfg.DataDir), "episodes", string(host)), 0o755))
		_, err := ca.IssueHost(filepath.Join(dir, "pki"), host, filepath.Join(dir, string(host)), ca.IssueOptions{Now: now})
		fixture.Must(t, err)
		_, err = reports.Add(host, wire.Report{
			Version: cli.Version(), Instance: "abcdef", At: now, Interval: 300, Unfinished: 2, Waiting: 3, WaitingBytes: 1 << 20, OldestWaiting: now,
			Held: map[string]int64{"conflict": 1}, Shipped: 7, CertificateEnds: now.Add(time.Hour),
			Disk: wire.DiskSpace{FreeBytes: 1 << 30, SizeBytes: 2 << 30, MinFree: 1 << 28, FreeInodes: 1000, Inodes: 2000},
		}, now)
		fixture.Must(t, err)
	}
	return cfg
}

// scrapeFleet serves one scrape of the state of cfg.
func scrapeFleet(t testing.TB, cfg receiver.Config) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reg := metrics.NewRegistry("receiver", cli.Version())
	metrics.AddProcess(reg)
	fixture.Must(t, reg.Register(&metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return readState(to, cfg, time.Now())
	}}))
	w := httptest.NewRecorder()
	metrics.Handler(reg, log).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestEachHostIsInTheMetrics: one scrape of the receiver is enough for a fleet.
func TestEachHostIsInTheMetrics(t *testing.T) {
	got := scrapeFleet(t, newFleet(t, 3))
	for _, want := range []string{
		`cis490_receiver_state_success 1`,
		`cis490_host_active{host="lab-002"} 1`,
		`cis490_host_stored_archives{host="lab-001"} 7`,
		`cis490_host_held_episodes{host="lab-000",reason="conflict"} 1`,
		`cis490_host_problem{host="lab-000",kind="held",severity="warning"} 1`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// BenchmarkScrape is what a scrape of a receiver with 100 hosts takes.
func BenchmarkScrape(b *testing.B) {
	cfg := newFleet(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		b.ReportMetric(float64(len(scrapeFleet(b, cfg))), "bytes")
	}
}
