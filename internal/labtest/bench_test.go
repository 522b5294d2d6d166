package labtest_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// workload is a set of episodes of one shape.
type workload struct {
	name     string
	episodes int
	files    int   // per episode, including meta.json and done.marker
	bytes    int64 // an episode
}

var works = []workload{
	{"S", 2000, 8, 40 << 10},
	{"M", 60, 24, 12_000_000},
	{"L", 1, 40, 2 << 30},
}

// BenchmarkShip runs the real programs with their defaults, every sync in
// place, on loopback: one pass of shipper --once over all episodes.
func BenchmarkShip(b *testing.B) {
	for _, w := range works {
		b.Run(w.name, func(b *testing.B) {
			l := labtest.New(b)
			h := l.Host("lab-01")
			bypassProxy(l, h)
			n := 0
			for b.Loop() {
				b.StopTimer()
				for i := range w.episodes {
					w.writeEpisode(b, h.Episodes(fmt.Sprintf("run-%d-%05d", n, i)), uint64(i))
				}
				n++
				before := cpuOf(b, l.Process().Pid())
				b.StartTimer()
				pass := h.Once()
				b.StopTimer()
				pass.Must(b, 0, labtest.Tally{Scanned: w.episodes, Shipped: w.episodes})
				usage := pass.State.SysUsage().(*syscall.Rusage)
				b.ReportMetric(float64(usage.Maxrss)/1024, "shipper-MiB")
				b.ReportMetric(peakOf(b, l.Process().Pid()), "receiver-MiB")
				b.ReportMetric((pass.State.SystemTime() + pass.State.UserTime()).Seconds(), "shipper-cpu-s")
				b.ReportMetric((cpuOf(b, l.Process().Pid()) - before).Seconds(), "receiver-cpu-s")
				os.RemoveAll(h.Shipped()) // of no interest any more
				b.StartTimer()
			}
			perPass := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(float64(w.episodes)/perPass, "episodes/s")
			b.ReportMetric(float64(w.episodes)*float64(w.bytes)/1e6/perPass, "MB/s")
		})
	}
}

// BenchmarkBacklog packs LAB_BACKLOG tiny episodes (20,000 by default) during an outage of the
// receiver.
func BenchmarkBacklog(b *testing.B) {
	episodes := 20_000
	if s := os.Getenv("LAB_BACKLOG"); s != "" {
		n, err := strconv.Atoi(s)
		fixture.Must(b, err)
		episodes = n
	}
	l := labtest.New(b)
	h := l.Host("lab-01")
	l.Stop()
	for i := range episodes {
		workload{files: 2}.writeEpisode(b, h.Episodes(fmt.Sprintf("run-%06d", i)), uint64(i))
	}
	for b.Loop() {
		pass := h.Once()
		pass.Must(b, 4, labtest.Tally{Scanned: episodes, Transient: episodes})
		b.ReportMetric(float64(pass.State.SysUsage().(*syscall.Rusage).Maxrss)/1024, "shipper-MiB")
		b.ReportMetric((pass.State.SystemTime() + pass.State.UserTime()).Seconds(), "shipper-cpu-s")
	}
}

// BenchmarkWakeUp measures the time from the marker to the retired episode, whose row is
// durable by then.
func BenchmarkWakeUp(b *testing.B) {
	l := labtest.New(b)
	h := l.Host("lab-01")
	bypassProxy(l, h)
	h.Daemon()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		name := fmt.Sprintf("run-%05d", n)
		works[0].writeEpisode(b, h.Episodes("."+name), uint64(n))
		b.StartTimer()
		fixture.Must(b, os.Rename(h.Episodes("."+name), h.Episodes(name)))
		for !h.IsShipped(name) {
			time.Sleep(200 * time.Microsecond) // what the benchmark adds
		}
	}
}

// bypassProxy lets a host reach the receiver without the test's proxy.
func bypassProxy(l *labtest.Lab, h *labtest.Host) {
	addr := regexp.MustCompile(`listen=(\S+)`).FindStringSubmatch(l.Process().Output())
	h.Set("receiver.url", strconv.Quote("https://"+addr[1]))
}

// writeEpisode makes an episode: 70 % JSONL telemetry, 20 % CSV, 10 % noise, the same
// bytes for the same seed.
func (w workload) writeEpisode(b *testing.B, dir string, seed uint64) {
	b.Helper()
	r := rand.New(rand.NewPCG(490, seed))
	fixture.Must(b, os.MkdirAll(dir, 0o755))
	file := func(name string, size int64, line func(buf []byte) []byte) {
		f, err := os.Create(filepath.Join(dir, name))
		fixture.Must(b, err)
		to := bufio.NewWriterSize(f, 256<<10)
		for buf := []byte(nil); size > 0; size -= int64(len(buf)) {
			buf = line(buf[:0])
			buf = buf[:min(int64(len(buf)), size)]
			to.Write(buf)
		}
		fixture.Must(b, to.Flush())
		fixture.Must(b, f.Close())
	}
	meta := fmt.Sprintf(`{"code_version":{"commit":"%040x"}}`, seed)
	file("meta.json", int64(len(meta)), func([]byte) []byte { return []byte(meta) })
	n := int64(w.files - 2)
	noise, tables := max(1, n/10), max(1, n/4)
	for i := range n {
		switch {
		case i < noise:
			file(fmt.Sprintf("capture-%02d.bin", i), w.bytes/10/noise, func(buf []byte) []byte {
				for range 64 {
					buf = strconv.AppendUint(buf, r.Uint64(), 36)
				}
				return buf
			})
		case i < noise+tables:
			file(fmt.Sprintf("metrics-%02d.csv", i), w.bytes/5/tables, func(buf []byte) []byte {
				return fmt.Appendf(buf, "%d,%.3f,%d,%d\n", 1_790_000_000+i, r.NormFloat64()*40, r.IntN(1<<16), r.IntN(90_000))
			})
		default:
			file(fmt.Sprintf("events-%02d.jsonl", i), w.bytes*7/10/(n-noise-tables), func(buf []byte) []byte {
				return fmt.Appendf(buf, `{"t":%d,"pid":%d,"image":"sample-%d.exe","call":%q,"ret":%d,"us":%d}`+"\n",
					1_790_000_000_000+r.IntN(1<<22), 4*r.IntN(2000), r.IntN(9), calls[r.IntN(len(calls))], r.IntN(3), r.IntN(5000))
			})
		}
	}
	file("done.marker", 0, nil)
}

var calls = []string{"NtOpenFile", "NtReadFile", "NtWriteVirtualMemory", "connect", "recvfrom", "mmap", "RegSetValueExW", "CreateRemoteThread"}

// peakOf returns the peak resident memory of a process, in MiB.
func peakOf(b testing.TB, pid int) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	fixture.Must(b, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	fixture.Must(b, err)
	return kb / 1024
}

// cpuOf returns the processor time that a process has used.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fixture.Must(b, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	ticks := 0
	for _, f := range fields[11:13] { // utime and stime
		n, err := strconv.Atoi(f)
		fixture.Must(b, err)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100)
}
