package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// work is a set of episodes of one shape.
type work struct {
	name     string
	episodes int
	files    int   // an episode, meta.json and done.marker among them
	bytes    int64 // an episode
}

// shaped returns the works of the issue, at the scale that was asked for: fewer
// episodes, and a smaller one where there is but one.
func shaped(o options) []work {
	return []work{
		{"M", o.times(60, 2), 24, 12_000_000},
		{"S", o.times(2000, 20), 8, 40 << 10},
		{"L", 1, 40, int64(float64(2<<30) * o.scale)},
	}
}

// folder is where it is kept; one of another scale is another one.
func (w work) folder() string { return fmt.Sprintf("%s-%dx%d", w.name, w.episodes, w.bytes) }

func (w work) id(i int) string { return fmt.Sprintf("ep-%s-%05d", w.name, i) }

// input is what the episodes hold, in bytes.
func (w work) input() int64 { return int64(w.episodes) * w.bytes }

// generate fills a folder with the episodes, unless it has them already: the
// bytes depend on the shape and the number of an episode alone.
func (w work) generate(dir string) error {
	stamp, want := filepath.Join(dir, ".made"), fmt.Sprintf("%+v", w)
	if have, err := os.ReadFile(stamp); err == nil && string(have) == want {
		return nil
	}
	say("generating %s: %d episodes of %d bytes", w.name, w.episodes, w.bytes)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for i := range w.episodes {
		if err := w.episode(filepath.Join(dir, w.id(i)), i); err != nil {
			return err
		}
	}
	return os.WriteFile(stamp, []byte(want), 0o644)
}

// episode makes one: 70 % JSONL telemetry, 20 % CSV, 10 % noise, as much in
// each file of a kind.
func (w work) episode(dir string, i int) error {
	if err := w.draft(dir, i); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "done.marker"), nil, 0o644)
}

// draft makes an episode that has no marker yet.
func (w work) draft(dir string, i int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := &recording{r: rand.New(rand.NewPCG(490, uint64(i))), ts: 1_777_000_000_000_000 + int64(i)*600_000_000}
	meta := fmt.Appendf(nil, `{"schema_version":1,"episode_id":%q,"vm":"win10-%02d","sample_sha256":"%016x%016x","code_version":{"commit":"%040x"}}`+"\n",
		w.id(i), i%4, r.r.Uint64(), r.r.Uint64(), r.r.Uint64())
	if err := os.WriteFile(filepath.Join(dir, "meta.json"), meta, 0o644); err != nil {
		return err
	}
	n := w.files - 2 // meta.json and done.marker are the other two
	if n <= 0 {
		return nil
	}
	noise, tables := max(1, n/10), max(1, n/4)
	for _, kind := range []struct {
		name  string
		files int
		bytes int64
		next  func() []byte
	}{
		{"telemetry-%03d.jsonl", n - noise - tables, w.bytes * 70 / 100, r.call},
		{"metrics-%03d.csv", tables, w.bytes * 20 / 100, r.metrics},
		{"blob-%03d.bin", noise, w.bytes * 10 / 100, r.noise},
	} {
		for j := range kind.files {
			if err := fill(filepath.Join(dir, fmt.Sprintf(kind.name, j)), kind.bytes/int64(kind.files), kind.next); err != nil {
				return err
			}
		}
	}
	return nil
}

func fill(path string, size int64, next func() []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	to := bufio.NewWriterSize(f, 1<<20)
	for size > 0 {
		b := next()
		b = b[:min(int64(len(b)), size)]
		if _, err := to.Write(b); err != nil {
			return err
		}
		size -= int64(len(b))
	}
	if err := to.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// recording draws the lines of an episode.
type recording struct {
	r   *rand.Rand
	ts  int64
	buf []byte
}

func (e *recording) call() []byte {
	r := e.r
	e.ts += int64(r.ExpFloat64() * 40_000)
	e.buf = fmt.Appendf(e.buf[:0], `{"ts":%d.%06d,"vm":"win10-%02d","pid":%d,"tid":%d,"proc":"%s","call":"%s","path":"%s%06x.dat","ret":"0x%08x","dur_us":%d}`+"\n",
		e.ts/1e6, e.ts%1e6, r.IntN(4), 400+4*r.IntN(300), 1000+4*r.IntN(2000),
		pick(r, "svchost.exe", "explorer.exe", "lsass.exe", "powershell.exe", "cmd.exe", "rundll32.exe", "sample.bin",
			"python3", "systemd", "sshd", "kworker/0:1", "chrome.exe", "regsvr32.exe", "wscript.exe"),
		pick(r, "NtCreateFile", "NtOpenKey", "NtQueryValueKey", "NtAllocateVirtualMemory", "NtWriteFile", "NtReadFile",
			"NtClose", "openat", "read", "write", "mmap", "connect", "sendto", "recvfrom", "futex", "epoll_wait"),
		pick(r, `C:\\Windows\\System32\\`, `C:\\Users\\lab\\AppData\\Local\\Temp\\`, "/usr/lib/x86_64-linux-gnu/", "/proc/self/", "/tmp/"),
		r.IntN(1<<12), []uint32{0, 0, 0, 0, 0xc0000034, 0xc0000022, 1}[r.IntN(7)], int(r.ExpFloat64()*120))
	return e.buf
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

func (e *recording) metrics() []byte {
	r := e.r
	e.ts += 100_000
	e.buf = fmt.Appendf(e.buf[:0], "%d.%03d,%.2f,%.2f,%d,%d,%d,%d,%d\n", e.ts/1e6, e.ts%1e6/1e3,
		r.Float64()*100, 20+r.NormFloat64()*4, 812_000+r.IntN(4000), 1_200_000+r.IntN(90_000), r.IntN(200), r.IntN(50), 4096*r.IntN(64))
	return e.buf
}

func (e *recording) noise() []byte {
	e.buf = e.buf[:0]
	for range 512 {
		e.buf = binary.LittleEndian.AppendUint64(e.buf, e.r.Uint64())
	}
	return e.buf
}
