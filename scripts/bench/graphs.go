package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// graphs draws the curves that are there, and links them in the page if they
// are of a full run.
func graphs(o options, b book) error {
	to, page := o.dir, ""
	if o.full() && o.doc != "" {
		to, page = filepath.Dir(o.doc), o.doc
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n\n", facts())
	for _, g := range b.graphs() {
		if !slices.ContainsFunc(g.chart.series, func(s series) bool { return len(s.points) > 0 }) {
			continue // nothing was measured
		}
		picture, err := g.chart.svg()
		if err == nil {
			err = os.WriteFile(filepath.Join(to, g.file), picture, 0o644)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "### %s\n\n![%s](%s)\n\n%s", g.chart.title, g.chart.title, g.file, g.table)
	}
	if _, err := os.Stdout.Write(out.Bytes()); err != nil || page == "" {
		return err
	}
	return splice(page, "make bench-growth", out.Bytes())
}

// graph is a chart, its file and the table below it.
type graph struct {
	file  string
	chart chart
	table string
}

func (b book) graphs() []graph {
	const backlog = "tiny episodes that wait"
	return []graph{
		{"growth-backlog-time.svg", chart{"One pass of the shipper, against the backlog", backlog, "seconds", []series{
			b.line("backlog", "with the receiver", wall),
			b.line("away", "receiver unreachable: packed only", wall),
			b.linear("backlog", wall),
		}}, b.table("backlog", "episodes", "with the receiver")},
		{"growth-backlog-memory.svg", chart{"Memory, against the backlog", backlog, "MiB resident, peak", []series{
			b.line("backlog", "shipper", clientMiB),
			b.line("away", "shipper, receiver unreachable", clientMiB),
			b.line("backlog", "receiver", serverMiB),
		}}, b.table("away", "episodes", "with the receiver unreachable")},
		{"growth-rows-time.svg", chart{"Start-up and PUT of the receiver, against the rows of its index", "rows", "milliseconds", []series{
			b.line("rows", "start-up", startTime),
			b.line("rows", "PUT of 17 kB, median", middle),
			b.line("rows", "PUT, 99 %", slow),
		}}, b.table("rows", "rows", "")},
		{"growth-rows-memory.svg", chart{"Memory of the receiver, against the rows of its index", "rows", "MiB resident, peak", []series{
			b.line("rows", "receiver", serverMiB),
		}}, ""},
		{"growth-hosts.svg", chart{"Episodes per second, against concurrent hosts", "hosts", "episodes/s, all hosts together", []series{
			b.line("hosts", "40 KiB episodes", perSecond),
		}}, b.table("hosts", "hosts", "")},
	}
}

// line is the median of a figure at each size. A logarithm has no zero, and a
// process that was too quick to be seen has no memory.
func (b book) line(name, title string, figure func(row) float64) series {
	s := series{name: title}
	for _, at := range b[name].sizes() {
		if y := b[name].at(at).median(ours, figure); y > 0 {
			s.points = append(s.points, [2]float64{float64(at), y})
		}
	}
	return s
}

// linear is where twice as much would take twice as long, drawn through the
// largest size.
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
func (b book) table(name, what, of string) string {
	s, found := b[name]
	if !found {
		return ""
	}
	var out bytes.Buffer
	if of != "" {
		of = " " + of
	}
	fmt.Fprintf(&out, "%s, commit %s, %d runs%s, on %s.\n\n", s.When.Format("2006-01-02 15:04 MST"), s.Commit, s.Runs, of, s.Disk)
	columns := slices.DeleteFunc(figures(), func(c column) bool { return s.median(ours, c.figure) == 0 && c.name != "foreign cores" })
	fmt.Fprintf(&out, "| %s |", what)
	for _, c := range columns {
		out.WriteString(" " + c.name + " |")
	}
	out.WriteString("\n|" + strings.Repeat("---|", len(columns)+1) + "\n")
	for _, size := range s.sizes() {
		at := s.at(size)
		fmt.Fprintf(&out, "| %s |", si(float64(size)))
		for _, c := range columns {
			out.WriteString(" " + number(at.median(ours, c.figure)) + " |")
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	return out.String()
}

// column is a figure in a table of growth; one that a curve has not is left out.
type column struct {
	name   string
	figure func(row) float64
}

func figures() []column {
	return []column{
		{"wall s", wall},
		{"episodes/s", perSecond},
		{"CPU s of the client", clientCPU},
		{"CPU s of the receiver", serverCPU},
		{"MiB of the client", clientMiB},
		{"MiB of the receiver", serverMiB},
		{"start ms", startTime},
		{"PUT ms, median", middle},
		{"PUT ms, 99 %", slow},
		{"foreign cores", foreign},
	}
}
