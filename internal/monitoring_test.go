package internal_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"cis490/internal/fixture"
	"cis490/internal/fleet"
)

const (
	rulesFile     = "../etc/prometheus/cis490.rules.yml"
	ruleTestsFile = "../etc/prometheus/cis490.rules.test.yml"
	dashboardFile = "../etc/grafana/cis490.json"
)

// alertRule is an alerting rule of Prometheus.
type alertRule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// hasHostSeverity reports whether the rule has the severity that the receiver gives to a problem of a host.
func (r alertRule) hasHostSeverity() bool {
	return r.Labels["severity"] == "{{ $labels.severity }}" && strings.HasPrefix(r.Expr, "cis490_host_problem{")
}

func readRules(t *testing.T) (rules []alertRule) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alertRule }
	}
	fixture.Must(t, yaml.Unmarshal([]byte(readFile(t, rulesFile)), &file))
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	if len(rules) < 20 {
		t.Fatalf("found only %d rules", len(rules))
	}
	return rules
}

// TestAlertsAndDashboardUseMetricsThatExist: an alert on a metric, a label or a value that was renamed
// never fires, and a panel stays empty.
func TestAlertsAndDashboardUseMetricsThatExist(t *testing.T) {
	c := queryChecker{defined: definedMetrics(t), texts: stringLiterals(t)}
	for _, file := range []string{rulesFile, ruleTestsFile, dashboardFile} {
		var content any
		fixture.Must(t, yaml.Unmarshal([]byte(readFile(t, file)), &content)) // JSON is YAML too
		used := 0
		for _, text := range stringsIn(content) {
			used += c.check(t, file, text)
		}
		if used < 30 {
			t.Errorf("%s uses metrics %d times only", file, used)
		}
	}
}

// queryChecker checks queries against the source of the programs.
type queryChecker struct {
	defined map[string]metric
	texts   map[string]bool // all string literals of the programs
}

// Labels that Prometheus adds, and those of a metric of its own.
var addedLabels = []string{"instance", "job", "le"}

// Words that tests of the rules make up.
var madeUp = map[string]bool{"invented-later": true}

var (
	metricName = regexp.MustCompile(`cis490_[a-z0-9_]+`)
	selector   = regexp.MustCompile(`(cis490_[a-z0-9_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	grouping   = regexp.MustCompile(`\b(?:by|without|on) ?\(([^)]*)\)`)
	template   = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?([a-z]+) ?\}\}`)
	suffix     = regexp.MustCompile(`_(bucket|count|sum)$`)
)

// check checks one text, and returns how many metrics it uses.
func (c queryChecker) check(t *testing.T, file, text string) int {
	t.Helper()
	names := metricName.FindAllString(text, -1)
	for _, name := range names {
		if _, found := c.lookUp(name); !found {
			t.Errorf("%s uses %s, which does not exist", file, name)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(text, -1) {
		d, _ := c.lookUp(m[1])
		for _, match := range matcher.FindAllStringSubmatch(m[2], -1) {
			label, value := match[1], match[2]
			if !slices.Contains(slices.Concat(d.labels, addedLabels), label) {
				t.Errorf("%s: %s has no label %s: %s", file, m[1], label, text)
			}
			if slices.Contains([]string{"kind", "severity", "finding", "reason", "request", "result"}, label) {
				c.checkValue(t, file, label, value)
			}
		}
	}
	for _, pattern := range []*regexp.Regexp{grouping, template} {
		for _, m := range pattern.FindAllStringSubmatch(text, -1) {
			for label := range strings.SplitSeq(m[1], ",") {
				label = strings.TrimSpace(label)
				if !c.isLabel(label) {
					t.Errorf("%s: no metric has a label %s: %s", file, label, text)
				}
			}
		}
	}
	return len(names)
}

// checkValue checks the value of a label whose values are words of the programs.
func (c queryChecker) checkValue(t *testing.T, file, label, value string) {
	t.Helper()
	for word := range strings.SplitSeq(value, "|") {
		if !c.texts[word] && !madeUp[word] {
			t.Errorf("%s: no program uses %q as a %s", file, word, label)
		}
	}
}

func (c queryChecker) lookUp(name string) (metric, bool) {
	d, found := c.defined[name]
	if !found {
		d, found = c.defined[suffix.ReplaceAllString(name, "")]
	}
	return d, found
}

func (c queryChecker) isLabel(label string) bool {
	for _, d := range c.defined {
		if slices.Contains(d.labels, label) {
			return true
		}
	}
	return slices.Contains(addedLabels, label)
}

// stringsIn returns all strings of a decoded file.
func stringsIn(content any) (texts []string) {
	switch content := content.(type) {
	case string:
		return []string{content}
	case []any:
		for _, item := range content {
			texts = append(texts, stringsIn(item)...)
		}
	case map[string]any:
		for _, item := range content {
			texts = append(texts, stringsIn(item)...)
		}
	}
	return texts
}

// stringLiterals returns all string literals of the programs.
func stringLiterals(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					found[text] = true
				}
			}
			return true
		})
	}
	return found
}

// TestEveryAlertSaysWhatToDo: an operator who is paged needs a summary and a section of the
// documentation.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	for _, r := range readRules(t) {
		if s := r.Labels["severity"]; s != "warning" && s != "critical" && !r.hasHostSeverity() {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		for _, name := range []string{"summary", "description"} {
			if r.Annotations[name] == "" {
				t.Errorf("%s has no %s", r.Alert, name)
			}
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if anchor == "" || !hasHeading(t, filepath.Join("..", page), anchor) {
			t.Errorf("%s: nothing is at %q", r.Alert, r.Annotations["runbook_url"])
		}
	}
}

// TestAlertsHaveTheThresholdsOfChecks: alerts that have thresholds must agree with 'receiver status --check'
// and 'shipper status --check'.
func TestAlertsHaveTheThresholdsOfChecks(t *testing.T) {
	var all strings.Builder
	for _, r := range readRules(t) {
		all.WriteString(r.Expr + "\n")
	}
	for _, want := range []string{
		fmt.Sprintf("cis490_receiver_full_seconds < %d * 86400 >= 86400", fleet.FullSoon/(24*time.Hour)),
		fmt.Sprintf("cis490_receiver_full_seconds < %d\n", fleet.FullVerySoon/time.Second),
		fmt.Sprintf("cis490_shipper_failing_since_timestamp_seconds > %d ", fleet.FailingLong/time.Second),
		fmt.Sprintf("cis490_shipper_oldest_waiting_timestamp_seconds > %d\n", fleet.WaitingLong/time.Second),
	} {
		if !strings.Contains(all.String(), want) {
			t.Errorf("no alert has %q", want)
		}
	}
}

// TestEveryAlertIsTested checks that in the tests, which labtest runs with promtool, each alert fires with
// each severity, and not too early.
func TestEveryAlertIsTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Cases []struct {
				Alert string           `yaml:"alertname"`
				Fires []map[string]any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	fixture.Must(t, yaml.Unmarshal([]byte(readFile(t, ruleTestsFile)), &file))
	fires, quiet := make(map[string]bool), make(map[string]bool)
	for _, test := range file.Tests {
		for _, c := range test.Cases {
			if len(c.Fires) == 0 {
				quiet[c.Alert] = true
			}
			for _, alert := range c.Fires {
				severity := alert["exp_labels"].(map[string]any)["severity"]
				fires[fmt.Sprint(c.Alert, " ", severity)] = true
				fires[c.Alert+" {{ $labels.severity }}"] = true
			}
		}
	}
	for _, r := range readRules(t) {
		if !fires[r.Alert+" "+r.Labels["severity"]] {
			t.Errorf("no test has %s fire with severity %s", r.Alert, r.Labels["severity"])
		}
		if !quiet[r.Alert] {
			t.Errorf("no test has %s not fire", r.Alert)
		}
	}
}

// TestDocsListEveryAlert: the table in the page has the rules, in their order.
func TestDocsListEveryAlert(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(CIS490\\w+)` \\| (.*?) \\| (.*?) \\| .+ \\| \\[.*\\]\\((.*)\\) \\|$")
	var documented, want []string
	for _, m := range row.FindAllStringSubmatch(readFile(t, "../docs/metrics.md"), -1) {
		documented = append(documented, strings.Join(m[1:], " | "))
	}
	for _, r := range readRules(t) {
		severity, after := r.Labels["severity"], r.For
		if r.hasHostSeverity() {
			severity = "its own"
		}
		if after == "" {
			after = "at once"
		}
		want = append(want, strings.Join([]string{r.Alert, severity, after, strings.TrimPrefix(r.Annotations["runbook_url"], "docs/")}, " | "))
	}
	if !slices.Equal(documented, want) {
		t.Errorf("docs/metrics.md has\n%s\nand the rules are\n%s", strings.Join(documented, "\n"), strings.Join(want, "\n"))
	}
}

// TestDashboardFitsAnyGrafana: a dashboard that names its author's data source shows nothing
// elsewhere, and panels that overlap cannot be read.
func TestDashboardFitsAnyGrafana(t *testing.T) {
	type source struct{ UID string }
	var d struct {
		ID     any
		Panels []struct {
			ID          int
			Type, Title string
			Datasource  source
			GridPos     struct{ H, W, X, Y int }
			FieldConfig struct{ Defaults struct{ Unit string } }
			Targets     []struct{ Datasource source }
		}
		SchemaVersion int
		Templating    struct {
			List []struct{ Name, Type string }
		}
	}
	fixture.Must(t, json.Unmarshal([]byte(readFile(t, dashboardFile)), &d))
	if d.ID != nil || d.SchemaVersion != 38 || len(d.Templating.List) != 2 || d.Templating.List[0].Type != "datasource" {
		t.Errorf("id %v, schema %d, variables %v", d.ID, d.SchemaVersion, d.Templating.List)
	}
	ids, cells := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: its id is not unique, or it has no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s overlaps %s, or exceeds the width of the page", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
				t.Errorf("%s: data source %q, %q", p.Title, p.Datasource.UID, target.Datasource.UID)
			}
		}
		if p.Type != "table" && p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s has no unit, or no query", p.Title)
		}
	}
}
