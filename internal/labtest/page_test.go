package labtest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
	"cis490/internal/labtest"
)

// pageLab returns a receiver whose status page has content of every kind: two weeks of arrivals, a conflict, a
// name of the maximum length, and hosts that are silent, are disabled or have never reported.
func pageLab(t *testing.T) (*labtest.Lab, *labtest.Host) {
	l, h := newLab(t, labtest.Set("admin.listen", `"127.0.0.1:0"`))
	h.Set("report_interval", `"5m"`)
	l.Stop()
	var rows []byte
	now := time.Now()
	for i := range 200 {
		rows = index.Row{
			ReceivedAt: now.Add(-time.Duration(200-i*i/200) * time.Hour * 3 / 2), SHA256: [32]byte{1}, Size: 1 << (20 + i%12),
			Key: episode.Key{Host: episode.Name(fmt.Sprintf("lab-%02d", 1+i%3)), Name: episode.Name(fmt.Sprintf("2026-11-30T08-00-%03d", i))},
		}.Append(rows)
	}
	fixture.WriteFile(t, l.Path("data", "index.jsonl"), string(rows))
	l.Start()
	h.Episode("run-1")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-3", []byte("other bytes"))
	h.Episode("run-3")
	for _, name := range []string{"lab-04", "lab-05"} {
		other := l.Host(name)
		other.Set("report_interval", `"5m"`)
		other.Once()
	}
	l.Stop()
	for _, host := range []string{"lab-02", "lab-03", strings.Repeat("long-name-", 12) + "12345678"} {
		fixture.Must(t, os.MkdirAll(l.Path("data", "episodes", host), 0o750))
	}
	l.Receiver("--config", l.Path("receiver.toml"), "hosts", "disable", "lab-03").MustExit(t, 0)
	l.Start()
	record := l.Path("data", "reports", "lab-04.report") // of a daemon that reports every five minutes
	fixture.WriteFile(t, record, strings.Replace(fixture.ReadFile(t, record), `"unfinished":`, `"interval_seconds":300,"unfinished":`, 1))
	ageRecord(t, l, "lab-04", 5*time.Hour) // and the start of the receiver, before which no host could report
	ageRecord(t, l, "lab-01", time.Minute) // so that it may report again
	h.Once().MustExit(t, 3)
	return l, h
}

// TestStatusPageInABrowser checks the pages in Chromium: with axe-core, by keyboard, without the script.
func TestStatusPageInABrowser(t *testing.T) {
	if os.Getenv("CIS490_PAGE") == "" {
		t.Skip("a browser is started by `make page`")
	}
	l, h := pageLab(t)
	_, addr, _ := strings.Cut(l.Process().WaitLine(t, "serving metrics"), "address=")
	addr, _, _ = strings.Cut(addr, " ")
	shots, err := filepath.Abs("../../bin/page")
	fixture.Must(t, err)
	cmd := exec.Command("node", "../../scripts/page/check.mjs", "http://"+addr, "lab-01", shots)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	fixture.Must(t, err)
	fixture.Must(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "arrive" {
			h.Episode("run-of-the-refresh")
			h.Once()
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the browser: %v", err)
	}
}
