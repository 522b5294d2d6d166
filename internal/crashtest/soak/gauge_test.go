package soak_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// gauge is what a daemon uses while it is idle.
type gauge struct {
	rss, peak, heap          int64 // bytes; heap is what is in use after a collection
	fds, threads, goroutines int64
}

// measure records a gauge of each daemon.
func (s *site) measure(t *testing.T) {
	if t.Failed() {
		return
	}
	s.gauges["receiver"] = append(s.gauges["receiver"], queryGauge(t, s.Process()))
	for i, h := range s.hosts {
		s.gauges[h.Name] = append(s.gauges[h.Name], queryGauge(t, s.shippers[i]))
	}
}

var gaugeLine = regexp.MustCompile(`(?m)^gauge goroutines=(\d+) heap=(\d+)$`)

func queryGauge(t *testing.T, p *labtest.Process) gauge {
	t.Helper()
	before := len(gaugeLine.FindAllString(p.Output(), -1))
	p.Signal(t, syscall.SIGUSR1)
	var said [][]string
	labtest.Eventually(t, "the gauge is read", func() bool {
		said = gaugeLine.FindAllStringSubmatch(p.Output(), -1)
		return len(said) > before
	})
	last := said[len(said)-1]
	dir := filepath.Join("/proc", strconv.Itoa(p.Pid()))
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	fixture.Must(t, err)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	fixture.Must(t, err)
	return gauge{
		rss: statusOf(t, status, "VmRSS") << 10, peak: statusOf(t, status, "VmHWM") << 10,
		threads: statusOf(t, status, "Threads"), fds: int64(len(fds)),
		goroutines: parseNumber(t, last[1]), heap: parseNumber(t, last[2]),
	}
}

func statusOf(t *testing.T, status []byte, key string) int64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + `:\s*(\d+)`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in %s", key, status)
	}
	return parseNumber(t, string(m[1]))
}

func parseNumber(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	fixture.Must(t, err)
	return n
}

// measure is one number of a gauge, and by how much the second half of a soak may exceed the
// maximum of the first. Rounds differ, but what grows with each upload soon exceeds any such
// bound.
type measure struct {
	name  string
	of    func(g gauge) int64
	slack int64
	unit  int64
}

var measures = []measure{
	{"rss-MiB", func(g gauge) int64 { return g.rss }, 4 << 20, 1 << 20},
	{"heap-KiB", func(g gauge) int64 { return g.heap }, 2 << 20, 1 << 10},
	{"fds", func(g gauge) int64 { return g.fds }, 4, 1},
	// Go keeps each thread that it once needed while others waited for the disk. So their
	// number follows the busiest moment, which other programs of the machine can cause.
	{"threads", func(g gauge) int64 { return g.threads }, 32, 1},
	{"goroutines", func(g gauge) int64 { return g.goroutines }, 4, 1},
}

// medianRounds is how many rounds the second half needs for its median to count. Idle
// connections add a varying amount to what a daemon needs, so with few rounds only the minimum
// is reliable: a leak shows in that too.
const medianRounds = 8

// level returns the level of a half of a soak.
func (m measure) level(half []gauge) int64 {
	if len(half) < medianRounds {
		return m.minOf(half)
	}
	return m.medianOf(half)
}

// minRounds is the minimum number of rounds that can be compared as two halves.
const minRounds = 4

// wantNoGrowth checks that no daemon uses more in the second half than in the first. The first
// round does not count: it has one-time allocations.
func (s *site) wantNoGrowth(t *testing.T) {
	t.Helper()
	for who, all := range s.gauges {
		all = all[1:]
		if len(all) < minRounds {
			return
		}
		first, second := all[:len(all)/2], all[len(all)/2:]
		for _, m := range measures {
			if a, b := m.maxOf(first), m.level(second); b > a+m.slack {
				t.Errorf("%s of %s: at most %d in the first half, %d in the second, want at most %d more", m.name, who, a/m.unit, b/m.unit, m.slack/m.unit)
			}
		}
	}
}

// maxRSS is the maximum resident memory that either daemon may ever have.
const maxRSS = 128 << 20

func (s *site) wantSmallMemory(t *testing.T) {
	t.Helper()
	for who, all := range s.gauges {
		for _, g := range all {
			if g.peak > maxRSS {
				t.Errorf("%s had %d MiB, want at most %d", who, g.peak>>20, maxRSS>>20)
				break
			}
		}
	}
}

func (m measure) sorted(all []gauge) []int64 {
	var values []int64
	for _, g := range all {
		values = append(values, m.of(g))
	}
	slices.Sort(values)
	return values
}

func (m measure) minOf(all []gauge) int64    { return m.sorted(all)[0] }
func (m measure) maxOf(all []gauge) int64    { return m.sorted(all)[len(all)-1] }
func (m measure) medianOf(all []gauge) int64 { return m.sorted(all)[len(all)/2] }

// formatTable returns the minimum and maximum of each daemon.
func (s *site) formatTable() string {
	var b strings.Builder
	for _, who := range slices.Sorted(maps.Keys(s.gauges)) {
		fmt.Fprintf(&b, "  %-8s", who)
		peak := int64(0)
		for _, g := range s.gauges[who] {
			peak = max(peak, g.peak)
		}
		for _, m := range measures {
			fmt.Fprintf(&b, "  %s %d-%d", m.name, m.minOf(s.gauges[who])/m.unit, m.maxOf(s.gauges[who])/m.unit)
		}
		fmt.Fprintf(&b, "  peak %d MiB\n", peak>>20)
	}
	return b.String()
}
