package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// tables prints the tables of the existing rows, and puts them into the page if they are from a
// full run.
func tables(_ context.Context, o options) error {
	b := book{}
	if err := b.read(o, "peers"); err != nil {
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
	fmt.Fprintf(out, "%s\n%s\n\n", facts(), versions())
	fmt.Fprintf(out, `CPU is user and system time of the process trees. *kernel* is the CPU of kernel threads, such as
writeback, until a last sync ends; *sync* is the length of that. *foreign* is other load of the
machine, in cores. Rows above %g are left out if two others remain, else marked with a *. Ratios are
medians of those within a round. MiB is resident memory of client and server.

`, tooBusy)
	b.targets(out)
	b.legend(out)
	for _, name := range []string{"M", "S", "L"} {
		if s, found := b[name]; found {
			s.way(out, name)
		}
	}
	noted := false
	for _, l := range loads(options{scale: 1}) {
		if s, found := b[l.name]; found {
			if !noted {
				out.WriteString(loadNote)
				noted = true
			}
			s.loadTable(out, l.name)
		}
	}
	if s, found := b["idle"]; found {
		s.head(out, "Idle")
		r := s.Rows[len(s.Rows)-1]
		fmt.Fprintf(out, "Over %.0f s with %d retired episodes, nothing to do: shipper %s ms and receiver %s ms of CPU (median), %.0f and %.0f MiB.\n\n",
			r.Wall, r.Episodes, number(1000*s.median(cis490, clientCPU)), number(1000*s.median(cis490, serverCPU)), s.median(cis490, clientMiB), s.median(cis490, serverMiB))
	}
	if s, found := b["wake-up"]; found {
		s.head(out, "Wake-up")
		all := s.wakes()
		fmt.Fprintf(out, "With `settle` at \"0s\", from `done.marker` of a 40 KiB episode to the retired episode, whose row is durable before: median %s ms, worst %s ms of %d.\n\n",
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

func (s section) head(out *bytes.Buffer, title string) {
	fmt.Fprintf(out, "### %s\n\n%s, commit %s, %d runs in turn, on %s", title, s.When.Format("2006-01-02 15:04 MST"), s.Commit, s.Runs, s.Disk)
	if s.Scale != 1 {
		fmt.Fprintf(out, ", at scale %g: no figures, only a proof that it runs", s.Scale)
	}
	out.WriteString(".\n\n")
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
	out.WriteString("### Systems\n\n| system | what it is | what is durable when it ends |\n|---|---|---|\n")
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
	s.head(out, fmt.Sprintf("%s: %d episodes, %.4g MB each", name, r.Episodes, float64(r.Input)/float64(r.Episodes)/1e6))
	out.WriteString("| system | wall s, median [min-max] | × cis490 | episodes/s | CPU s, client + server | CPU × cis490 | kernel s | MiB | stored MB | sync s | foreign |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, sys := range s.names() {
		rows, spoiled := s.of(sys)
		walls := each(rows, wall)
		fmt.Fprintf(out, "| %s%s | %s [%s-%s] | %s | %s | %s + %s | %s | %s | %.0f / %.0f | %s | %s | %.2f |\n",
			sys, star(spoiled), number(walls.median()), number(slices.Min(walls)), number(slices.Max(walls)),
			number(s.ratio(sys, cis490, wall)), number(float64(r.Episodes)/walls.median()),
			number(s.median(sys, clientCPU)), number(s.median(sys, serverCPU)), number(s.ratio(sys, cis490, row.cpu)), number(s.median(sys, kernelCPU)),
			s.median(sys, clientMiB), s.median(sys, serverMiB), number(s.median(sys, storedBytes)/1e6), number(s.median(sys, syncTime)), s.median(sys, foreign))
	}
	out.WriteString("\n")
}

// loadNote precedes the tables of the receivers alone.
const loadNote = `In the next tables, cis490 checks the sha256 and fsyncs archive and row before it answers; nginx does
neither. *All but the client* is the CPU of the whole machine without the client of the load. It
includes a last sync and foreign load.

`

// loadTable is the table of the receivers alone.
func (s section) loadTable(out *bytes.Buffer, name string) {
	s.head(out, fmt.Sprintf("A receiver alone: %s at once, %d uploads", name, s.Rows[0].Requests))
	out.WriteString("| receiver | requests/s [min-max] | × cis490 | MB/s | server CPU s/GB | server and kernel | all but the client | × cis490 | MiB | p50 / p99 ms | sync s | foreign |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, sys := range s.names() {
		rows, spoiled := s.of(sys)
		rates := each(rows, rate)
		fmt.Fprintf(out, "| %s%s | %s [%s-%s] | %s | %s | %s | %s | %s | %s | %.0f | %s / %s | %s | %.2f |\n",
			sys, star(spoiled), number(rates.median()), number(slices.Min(rates)), number(slices.Max(rates)), number(s.ratio(sys, cis490, rate)),
			number(s.median(sys, throughput)), number(s.median(sys, serverPerGB)), number(s.median(sys, endsPerGB)), number(s.median(sys, allPerGB)),
			number(s.ratio(sys, cis490, allPerGB)), s.median(sys, serverMiB),
			number(s.median(sys, middle)), number(s.median(sys, slow)),
			number(s.median(sys, syncTime)), s.median(sys, foreign))
	}
	out.WriteString("\n")
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
