package labtest_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// adminAddress returns the address of a daemon's admin listener.
func adminAddress(t *testing.T, p *labtest.Process) string {
	t.Helper()
	_, addr, _ := strings.Cut(p.WaitLine(t, "serving metrics"), "address=")
	addr, _, _ = strings.Cut(addr, " ")
	return addr
}

// adminPage requests a page of a daemon's admin listener, and returns status and body.
func adminPage(t *testing.T, p *labtest.Process, path string) (status int, body string) {
	t.Helper()
	addr := adminAddress(t, p)
	client := &http.Client{}
	url := "http://" + addr + path
	if socket, isUnix := strings.CutPrefix(addr, "unix:"); isUnix {
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		}}
		url = "http://localhost" + path
	}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	fixture.Must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	fixture.Must(t, err)
	return resp.StatusCode, string(text)
}

// series are the values of metrics, by name and labels.
type series map[string]float64

func parseSeries(t *testing.T, text string) series {
	t.Helper()
	s := series{}
	for line := range strings.Lines(text) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "#") || !found {
			continue
		}
		if end := strings.LastIndex(line, "} "); end >= 0 { // a value of a label may have a space
			name, value = line[:end+1], strings.TrimSpace(line[end+2:])
		}
		v, err := strconv.ParseFloat(value, 64)
		fixture.Must(t, err)
		s[name] = v
	}
	return s
}

// scrape returns the metrics of a daemon, which must follow Prometheus's conventions.
func scrape(t *testing.T, p *labtest.Process) series {
	t.Helper()
	status, text := adminPage(t, p, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	fixture.Must(t, err)
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	return parseSeries(t, text)
}

// waitForMetrics scrapes until all series have their values: directories and counters do not change at
// one moment.
func waitForMetrics(t *testing.T, p *labtest.Process, want series) series {
	t.Helper()
	var s series
	defer func() {
		if t.Failed() {
			s.check(t, want)
		}
	}()
	labtest.Eventually(t, "the metrics are as expected", func() bool {
		s = scrape(t, p)
		for name, value := range want {
			if got, found := s[name]; !found || got != value {
				return false
			}
		}
		return true
	})
	return s
}

func (s series) check(t *testing.T, want series) {
	t.Helper()
	for name, value := range want {
		if got, found := s[name]; !found || got != value {
			t.Errorf("%s is %v (found: %v), want %v", name, got, found, value)
		}
	}
}

// TestMetricsSayWhatStatusSays: what is stored, held and silent, at both ends.
func TestMetricsSayWhatStatusSays(t *testing.T) {
	l, h := newLab(t, labtest.Set("admin.listen", `"127.0.0.1:0"`))
	h.Set("admin.listen", `"127.0.0.1:0"`)
	h.Set("report_interval", `"5m"`)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Draft("unfinished")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2}) // and reports at its end
	receiver := l.Process()
	s := waitForMetrics(t, receiver, series{
		`cis490_receiver_stored_archives_total{host="lab-01"}`:          2,
		`cis490_receiver_stored_bytes_total{host="lab-01"}`:             float64(l.RowOf(t, "lab-01", "run-1").Size + l.RowOf(t, "lab-01", "run-2").Size),
		`cis490_receiver_requests_total{request="episode",result="ok"}`: 2,
		`cis490_receiver_requests_total{request="report",result="ok"}`:  1,
		`cis490_receiver_commit_duration_seconds_count`:                 2,
		`cis490_receiver_ready`:                                         1,
		`cis490_receiver_state_success`:                                 1,
		`cis490_receiver_scrub_findings{finding="damaged"}`:             0,
		`cis490_receiver_quarantined_files`:                             0,
		`cis490_host_active{host="lab-01"}`:                             1,
		`cis490_host_stored_archives{host="lab-01"}`:                    2,
		`cis490_host_shipped_episodes{host="lab-01"}`:                   2,
		`cis490_host_unfinished_episodes{host="lab-01"}`:                1,
		`cis490_host_silent{host="lab-01"}`:                             0,
		`cis490_host_same_version{host="lab-01"}`:                       1,
		`cis490_host_held_episodes{host="lab-01",reason="conflict"}`:    0,
		`cis490_host_min_free_bytes{host="lab-01"}`:                     1 << 20,
	})
	for name := range s {
		if strings.Contains(name, "run-1") {
			t.Errorf("%s names an episode", name)
		}
	}

	// The daemon holds an episode for a conflict, and counts that as a result.
	putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-3", []byte("other bytes"))
	h.Episode("run-3")
	h.Episode("run-4")
	ageRecord(t, l, "lab-01", time.Minute)
	p := h.Daemon()
	h.WaitShipped("run-4")
	waitForMetrics(t, p, series{
		`cis490_shipper_attempts_total{result="shipped"}`: 1,
		`cis490_shipper_attempts_total{result="held"}`:    1,
		`cis490_shipper_held_episodes{reason="conflict"}`: 1,
		`cis490_shipper_held_episodes{reason="refused"}`:  0,
		`cis490_shipper_delivered_bytes_total`:            float64(l.RowOf(t, "lab-01", "run-4").Size),
		`cis490_shipper_shipped_episodes`:                 3,
		`cis490_shipper_receiver_up`:                      1,
		`cis490_shipper_unfinished_episodes`:              1,
		`cis490_shipper_waiting_episodes`:                 0,
		`cis490_shipper_state_success`:                    1,
		`cis490_shipper_counted_in_part`:                  0,
	})
	waitForMetrics(t, receiver, series{`cis490_receiver_requests_total{request="report",result="ok"}`: 2})
	h.Episode("run-5") // inotify: the scan interval is an hour
	h.WaitShipped("run-5")
	waitForMetrics(t, p, series{`cis490_shipper_attempts_total{result="shipped"}`: 2, `cis490_shipper_attempts_total{result="held"}`: 1})
	p.Stop(t)

	// The daemon is gone, and nothing else reports.
	ageRecord(t, l, "lab-01", time.Hour)
	s = waitForMetrics(t, receiver, series{
		`cis490_host_silent{host="lab-01"}`: 1, `cis490_host_problem{host="lab-01",kind="silent",severity="critical"}`: 1,
	})
	if n := s[`cis490_receiver_requests_total{request="episode",result="episode-conflict"}`]; n < 1 {
		t.Errorf("%v uploads were refused for a conflict", n)
	}
}

// TestReadyMeansThatAnUploadIsTaken queries both daemons through sockets.
func TestReadyMeansThatAnUploadIsTaken(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin") // the path of a socket must be short
	fixture.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := func(name string) string { return strconv.Quote("unix:" + filepath.Join(dir, name)) }
	l, h := newLab(t, labtest.Set("admin.listen", socket("receiver")))
	h.Set("admin.listen", socket("shipper"))
	p := h.Daemon()
	for _, daemon := range []*labtest.Process{p, l.Process()} {
		labtest.Eventually(t, "it is ready", func() bool {
			status, _ := adminPage(t, daemon, "/readyz")
			return status == http.StatusOK
		})
		if status, body := adminPage(t, daemon, "/healthz"); status != http.StatusOK || body != "ok\n" {
			t.Errorf("/healthz: %d %s", status, body)
		}
	}
	l.Set("min_free", `"1PiB"`)
	l.Restart() // replaces the socket that a kill would leave
	status, body := adminPage(t, l.Process(), "/readyz")
	if status != http.StatusServiceUnavailable {
		t.Errorf("/readyz on a full disk: %d", status)
	}
	mustContain(t, "/readyz", body, "free")
	if status, _ := adminPage(t, l.Process(), "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz on a full disk: %d", status)
	}
	waitForMetrics(t, l.Process(), series{"cis490_receiver_ready": 0})
	h.Episode("run-1")
	labtest.Eventually(t, "the shipper notices", func() bool {
		status, body = adminPage(t, p, "/readyz")
		return status == http.StatusServiceUnavailable
	})
	mustContain(t, "the shipper's /readyz", body, "the receiver accepts nothing")
}

// TestPassWritesMetrics: --once has no listener, so it writes a file for node_exporter. If it cannot write the
// file, it only logs that.
func TestPassWritesMetrics(t *testing.T) {
	l, h := newLab(t)
	h.Set("metrics_file", `"cis490.prom"`)
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	text := fixture.ReadFile(t, h.Path("cis490.prom"))
	s := parseSeries(t, text)
	s.check(t, series{
		`cis490_shipper_last_pass_exit_code`:                    0,
		`cis490_shipper_last_pass_episodes{result="shipped"}`:   1,
		`cis490_shipper_last_pass_episodes{result="conflicts"}`: 0,
		`cis490_shipper_shipped_episodes`:                       1,
		`cis490_shipper_state_success`:                          1,
		`cis490_shipper_waiting_episodes`:                       0,
	})
	if strings.Contains(text, "go_goroutines") {
		t.Error("it has metrics that node_exporter serves itself")
	}

	l.Stop()
	h.Episode("run-2")
	h.Once().MustExit(t, 4)
	s = parseSeries(t, fixture.ReadFile(t, h.Path("cis490.prom")))
	s.check(t, series{`cis490_shipper_last_pass_exit_code`: 4, `cis490_shipper_waiting_episodes`: 1})

	h.Set("metrics_file", `"nowhere/cis490.prom"`)
	mustContain(t, "the log", h.Once().MustExit(t, 4).Stderr, "metrics not written", "metrics_file")
	// Links that another user puts into a shared directory must not redirect the write.
	fixture.Must(t, os.Mkdir(h.Path("shared"), 0o777))
	fixture.WriteFile(t, h.Path("secret"), "mine")
	fixture.Must(t, os.Chmod(h.Path("secret"), 0o600))
	for _, name := range []string{"cis490.prom", ".cis490.prom.tmp"} {
		fixture.Must(t, os.Symlink(h.Path("secret"), h.Path("shared", name)))
	}
	h.Set("metrics_file", `"shared/cis490.prom"`)
	h.Once().MustExit(t, 4)
	if info, err := os.Lstat(h.Path("secret")); err != nil || info.Mode() != 0o600 || fixture.ReadFile(t, h.Path("secret")) != "mine" {
		t.Errorf("another file was changed: %v, %v", info, err)
	}
	if info, err := os.Lstat(h.Path("shared", "cis490.prom")); err != nil || info.Mode() != 0o644 {
		t.Errorf("the metrics: %v, %v", info, err)
	}

	h.Set("metrics_file", `"lab-host.toml"`)
	mustContain(t, "the error", h.Run("--once").MustExit(t, 2).Stderr, "metrics_file", ".prom")
}
