package internal_test

import (
	"fmt"
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// metric is how the source describes a metric.
type metric struct {
	help   string
	labels []string // nil: unknown
}

// definedMetrics returns the metrics of both programs.
func definedMetrics(t *testing.T) map[string]metric {
	t.Helper()
	found := make(map[string]metric)
	for _, p := range project(t) {
		for _, f := range p.files {
			if f.test {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr: // name, help, labels...
					texts := literals(n.Args)
					if fn, ok := n.Fun.(*ast.Ident); ok && fn.Name == "reportDesc" {
						found["cis490_host_"+texts[0]] = metric{texts[1], append([]string{"host"}, texts[2:]...)}
						found["cis490_shipper_"+texts[0]] = metric{texts[1], texts[2:]}
					} else if len(texts) > 1 && strings.HasPrefix(texts[0], "cis490_") && !strings.HasSuffix(texts[0], "_") {
						found[texts[0]] = metric{texts[1], texts[2:]}
					}
				case *ast.CompositeLit: // the options of a metric; its labels are in the call around it
					if texts := literals(values(n.Elts)); len(texts) > 1 && strings.HasPrefix(texts[0], "cis490_") {
						found[texts[0]] = metric{help: texts[1]}
					}
				}
				return true
			})
		}
	}
	return found
}

// literals returns the string literals of a list.
func literals(list []ast.Expr) (texts []string) {
	for _, e := range list {
		if lit, ok := e.(*ast.BasicLit); ok {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				texts = append(texts, text)
			}
		}
	}
	return texts
}

func values(elements []ast.Expr) (list []ast.Expr) {
	for _, e := range elements {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			list = append(list, kv.Value)
		}
	}
	return list
}

// TestDocsListEveryMetric: users rely on names, labels and meanings.
func TestDocsListEveryMetric(t *testing.T) {
	defined := definedMetrics(t)
	if len(defined) < 60 {
		t.Fatalf("found only %d metrics in the source", len(defined))
	}
	row := regexp.MustCompile("(?m)^\\| `(cis490_\\w+)` \\| (.*?) \\| (.*) \\|$")
	documented := make(map[string]bool)
	for _, m := range row.FindAllStringSubmatch(readFile(t, "../docs/metrics.md"), -1) {
		name, labels, help := m[1], m[2], m[3]
		documented[name] = true
		d, found := defined[name]
		if !found {
			t.Errorf("docs/metrics.md has %s, which does not exist", name)
			continue
		}
		if help != d.help {
			t.Errorf("docs/metrics.md: %s: %q, but the source has %q", name, help, d.help)
		}
		var quoted []string
		for _, label := range d.labels {
			quoted = append(quoted, fmt.Sprintf("`%s`", label))
		}
		if d.labels != nil && labels != strings.Join(quoted, ", ") {
			t.Errorf("docs/metrics.md: %s has labels %s, but the source has %s", name, labels, strings.Join(quoted, ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(defined)) {
		if !documented[name] {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
}
