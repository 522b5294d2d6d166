package labtest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// reported is what the receiver knows of a host by its reports.
type reported struct {
	Report *struct {
		Version    string           `json:"version"`
		Unfinished int              `json:"unfinished"`
		Waiting    int              `json:"waiting"`
		Held       map[string]int   `json:"held"`
		Shipped    int              `json:"shipped"`
		Stored     int              `json:"stored_archives"`
		Changed    time.Time        `json:"archives_changed_at"`
		Interval   int              `json:"interval_seconds"`
		Disk       map[string]int64 `json:"disk"`
		Ends       time.Time        `json:"certificate_not_after"`
	} `json:"report"`
	Problems []struct{ Kind, Severity, Text string } `json:"problems"`
}

func reportOf(t *testing.T, l *labtest.Lab, host string) reported {
	t.Helper()
	for line := range strings.Lines(l.Receiver("--config", l.Path("receiver.toml"), "hosts", "--json").MustExit(t, 0).Stdout) {
		var f struct {
			Host string `json:"host_id"`
			reported
		}
		fixture.Must(t, json.Unmarshal([]byte(line), &f))
		if f.Host == host {
			return f.reported
		}
	}
	t.Fatalf("receiver hosts does not list %s", host)
	return reported{}
}

// ageRecord makes the last report of a host, and the start of the receiver, that much older.
func ageRecord(t *testing.T, l *labtest.Lab, host string, age time.Duration) {
	t.Helper()
	for file, member := range map[string]string{host + ".report": "received_at", ".receiver": "started_at"} {
		path := l.Path("data", "reports", file)
		var content map[string]any
		fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, path)), &content))
		at, err := time.Parse(time.RFC3339, content[member].(string))
		fixture.Must(t, err)
		content[member] = at.Add(-age)
		text, err := json.Marshal(content)
		fixture.Must(t, err)
		fixture.WriteFile(t, path, string(text))
	}
}

// checkHosts runs a check of a monitoring system, and returns its line.
func checkHosts(t *testing.T, l *labtest.Lab, code int) string {
	t.Helper()
	return l.Receiver("--config", l.Path("receiver.toml"), "hosts", "--check").MustExit(t, code).Stdout
}

// TestReceiverKnowsTheStateOfItsHosts: made, stored, held and waiting, across a restart; silent if
// nothing comes.
func TestReceiverKnowsTheStateOfItsHosts(t *testing.T) {
	l, h := newLab(t)
	h.Set("report_interval", `"5m"`)
	h.Episode("run-1")
	h.Draft("unfinished")
	h.Episode("run-2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	if r := reportOf(t, l, "lab-01").Report; r == nil || r.Shipped != 2 || r.Interval != 0 {
		t.Errorf("after a pass: %+v", r)
	}
	ageRecord(t, l, "lab-01", time.Minute)
	p := h.Daemon()
	labtest.Eventually(t, "the daemon reports", func() bool { return reportOf(t, l, "lab-01").Report.Interval == 300 })
	p.Stop(t)
	l.Restart()
	got := reportOf(t, l, "lab-01")
	r := got.Report
	if r.Unfinished != 1 || r.Waiting != 0 || len(r.Held) != 0 || r.Stored != 2 || r.Version == "" || r.Disk["free_bytes"] == 0 || r.Ends.IsZero() {
		t.Errorf("got %+v", r)
	}
	if st, err := os.Stat(l.Path("data", "episodes", "lab-01")); err != nil || !st.ModTime().Equal(r.Changed) {
		t.Errorf("the archives changed at %v (%v), want %v", r.Changed, err, st.ModTime())
	}
	if line := checkHosts(t, l, 0); !strings.HasPrefix(line, "HOSTS OK: 1 active hosts | ") {
		t.Errorf("got %s", line)
	}

	// The daemon said that it reports every five minutes.
	ageRecord(t, l, "lab-01", time.Hour)
	mustContain(t, "the check", checkHosts(t, l, 2), "HOSTS CRITICAL", "lab-01 has not reported for 60 min")

	// A conflict is held there, which the receiver is told by the pass that met it.
	putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-3", []byte("other bytes"))
	h.Episode("run-3")
	h.Once().MustExit(t, 3)
	if held := reportOf(t, l, "lab-01").Report.Held; held["conflict"] != 1 {
		t.Errorf("held: %v", held)
	}
	mustContain(t, "the check", checkHosts(t, l, 1), "HOSTS WARNING", "1 held (1 conflict)", "held=1")
	mustContain(t, "the check", h.Run("status", "--check").MustExit(t, 1).Stdout, "SHIPPER WARNING", "1 held")

	// Without a receiver no host can report: that is one fault, and not one of each host.
	ageRecord(t, l, "lab-01", 48*time.Hour)
	l.Stop()
	mustContain(t, "the check", checkHosts(t, l, 3), "RECEIVER UNKNOWN: the receiver does not run")
	mustContain(t, "the check", l.Receiver("--config", l.Path("receiver.toml"), "status", "--check").MustExit(t, 2).Stdout, "RECEIVER CRITICAL: not running")

	// A host that is removed is forgotten.
	l.Receiver("--config", l.Path("receiver.toml"), "hosts", "remove", "lab-01").MustExit(t, 0)
	if fixture.Exists(l.Path("data", "reports", "lab-01.report")) {
		t.Error("the report of a removed host is kept")
	}
}

// TestClonedMachineIsReported: two machines, here two directories, ship with one certificate.
func TestClonedMachineIsReported(t *testing.T) {
	l, h := newLab(t)
	h.Set("report_interval", `"5m"`)
	h.Once().MustExit(t, 0)
	clone := filepath.Join(filepath.Dir(h.Dir), "clone")
	copyTree(t, h.Dir, clone)
	shipper := l.Program("shipper")
	for range 2 {
		ageRecord(t, l, "lab-01", 10*time.Second)
		runShell(t, `"$1" --config "$2"/lab-host.toml --once`, shipper, clone)
		ageRecord(t, l, "lab-01", 10*time.Second)
		h.Once().MustExit(t, 0)
	}
	mustContain(t, "the check", checkHosts(t, l, 2), "lab-01 two machines use its certificate")
	if n := strings.Count(l.Process().Output(), "two machines use one certificate"); n != 1 {
		t.Errorf("the receiver says it %d times", n)
	}
}
