package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
)

// tables prints the tables of the existing rows, and puts them into the page if they are from a
// full run.
func tables(_ context.Context, o options) error {
	b, err := readBook(o, "peers")
	if err != nil {
		return err
	}
	var out bytes.Buffer
	b.render(&out)
	if _, err := os.Stdout.Write(out.Bytes()); err != nil {
		return err
	}
	if !o.full() || o.doc == "" {
		return nil
	}
	return splice(o.doc, "make bench-peers", out.Bytes())
}

// splice replaces the text between two marks of a page. The text around them is written by
// hand.
func splice(page, command string, generated []byte) error {
	begin, end := "<!-- begin: "+command+" -->\n", "<!-- end -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, found := bytes.Cut(text, []byte(begin))
	_, foot, closed := bytes.Cut(rest, []byte(end))
	if !found || !closed {
		return fmt.Errorf("%s has not the lines %s and %s: put them where the tables shall stand", page, strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return os.WriteFile(page, slices.Concat(head, []byte(begin), bytes.TrimSpace(generated), []byte("\n"), []byte(end), foot), 0o644)
}

func (b book) render(out *bytes.Buffer) {
	fmt.Fprintf(out, "%s\n%s\n%s\n\n", facts(), versions(), b.conditions())
	fmt.Fprintf(out, `CPU is user and system time of client+server+kernel. *kernel* are threads such as writeback, until a
last sync ends, which takes *sync*. MiB is peak resident memory of client/server; of several
processes the sum of their shares (PSS). Ratios are medians of those within a round. Rows beside
other load above %g cores are left out if two others remain, else marked *.

`, tooBusy)
	b.targets(out)
	b.legend(out)
	for _, name := range []string{"M", "S", "L"} {
		if s, found := b[name]; found {
			s.way(out, name)
		}
	}
	b.loadTable(out)
	if s, found := b["idle"]; found {
		fmt.Fprintf(out, "### Idle\n\n%s.\n\n", s.source())
		r := s.Rows[len(s.Rows)-1]
		fmt.Fprintf(out, "CPU over %.0f s with %d retired episodes and nothing to do: shipper %s ms, receiver %s ms; %.0f and %.0f MiB.\n\n",
			r.Wall, r.Episodes, number(1000*s.median(cis490, clientCPU)), number(1000*s.median(cis490, serverCPU)), s.median(cis490, clientMiB), s.median(cis490, serverMiB))
	}
	if s, found := b["wake-up"]; found {
		fmt.Fprintf(out, "### Wake-up\n\n%s.\n\n", s.source())
		all := s.wakes()
		fmt.Fprintf(out, "From `done.marker` of a 40 KiB episode to the retired episode, whose row is durable before: median %s ms, worst %s ms of %d.\n\n",
			number(all.median()), number(all.quantile(1)), len(all))
	}
}

// wakes returns the wake-ups of all rounds.
func (s section) wakes() samples {
	rows, _ := s.of(cis490)
	var all samples
	for _, r := range rows {
		all = append(all, r.Values...)
	}
	return all
}

// source describes when and from what a section was measured.
func (s section) source() string {
	text := fmt.Sprintf("%s, commit %s, %d runs", s.When.Format("2006-01-02"), s.Commit, s.Runs)
	if s.Scale != 1 {
		text += fmt.Sprintf(", at scale %g: no figures, only a proof that it runs", s.Scale)
	}
	return text
}

// conditions says what the sections ran on, and beside how much other load.
func (b book) conditions() string {
	var disks []string
	busiest := 0.0
	for _, name := range slices.Sorted(maps.Keys(b)) {
		s := b[name]
		if !slices.Contains(disks, s.Disk) {
			disks = append(disks, s.Disk)
		}
		if name == "idle" || name == "wake-up" { // their CPU is that of two processes
			continue
		}
		for _, size := range s.sizes() {
			for _, sys := range s.names() {
				busiest = max(busiest, s.at(size).median(sys, foreign))
			}
		}
	}
	return fmt.Sprintf("On %s; other load at most %.2f cores.", strings.Join(disks, " or "), busiest)
}

// legend describes each system that the tables of M, S and L name.
func (b book) legend(out *bytes.Buffer) {
	named := map[string]bool{}
	for _, work := range []string{"M", "S", "L"} {
		for _, name := range b[work].names() {
			named[name] = true
		}
	}
	if len(named) == 0 {
		return
	}
	out.WriteString("### Systems\n\n| system | what it is | durable at its end |\n|---|---|---|\n")
	for _, sys := range append(systems(), diskAlone(), settledCis490()) {
		if named[sys.name] {
			fmt.Fprintf(out, "| %s | %s | %s |\n", sys.name, sys.title, sys.keeps)
		}
	}
	out.WriteString("\n")
}

// way is the table of the whole path, host to server.
func (s section) way(out *bytes.Buffer, name string) {
	r := s.Rows[0]
	fmt.Fprintf(out, "### %s: %d episodes, %.4g MB each\n\n%s.\n\n", name, r.Episodes, float64(r.Input)/float64(r.Episodes)/1e6, s.source())
	out.WriteString("| system | wall s [min-max] | × cis490 | CPU s | MiB | stored MB | sync s |\n|---|---|---|---|---|---|---|\n")
	for _, sys := range s.names() {
		rows, spoiled := s.of(sys)
		walls := each(rows, wall)
		fmt.Fprintf(out, "| %s%s | %s [%s-%s] | %s | %s+%s+%s | %.0f/%.0f | %s | %s |\n",
			sys, star(spoiled), number(walls.median()), number(slices.Min(walls)), number(slices.Max(walls)), number(s.ratio(sys, cis490, wall)),
			number(s.median(sys, clientCPU)), number(s.median(sys, serverCPU)), number(s.median(sys, kernelCPU)),
			s.median(sys, clientMiB), s.median(sys, serverMiB), number(s.median(sys, storedBytes)/1e6), number(s.median(sys, syncTime)))
	}
	out.WriteString("\n")
}

// loadTable is the table of the receivers alone.
func (b book) loadTable(out *bytes.Buffer) {
	var sources, rows bytes.Buffer
	for _, l := range loads(options{scale: 1}) {
		if s, found := b[l.name]; found {
			fmt.Fprintf(&sources, "- %s: %d uploads; %s.\n", l.name, s.Rows[0].Requests, s.source())
			s.loadRows(&rows, l.name)
		}
	}
	if rows.Len() == 0 {
		return
	}
	fmt.Fprintf(out, `### A receiver alone

%s
cis490 checks the sha256 and fsyncs archive and row before it answers; nginx does neither. CPU is
that of the server / with the kernel's threads / of the whole machine without the client, a last
sync and other load included.

| uploads at once | receiver | requests/s [min-max] | × cis490 | CPU s/GB | MiB | ms, p50/p99 | sync s |
|---|---|---|---|---|---|---|---|
%s
`, sources.String(), rows.String())
}

func (s section) loadRows(out *bytes.Buffer, load string) {
	for _, sys := range s.names() {
		rows, spoiled := s.of(sys)
		rates := each(rows, rate)
		fmt.Fprintf(out, "| %s | %s%s | %s [%s-%s] | %s | %s/%s/%s | %.0f | %s/%s | %s |\n",
			load, sys, star(spoiled), number(rates.median()), number(slices.Min(rates)), number(slices.Max(rates)), number(s.ratio(sys, cis490, rate)),
			number(s.median(sys, serverPerGB)), number(s.median(sys, endsPerGB)), number(s.median(sys, allPerGB)),
			s.median(sys, serverMiB), number(s.median(sys, middle)), number(s.median(sys, slow)), number(s.median(sys, syncTime)))
	}
}

func star(spoiled bool) string {
	if spoiled {
		return "*"
	}
	return ""
}

// number formats three digits, as many as a noisy figure deserves.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
