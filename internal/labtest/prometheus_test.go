package labtest_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
	"cis490/internal/pki"
)

const (
	alertRules = "../../etc/prometheus/cis490.rules.yml"
	alertTests = "../../etc/prometheus/cis490.rules.test.yml"
	dashboard  = "../../etc/grafana/cis490.json"
)

// promtool runs promtool in dir, and returns what it printed. It must succeed.
func promtool(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(fixture.RequireTool(t, "promtool"), args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPromtoolAcceptsRulesAndTheirTests also checks the configurations that docs/metrics.md shows.
func TestPromtoolAcceptsRulesAndTheirTests(t *testing.T) {
	fixture.RequireTool(t, "promtool")
	dir := t.TempDir()
	for _, file := range []string{alertRules, alertTests} {
		fixture.WriteFile(t, filepath.Join(dir, filepath.Base(file)), fixture.ReadFile(t, file))
	}
	promtool(t, dir, "", "check", "rules", filepath.Base(alertRules))
	promtool(t, dir, "", "test", "rules", filepath.Base(alertTests))
	snippets := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(fixture.ReadFile(t, "../../docs/metrics.md"), -1)
	if len(snippets) != 2 {
		t.Errorf("docs/metrics.md has %d configurations", len(snippets))
	}
	for _, snippet := range snippets {
		fixture.WriteFile(t, filepath.Join(dir, "prometheus.yml"), snippet[1])
		promtool(t, dir, "", "check", "config", "prometheus.yml")
	}
}

// prometheus is a Prometheus that scrapes the daemons of a lab every second.
type prometheus struct {
	addr               string
	receiver, shippers *labtest.Proxy  // a daemon has a different port after each start
	answered           map[string]bool // queries of the dashboard that had a result
}

// startPrometheus starts a Prometheus on loopback, with its data in a directory of the test.
func startPrometheus(t *testing.T) *prometheus {
	t.Helper()
	program := fixture.RequireTool(t, "prometheus")
	p := &prometheus{receiver: labtest.NewProxy(t), shippers: labtest.NewProxy(t), answered: make(map[string]bool)}
	dir := t.TempDir()
	// The tests of promtool cover for how long a condition must hold.
	rules := regexp.MustCompile(`(?m)^( +for): .*$`).ReplaceAllString(fixture.ReadFile(t, alertRules), "$1: 0s")
	fixture.WriteFile(t, filepath.Join(dir, "rules.yml"), rules)
	fixture.WriteFile(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`
global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }
rule_files: [rules.yml]
scrape_configs:
  - job_name: cis490
    static_configs: [{ targets: [%q], labels: { instance: receiver } }]
  - job_name: shippers
    static_configs: [{ targets: [%q], labels: { instance: lab-01 } }]
`, p.receiver.Addr(), p.shippers.Addr()))
	process := labtest.StartProgram(t, "prometheus", program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:0")
	line := process.WaitLine(t, `msg="Listening on"`)
	p.addr = line[strings.LastIndex(line, "=")+1:]
	process.WaitLine(t, "Server is ready")
	return p
}

// getData decodes the data of a response of the API.
func (p *prometheus) getData(t *testing.T, path string, query url.Values, to any) {
	t.Helper()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://" + p.addr + "/api/v1/" + path + "?" + query.Encode())
	fixture.Must(t, err)
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	fixture.Must(t, json.NewDecoder(resp.Body).Decode(&answer))
	if answer.Status != "success" {
		t.Fatalf("%s %v: %s", path, query, answer.Error)
	}
	fixture.Must(t, json.Unmarshal(answer.Data, to))
}

// waitForTargets waits until both targets are scraped, and then all rules have been evaluated.
func (p *prometheus) waitForTargets(t *testing.T) {
	t.Helper()
	labtest.Eventually(t, "both targets are up", func() bool {
		var targets struct {
			Active []struct{ Health string } `json:"activeTargets"`
		}
		p.getData(t, "targets", nil, &targets)
		return len(targets.Active) == 2 && targets.Active[0].Health == "up" && targets.Active[1].Health == "up"
	})
	since := time.Now()
	labtest.Eventually(t, "all rules are evaluated", func() bool {
		var rules struct {
			Groups []struct {
				Rules []struct {
					Health         string
					LastEvaluation time.Time
				}
			}
		}
		p.getData(t, "rules", nil, &rules)
		all, evaluated := strings.Count(fixture.ReadFile(t, alertRules), "- alert: "), 0
		for _, g := range rules.Groups {
			for _, r := range g.Rules {
				if r.Health == "ok" && r.LastEvaluation.After(since) {
					evaluated++
				}
			}
		}
		return evaluated == all
	})
}

// alerts returns which alerts fire, as "name severity instance". It leaves out CIS490CommitsSlow, which depends
// on how fast this machine is.
func (p *prometheus) alerts(t *testing.T) []string {
	t.Helper()
	var list struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	p.getData(t, "alerts", nil, &list)
	fires := []string{}
	for _, a := range list.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && name != "CIS490CommitsSlow" {
			fires = append(fires, strings.Join([]string{name, a.Labels["severity"], a.Labels["instance"]}, " "))
		}
	}
	slices.Sort(fires)
	return fires
}

// waitForAlerts waits until these alerts fire, and no others.
func (p *prometheus) waitForAlerts(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	defer func() {
		if t.Failed() {
			t.Errorf("alerts %q, want %q", got, want)
		}
	}()
	labtest.Eventually(t, "the right alerts fire", func() bool {
		got = p.alerts(t)
		return slices.Equal(got, want)
	})
	p.askDashboard(t)
}

// askDashboard runs all queries of the dashboard, as Grafana would.
func (p *prometheus) askDashboard(t *testing.T) {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, dashboard)), &d))
	variables := strings.NewReplacer("$host", "(lab-01|lab-02)", "$__rate_interval", "1m")
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			var answer struct{ Result []json.RawMessage }
			p.getData(t, "query", url.Values{"query": {variables.Replace(target.Expr)}}, &answer)
			id := panel.Title + " " + target.RefID
			p.answered[id] = p.answered[id] || len(answer.Result) > 0
		}
	}
}

// ageCertificate gives a host a certificate of a year that ends in left, and makes it the only one on
// record.
func ageCertificate(t *testing.T, l *labtest.Lab, h *labtest.Host, left time.Duration) {
	t.Helper()
	records := l.Path("pki", "issued")
	fixture.Must(t, os.RemoveAll(records))
	makeCertificate(t, l.Path("pki"), h.Path("pki"), func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(left)
		c.NotBefore = c.NotAfter.Add(-365 * day)
	})
	cert, err := x509.ParseCertificate(readPEM(t, h.Path("pki", "lab-01.crt")))
	fixture.Must(t, err)
	fixture.Must(t, pki.RecordCertificate(records, cert))
}

// Alerts that fire in the lab.
const (
	hostHeld        = "CIS490HostHeld warning receiver"
	hostSilent      = "CIS490HostSilent critical receiver"
	hostCertificate = "CIS490HostCertificate critical receiver"
	receiverEnds    = "CIS490CertificateExpires warning receiver"
	shipperEnds     = "CIS490CertificateExpires critical lab-01"
	shipperHeld     = "CIS490ShipperHeld warning lab-01"
	damaged         = "CIS490ArchivesDamaged critical receiver"
	quarantine      = "CIS490Quarantine warning receiver"
	receiverDisk    = "CIS490ReceiverDisk critical receiver"
	receiverDown    = "CIS490ReceiverDown critical receiver"
)

// TestAlertsFireInARealPrometheus: the rules of etc/, on what both daemons serve.
func TestAlertsFireInARealPrometheus(t *testing.T) {
	fixture.RequireTool(t, "prometheus")
	l, h := newLab(t, labtest.Set("admin.listen", `"127.0.0.1:0"`))
	h.Set("admin.listen", `"127.0.0.1:0"`)
	h.Set("report_interval", `"5m"`)
	h.Episode("run-1")
	shipper := h.Daemon()
	h.WaitShipped("run-1")
	receiver := l.Process()
	for _, daemon := range []*labtest.Process{receiver, shipper} {
		_, text := adminPage(t, daemon, "/metrics")
		promtool(t, "", text, "check", "metrics")
	}
	waitForMetrics(t, receiver, series{`cis490_host_silent{host="lab-01"}`: 0}) // it has reported

	p := startPrometheus(t)
	p.receiver.Forward(adminAddress(t, receiver))
	p.shippers.Forward(adminAddress(t, shipper))
	p.waitForTargets(t)
	p.waitForAlerts(t)

	// An episode is held: the receiver has other bytes under its name.
	shipper.Stop(t)
	conflict := func(bytes string) { putArchive(t, l, h.Client(t), "/v1/episodes/lab-01/run-2", []byte(bytes)) }
	conflict("other bytes")
	h.Episode("run-2")
	ageRecord(t, l, "lab-01", time.Minute) // reports must be that far apart
	h.Once().MustExit(t, 3)
	ageRecord(t, l, "lab-01", time.Minute)
	shipper = h.Daemon()
	labtest.Eventually(t, "the daemon says how often it reports", func() bool { return reportOf(t, l, "lab-01").Report.Interval == 300 })
	p.shippers.Forward(adminAddress(t, shipper))
	p.waitForAlerts(t, hostHeld, shipperHeld)
	conflict("the second that is refused") // a rate needs two

	// A host falls silent. Its last report no longer counts.
	shipper.Stop(t)
	ageRecord(t, l, "lab-01", time.Hour)
	p.waitForAlerts(t, hostSilent)

	// Its certificate is about to expire, and the receiver's too.
	ageCertificate(t, l, h, 5*day)
	l.Receiver("pki", "renew", "--dir", l.Path("pki"), "--days", "20").MustExit(t, 0)
	receiver.Signal(t, syscall.SIGHUP)
	p.waitForAlerts(t, hostSilent, hostCertificate, receiverEnds)
	shipper = h.Daemon()
	p.shippers.Forward(adminAddress(t, shipper))
	p.waitForAlerts(t, hostHeld, shipperHeld, hostCertificate, receiverEnds, shipperEnds)

	damageArchive(t, l, h, "run-1")
	p.waitForAlerts(t, damaged, quarantine, hostHeld, shipperHeld, hostCertificate, receiverEnds, shipperEnds)

	// The receiver's disk is full, and then the receiver is stopped.
	shipper.Stop(t)
	l.Set("min_free", `"1PiB"`)
	l.Restart()
	p.receiver.Forward(adminAddress(t, l.Process()))
	p.waitForAlerts(t, receiverDisk, damaged, quarantine, hostHeld, hostCertificate, receiverEnds)
	l.Stop()
	p.waitForAlerts(t, receiverDown)

	// These need samples of several hours, or conditions that the lab does not have.
	maps.DeleteFunc(p.answered, func(id string, answered bool) bool {
		return answered || slices.Contains([]string{"Receiver full in A", "Disks that fill A", "Disks that fill B", "Age of the oldest waiting episode A"}, id)
	})
	if len(p.answered) > 0 {
		t.Errorf("panels that were always empty: %q", slices.Sorted(maps.Keys(p.answered)))
	}
}

// damageArchive damages a stored archive, which a scrub finds, and which the receiver quarantines when its
// host asks. The daemon's own scrub begins minutes after its start, so this writes its result.
func damageArchive(t *testing.T, l *labtest.Lab, h *labtest.Host, name string) {
	t.Helper()
	flipByte(t, l.Archive(h.Name, name))
	scrub := l.Receiver("--config", l.Path("receiver.toml"), "scrub", "--rate", "0").MustExit(t, 1)
	mustContain(t, "the scrub", scrub.Stdout, "damaged\t"+h.Name+"/"+name)
	h.Run("verify").MustExit(t, 1)
	path := l.Path("data", "scrub.json")
	var progress map[string]any
	fixture.Must(t, json.Unmarshal([]byte(fixture.ReadFile(t, path)), &progress))
	now := time.Now().UTC()
	progress["damaged"], progress["started"], progress["ended"], progress["whole_since"] = 1, now, now, now
	text, err := json.Marshal(progress)
	fixture.Must(t, err)
	fixture.WriteFile(t, path, string(text))
}
