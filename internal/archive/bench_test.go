package archive_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"cis490/internal/archive"
	"cis490/internal/fixture"
)

// writeRecording fills an episode with size bytes: telemetry, metrics, and a blob that does not
// compress.
func writeRecording(l *lab, files int, size int) {
	r := rand.New(rand.NewPCG(490, 1))
	calls := []string{"NtCreateFile", "NtOpenKey", "NtReadFile", "NtClose", "openat", "mmap", "connect", "futex"}
	procs := []string{"svchost.exe", "explorer.exe", "lsass.exe", "sample.bin", "rundll32.exe", "sshd"}
	line := func(b []byte, ts int) []byte {
		return fmt.Appendf(b, `{"ts":%d.%06d,"vm":"win10-%02d","pid":%d,"proc":%q,"call":%q,"path":"C:\\Windows\\System32\\%06x.dat","ret":"0x%08x","dur_us":%d}`+"\n",
			ts/1000, r.IntN(1e6), r.IntN(4), 400+4*r.IntN(300), procs[r.IntN(len(procs))], calls[r.IntN(len(calls))], r.IntN(1<<12), r.IntN(3), int(r.ExpFloat64()*120))
	}
	row := func(b []byte, ts int) []byte {
		return fmt.Appendf(b, "%d.%03d,%.2f,%.2f,%d,%d\n", ts, r.IntN(1000), r.Float64()*100, 20+r.NormFloat64()*4, 812_000+r.IntN(4000), 4096*r.IntN(64))
	}
	l.write("meta.json", `{"schema_version":1}`)
	l.write("done.marker", "")
	n := files - 3
	for i := range n {
		var b []byte
		next, share := line, size*7/10/max(1, n*3/4)
		if i%4 == 3 {
			next, share = row, size*2/10/max(1, n/4)
		}
		for ts := 1_777_000_000; len(b) < share; ts += 7 {
			b = next(b, ts)
		}
		l.write(fmt.Sprintf("stream-%03d", i), string(b))
	}
	l.writeNoise("blob.bin", size/10)
}

// BenchmarkLevels measures what the choice of level and window is based on: MB of tar per
// second, the compression ratio, MiB allocated at the start.
func BenchmarkLevels(b *testing.B) {
	l := newLab(b)
	writeRecording(l, 24, 48<<20)
	for lv, level := range []string{1: "fastest", "default", "better"} {
		for _, window := range []int{1 << 20, 2 << 20, 4 << 20, 8 << 20} {
			if level != "" {
				b.Run(fmt.Sprintf("%s/window=%dMiB", level, window>>20), func(b *testing.B) {
					l.TB = b
					packAll(b, l, archive.NewPackerAt(lv, window))
				})
			}
		}
	}
}

func packAll(b *testing.B, l *lab, p *archive.Packer) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpuTime(b)
	var out countingWriter
	var s archive.Survey
	for b.Loop() {
		tree, err := l.open(archive.Limits{})
		fixture.Must(l, err)
		s, err = tree.Survey(b.Context())
		fixture.Must(l, err)
		out = 0
		fixture.Must(l, p.Pack(b.Context(), &out, tree, s))
		fixture.Must(l, tree.Close())
	}
	runtime.ReadMemStats(&after)
	reportPerCPU(b, began, s)
	b.ReportMetric(float64(s.Size)/float64(out), "ratio")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/(1<<20), "MiB/op")
}

// cpuTime returns the processor time of this process and its children: on a shared machine the
// wall clock means little.
func cpuTime(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		fixture.Must(b, syscall.Getrusage(who, &u))
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum
}

func reportPerCPU(b *testing.B, began time.Duration, s archive.Survey) {
	b.SetBytes(s.Size)
	spent := cpuTime(b) - began
	b.ReportMetric(float64(s.Size)*float64(b.N)/1e6/spent.Seconds(), "MB/cpu-s")
}

type countingWriter int64

func (c *countingWriter) Write(p []byte) (int, error) {
	*c += countingWriter(len(p))
	return len(p), nil
}

// BenchmarkSystemTools is `tar | zstd -3` on the same tree.
func BenchmarkSystemTools(b *testing.B) {
	l := newLab(b)
	writeRecording(l, 24, 48<<20)
	for _, level := range []string{"-1", "-3"} {
		b.Run("zstd"+level, func(b *testing.B) {
			began := cpuTime(b)
			var out countingWriter
			for b.Loop() {
				cmd := exec.Command("sh", "-c", `tar -c --format=posix -C "$1" ep-1 | zstd -q "$2" -T1`, "sh", l.parent, level)
				cmd.Stdout = &out
				out = 0
				if err := cmd.Run(); err != nil {
					b.Skip(err)
				}
			}
			s, err := l.survey()
			fixture.Must(l, err)
			reportPerCPU(b, began, s)
			b.ReportMetric(float64(s.Size)/float64(out), "ratio")
		})
	}
}

// BenchmarkSmallEpisode is one of 8 files and 40 KiB: survey and pack, as the
// shipper does.
func BenchmarkSmallEpisode(b *testing.B) {
	l := newLab(b)
	writeRecording(l, 8, 40<<10)
	b.ReportAllocs()
	packAll(b, l, archive.NewPacker())
}

// BenchmarkReadMeta and BenchmarkVerify measure the receiver's part.
func BenchmarkReadMeta(b *testing.B) {
	for _, size := range []int{40 << 10, 48 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			l := newLab(b)
			writeRecording(l, 24, size)
			packed, _ := l.pack()
			b.ReportAllocs()
			var meta archive.MetaReader
			for b.Loop() {
				if _, err := meta.Read(bytes.NewReader(packed), name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	l := newLab(b)
	writeRecording(l, 24, 48<<20)
	packed, s := l.pack()
	b.SetBytes(s.Size)
	for b.Loop() {
		fixture.Must(b, archive.Verify(bytes.NewReader(packed)))
	}
}
