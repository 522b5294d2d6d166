package main

import (
	"bytes"
	"fmt"
	"math"
	"slices"
)

// target is a promise and its measurement.
type target struct {
	work     string
	what     string
	measured float64
	unit     string
	limit    float64
	atLeast  bool // the limit is a floor
	stretch  bool // met would be better than promised
}

func (t target) met() bool {
	if t.atLeast {
		return t.measured >= t.limit
	}
	return t.measured <= t.limit
}

// targets writes the table of the targets that were measured.
func (b book) targets(out *bytes.Buffer) {
	writeTargets(out, "Targets", slices.Concat(b.wayTargets(), b.loadTargets(), b.idleTargets()))
}

func writeTargets(out *bytes.Buffer, heading string, all []target) {
	fmt.Fprintf(out, "### %s\n\n| work | target | measured | met |\n|---|---|---|---|\n", heading)
	for _, t := range all {
		if math.IsNaN(t.measured) {
			continue
		}
		verdict := "yes"
		switch {
		case t.met():
		case t.stretch:
			verdict = "no (stretch)"
		default:
			verdict = "**no**"
		}
		fmt.Fprintf(out, "| %s | %s | %s%s | %s |\n", t.work, t.what, number(t.measured), t.unit, verdict)
	}
	out.WriteString("\n")
}

func (b book) wayTargets() []target {
	m, s, l := b["M"], b["S"], b["L"]
	fastest, cheapest := m.best(wall, func(system) bool { return true }), m.best(row.cpu, func(s system) bool { return s.archives })
	return []target{
		{"M", fmt.Sprintf("wall ≤ 0.75 × %s's, the best peer's", fastest), m.ratio(cis490, fastest, wall), "", 0.75, false, false},
		{"M", "stored bytes ≤ 1.02 × `zstd -3`'s", m.ratio(cis490, "shell", storedBytes), "", 1.02, false, false},
		{"M", fmt.Sprintf("CPU of both ends ≤ 0.8 × %s's, the best with archives", cheapest), m.ratio(cis490, cheapest, row.cpu), "", 0.8, false, false},
		{"S", "wall ≤ 0.5 × shell-batch's", s.ratio(cis490, "shell-batch", wall), "", 0.5, false, false},
		{"S", "episodes/s > rsync's", s.ratio("rsync", cis490, wall), " times", 1, true, false},
		{"S", "episodes/s > restic's", s.ratio("restic", cis490, wall), " times", 1, true, true},
		{"S", "episodes/s ≥ 3 × rsync-fsync's", s.ratio("rsync-fsync", cis490, wall), " times", 3, true, false},
		{"L", "wall ≤ shell's", l.ratio(cis490, "shell", wall), "", 1, false, false},
		{"L", "wall ≤ 0.8 × shell's", l.ratio(cis490, "shell", wall), "", 0.8, false, true},
		{"L", "shipper ≤ 96 MiB", l.worst(clientMiB), " MiB", 96, false, false},
		{"L", "receiver ≤ 48 MiB", l.worst(serverMiB), " MiB", 48, false, false},
	}
}

func (b book) loadTargets() []target {
	shapes := loads(options{scale: 1})
	bulk := b[shapes[0].name]
	all := []target{
		{shapes[0].name, "CPU of all but the client ≤ 1.6 × nginx's (other load draws it to 1)", bulk.ratio(cis490, "nginx", allPerGB), "", 1.6, false, false},
		{shapes[0].name, "CPU of server and kernel ≤ 1.6 × nginx's", bulk.ratio(cis490, "nginx", endsPerGB), "", 1.6, false, false},
		{shapes[0].name, "≤ 32 MiB", bulk.worst(serverMiB), " MiB", 32, false, false},
	}
	for _, shape := range shapes[1:] {
		all = append(all, target{shape.name, "requests/s ≥ nginx's", b[shape.name].ratio(cis490, "nginx", rate), " times", 1, true, false})
	}
	return all
}

// unmeasurable is the CPU use of both daemons, as a share of one core, that counts as zero: a
// timer that fires a few times per minute.
const unmeasurable = 0.0005

func (b book) idleTargets() []target {
	idle, wakes := b["idle"], b["wake-up"].wakes()
	share := idle.median(cis490, func(r row) float64 { return r.cpu() / r.Wall })
	return []target{
		{"idle", "CPU ≤ 0.05 % of a core", share * 100, " %", unmeasurable * 100, false, false},
		{"wake-up", "median ≤ 50 ms from marker to durable row", wakes.median(), " ms", 50, false, false},
		{"wake-up", "worst ≤ 50 ms", wakes.quantile(1), " ms", 50, false, true},
	}
}

// best returns the peer, of those that count, compared with which cis490 looks worst.
func (s section) best(figure func(row) float64, counts func(system) bool) string {
	worst, name := 0.0, ""
	for _, sys := range systems() {
		if q := s.ratio(cis490, sys.name, figure); sys.name != cis490 && counts(sys) && q > worst {
			worst, name = q, sys.name
		}
	}
	return name
}

// worst returns the highest figure of cis490: a bound of memory holds for every run, and
// foreign load does not excuse it.
func (s section) worst(figure func(row) float64) float64 {
	worst := math.NaN()
	for _, r := range s.Rows {
		if r.System == cis490 && !(figure(r) <= worst) {
			worst = figure(r)
		}
	}
	return worst
}
