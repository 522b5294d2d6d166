package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// graphs draws the existing curves, and links them in the page if they are from a full run.
func graphs(o options, b book) error {
	to, page := o.dir, ""
	if o.full() && o.doc != "" {
		to, page = filepath.Dir(o.doc), o.doc
	}
	pass := []column{figures("wall s", wall), figures("CPU s", clientCPU, serverCPU), figures("MiB", clientMiB, serverMiB)}
	starts := []column{figures("start ms", startTime), figures("PUT ms, median/99 %", middle, slow), figures("receiver MiB", serverMiB)}
	members := []column{figures("episodes/s", perSecond), pass[1], pass[2]}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n%s\nCPU and MiB are those of shipper/receiver.\n\n", facts(), b.conditions())
	for _, g := range []struct {
		file  string
		chart chart
		table string
	}{
		{"growth-backlog-time.svg", b.backlogTime(), b.table("backlog", "episodes", pass...)},
		{"growth-backlog-memory.svg", b.backlogMemory(), b.table("away", "episodes, receiver unreachable", pass...)},
		{"growth-rows-time.svg", b.rowsTime(), b.table("rows", "rows", starts...)},
		{"growth-rows-memory.svg", b.rowsMemory(), ""},
		{"growth-hosts.svg", b.hosts(), b.table("hosts", "hosts", members...)},
	} {
		if !g.chart.drawn() {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, g.file), g.chart.svg(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&out, "### %s\n\n![graph](%s)\n\n%s", g.chart.title, g.file, g.table)
	}
	if len(b["fleet"].Rows) > 0 {
		fmt.Fprintf(&out, "### An idle fleet\n\n%s", b.table("fleet", "hosts", figures("wall s", wall), figures("receiver CPU s", serverCPU), figures("receiver MiB", serverMiB)))
	}
	if _, err := os.Stdout.Write(out.Bytes()); err != nil || page == "" {
		return err
	}
	return splice(page, "make bench-growth", out.Bytes())
}

// drawn reports whether something was measured.
func (c chart) drawn() bool {
	return slices.ContainsFunc(c.series, func(s series) bool { return len(s.points) > 0 })
}

func (b book) backlogTime() chart {
	return chart{"One pass of the shipper, against the backlog", "tiny episodes that wait", "seconds", []series{
		b.line("backlog", "with the receiver", wall), b.line("away", "receiver unreachable: packed only", wall), b.linear("backlog", wall),
	}}
}

func (b book) backlogMemory() chart {
	return chart{"Memory, against the backlog", "tiny episodes that wait", "MiB resident, peak", []series{
		b.line("backlog", "shipper", clientMiB), b.line("away", "shipper, receiver unreachable", clientMiB), b.line("backlog", "receiver", serverMiB),
	}}
}

func (b book) rowsTime() chart {
	return chart{"Start-up and PUT of the receiver, against the rows of its index", "rows", "milliseconds", []series{
		b.line("rows", "start-up", startTime),
		b.line("rows", "PUT of 17 kB, median", middle),
		b.line("rows", "PUT, 99 %", slow),
	}}
}

func (b book) rowsMemory() chart {
	return chart{"Memory of the receiver, against the rows of its index", "rows", "MiB resident, peak", []series{b.line("rows", "receiver", serverMiB)}}
}

func (b book) hosts() chart {
	return chart{"Episodes per second, against concurrent hosts", "hosts", "episodes/s, all hosts together", []series{
		b.line("hosts", "40 KiB episodes", perSecond),
	}}
}

// line is the median of a figure at each size. A logarithm has no zero, and a
// process that was too quick to be seen has no memory.
func (b book) line(name, title string, figure func(row) float64) series {
	s := series{name: title}
	for _, at := range b[name].sizes() {
		if y := b[name].at(at).median(cis490, figure); y > 0 {
			s.points = append(s.points, [2]float64{float64(at), y})
		}
	}
	return s
}

// linear is the line of proportional growth, drawn through the largest size.
func (b book) linear(name string, figure func(row) float64) series {
	s := series{name: "proportional", dashed: true}
	measured := b.line(name, "", figure).points
	if len(measured) < 2 {
		return s
	}
	last := measured[len(measured)-1]
	for _, p := range measured[len(measured)/2:] {
		s.points = append(s.points, [2]float64{p[0], last[1] * p[0] / last[0]})
	}
	return s
}

// sizes returns the sizes of a curve, in order.
func (s section) sizes() []int {
	var all []int
	for _, r := range s.Rows {
		if !slices.Contains(all, r.At) {
			all = append(all, r.At)
		}
	}
	slices.Sort(all)
	return all
}

// at returns the rows of one size.
func (s section) at(size int) section {
	s.Rows = slices.DeleteFunc(slices.Clone(s.Rows), func(r row) bool { return r.At != size })
	return s
}

// table has the figures behind a graph.
func (b book) table(name, what string, columns ...column) string {
	s, found := b[name]
	if !found {
		return ""
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s.\n\n| %s |", s.source(), what)
	for _, c := range columns {
		out.WriteString(" " + c.name + " |")
	}
	out.WriteString("\n|" + strings.Repeat("---|", len(columns)+1) + "\n")
	for _, size := range s.sizes() {
		fmt.Fprintf(&out, "| %s |", si(float64(size)))
		for _, c := range columns {
			out.WriteString(" " + c.of(s.at(size)) + " |")
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	return out.String()
}

// column is one of a table of growth: figures with slashes between them.
type column struct {
	name    string
	figures []func(row) float64
}

func figures(name string, of ...func(row) float64) column { return column{name, of} }

// of writes the medians of a section. A receiver that is not there has none.
func (c column) of(s section) string {
	var all []string
	for _, figure := range c.figures {
		if m := s.median(cis490, figure); m != 0 {
			all = append(all, number(m))
		}
	}
	return strings.Join(all, "/")
}
