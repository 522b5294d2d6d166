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
	"cis490/internal/index"
	"cis490/internal/metrics"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/statuspage"
	"cis490/internal/wire"
)

// newFleet creates the directories of a receiver with hosts that have joined and report.
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

// scrapeFleet serves one scrape of the state of cfg. Records may be nil.
func scrapeFleet(t testing.TB, cfg receiver.Config, records *revocation.RecordCache) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reg := metrics.NewRegistry("receiver", cli.Version())
	metrics.AddProcess(reg)
	fixture.Must(t, reg.Register(&metrics.State{Success: metricStateSuccess, Log: log, Read: func(to *metrics.Reading) error {
		return setFacts(to, readFacts(cfg, nil, records, time.Now()))
	}}))
	w := httptest.NewRecorder()
	metrics.Handler(reg, log).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestEachHostIsInTheMetrics: one scrape of the receiver is enough for a fleet.
func TestEachHostIsInTheMetrics(t *testing.T) {
	got := scrapeFleet(t, newFleet(t, 3), nil)
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

// BenchmarkScrape measures a scrape of a receiver with 100 hosts: the first one, and those that follow.
func BenchmarkScrape(b *testing.B) {
	cfg := newFleet(b, 100)
	for name, records := range map[string]*revocation.RecordCache{"first": nil, "next": new(revocation.RecordCache)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(len(scrapeFleet(b, cfg, records))), "bytes")
			}
		})
	}
}

// pageOf serves the overview of a receiver's directories.
func pageOf(t testing.TB, cfg receiver.Config) string {
	t.Helper()
	source := &factSource{cfg: cfg}
	w := httptest.NewRecorder()
	statuspage.New(func() statuspage.State {
		return newPageState(source.latest(), source.arrivals.Latest(source.readArrivals))
	}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestPageHasWhatTheDirectoriesSay: hosts from their records, arrivals from the index.
func TestPageHasWhatTheDirectoriesSay(t *testing.T) {
	cfg := newFleet(t, 2)
	_, file := cfg.BackendConfig().Paths()
	row := index.Row{ReceivedAt: time.Now(), Key: episode.Key{Host: "lab-001", Name: "run-7"}, SHA256: [32]byte{1}, Size: 2048}
	fixture.WriteFile(t, file, string(row.Append(nil)))
	got := pageOf(t, cfg)
	for _, want := range []string{`href="hosts/lab-000"`, "1 held (1 conflict)", "run-7", "2.0 KiB"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}

// BenchmarkPage measures the overview of a receiver with 100 hosts and 10,000 arrivals: with a reading of
// the directories, and for one more viewer of the same reading.
func BenchmarkPage(b *testing.B) {
	cfg := newFleet(b, 100)
	_, file := cfg.BackendConfig().Paths()
	var rows []byte
	for i := range 10_000 {
		row := index.Row{ReceivedAt: time.Now().Add(time.Duration(i-10_000) * time.Minute), Size: 1 << 20, SHA256: [32]byte{1}, Key: episode.Key{
			Host: episode.Name(fmt.Sprintf("lab-%03d", i%100)), Name: episode.Name(fmt.Sprintf("run-%d", i)),
		}}
		rows = row.Append(rows)
	}
	fixture.WriteFile(b, file, string(rows))
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			b.ReportMetric(float64(len(pageOf(b, cfg))), "bytes")
		}
	})
	source := &factSource{cfg: cfg}
	state := newPageState(readFacts(cfg, nil, nil, time.Now()), source.readArrivals())
	pages := statuspage.New(func() statuspage.State { return state })
	b.Run("shared", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pages.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		}
	})
}
