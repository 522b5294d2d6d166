package main

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
)

// printFleet prints the tables of a fleet, and puts them into the page if they are from a full run.
func (b book) printFleet(o options) error {
	var out bytes.Buffer
	b.renderFleet(&out)
	if _, err := os.Stdout.Write(out.Bytes()); err != nil {
		return err
	}
	if !o.full() || o.doc == "" {
		return nil
	}
	return splice(o.doc, "make bench-fleet", out.Bytes())
}

func (b book) renderFleet(out *bytes.Buffer) {
	fmt.Fprintf(out, "%s\n%s\n\n", facts(), b.conditions())
	writeTargets(out, "Targets of several receivers", b.fleetTargets())
	out.WriteString("### Receivers over one object store\n\n")
	b.eachLoad(func(load string, s section) {
		fmt.Fprintf(out, "- %s: %d uploads; %s.\n", load, s.Rows[0].Requests, s.source())
	})
	fmt.Fprintf(out, `
*disk* is one receiver with its own disk. *s3-N* are N receivers over one versitygw on that disk. CPU
is that of receivers+engine+kernel, with a last sync. Requests are those of the engine's log, with
all that receivers do in the background. MiB is the peak of the largest receiver/the engine. Ratios
are medians of those within a round. Rows beside other load above %g cores are left out if two
others remain, else marked *.

| uploads at once | receivers | archives/s [min-max] | × disk | CPU ms per archive | × disk | requests per archive | MiB | ms, p50/p99 | sync s |
|---|---|---|---|---|---|---|---|---|---|
`, tooBusy)
	b.eachLoad(func(load string, s section) { s.fleetRows(out, load) })
	out.WriteString("\n| uploads at once | requests per archive")
	for _, n := range fleetSizes {
		fmt.Fprintf(out, " | %s", overEngine(n))
	}
	out.WriteString(" |\n|---|---|---|---|---|\n")
	b.eachLoad(func(load string, s section) { s.callRows(out, load) })
	out.WriteString("\n")
}

// eachLoad calls do for each load that was measured.
func (b book) eachLoad(do func(load string, s section)) {
	for _, l := range loads(options{scale: 1}) {
		if s, found := b[l.name]; found {
			do(l.name, s)
		}
	}
}

func (s section) fleetRows(out *bytes.Buffer, load string) {
	for _, sys := range s.names() {
		rows, spoiled := s.of(sys)
		rates := each(rows, rate)
		requests, engine := "-", "-"
		if sys != onDisk {
			requests, engine = number(s.median(sys, callsPerArchive)), fmt.Sprintf("%.0f", s.median(sys, engineMiB))
		}
		fmt.Fprintf(out, "| %s | %s%s | %s [%s-%s] | %s | %s+%s+%s | %s | %s | %.0f/%s | %s/%s | %s |\n",
			load, sys, star(spoiled), number(rates.median()), number(slices.Min(rates)), number(slices.Max(rates)), number(s.ratio(sys, onDisk, rate)),
			number(s.median(sys, receiversPerArchive)), number(s.median(sys, enginePerArchive)), number(s.median(sys, kernelPerArchive)),
			number(s.ratio(sys, onDisk, cpuPerArchive)), requests, s.median(sys, serverMiB), engine,
			number(s.median(sys, middle)), number(s.median(sys, slow)), number(s.median(sys, syncTime)))
	}
}

// rareCall is how many requests of a kind per archive are too few for a row of their own.
const rareCall = 0.02

// callRows are the requests of each kind.
func (s section) callRows(out *bytes.Buffer, load string) {
	total := calls{}
	for _, r := range s.Rows {
		for name, n := range r.Calls {
			total[name] += n
		}
	}
	for _, name := range total.most() {
		line, frequent := fmt.Sprintf("| %s | %s", load, name), false
		for _, n := range fleetSizes {
			each := s.median(overEngine(n), func(r row) float64 { return float64(r.Calls[name]) / float64(r.Requests) })
			line += " | " + number(each)
			frequent = frequent || each >= rareCall
		}
		if frequent {
			fmt.Fprintf(out, "%s |\n", line)
		}
	}
}

// maxReceiverMiB is the limit of a receiver over an object store.
const maxReceiverMiB = 64

func (b book) fleetTargets() []target {
	var all []target
	for _, l := range loads(options{scale: 1}) {
		s := b[l.name]
		if l.size < announceFrom {
			all = append(all, target{l.name, "requests per archive ≤ 4", s.worstOver(callsPerArchive), "", 4, false, false})
		}
		all = append(all, target{l.name, fmt.Sprintf("each receiver ≤ %d MiB", maxReceiverMiB), s.worstOver(serverMiB), " MiB", maxReceiverMiB, false, false})
	}
	return all
}

// worstOver returns the highest figure of receivers over an object store, of all rounds.
func (s section) worstOver(figure func(row) float64) float64 {
	worst := math.NaN()
	for _, r := range s.Rows {
		if r.System != onDisk && !(figure(r) <= worst) {
			worst = figure(r)
		}
	}
	return worst
}
