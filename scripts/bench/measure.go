package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of time in /proc.
const tick = time.Second / 100

// machine is what the processors have done so far.
type machine struct {
	at     time.Time
	busy   time.Duration         // all of them, the hypervisor's share too
	self   time.Duration         // this program
	kernel map[int]time.Duration // kernel threads by pid: the writeback that a process left behind is theirs
}

func look() machine {
	m := machine{at: time.Now(), self: own(), kernel: map[int]time.Duration{}}
	line, _, _ := strings.Cut(slurp("/proc/stat"), "\n")
	for i, f := range strings.Fields(line) {
		// user nice system idle iowait irq softirq steal; the guests are in user.
		if n, err := strconv.Atoi(f); err == nil && i <= 8 && i != 4 && i != 5 {
			m.busy += time.Duration(n) * tick
		}
	}
	for _, pid := range children(2) { // kthreadd; none in a container, and then it counts as foreign
		m.kernel[pid] = ticks(pid, false)
	}
	return m
}

// kernelSince returns what the kernel's threads have done since before.
func (m machine) kernelSince(before machine) time.Duration {
	var sum time.Duration
	for pid, cpu := range m.kernel {
		sum += max(0, cpu-before.kernel[pid])
	}
	return sum
}

// foreignCores returns how many cores were busy since before with what is neither this program, nor
// the kernel's threads, nor ours.
func (m machine) foreignCores(before machine, ours time.Duration) float64 {
	foreign := m.busy - before.busy - ours - (m.self - before.self) - m.kernelSince(before)
	return max(0, foreign.Seconds()/m.at.Sub(before.at).Seconds())
}

// quiet warns of a machine that is not: such figures are not worth their time.
func quiet() {
	before := look()
	time.Sleep(time.Second)
	after := look()
	if cores := (after.busy - before.busy - (after.self - before.self)).Seconds(); cores > 0.1 {
		say("the machine is busy already, with %.1f cores: the figures will tell of that", cores)
	}
}

// own returns the processor time of this program, its children not counted.
func own() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it cannot fail
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// treeCPU returns the processor time of a process, of those below it, and of
// those that they have waited for.
func treeCPU(root int) time.Duration {
	var sum time.Duration
	for _, pid := range tree(root) {
		sum += precise(pid) + ticks(pid, true)
	}
	return sum
}

// precise returns the time of one process to the nanosecond, all its threads
// together: /proc counts in hundredths of a second, too coarse for an idle one.
func precise(pid int) time.Duration {
	var t unix.Timespec
	const sched = 2                                 // CPUCLOCK_SCHED of the kernel's clock ids
	_ = unix.ClockGettime(int32(^pid<<3|sched), &t) // zero if it has ended
	return time.Duration(t.Nano())
}

// ticks returns utime and stime of a process, or those of the children that it
// has waited for.
func ticks(pid int, waited bool) time.Duration {
	_, rest, _ := strings.Cut(slurp(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0
	}
	from := 11
	if waited {
		from = 13
	}
	user, _ := strconv.Atoi(fields[from])
	system, _ := strconv.Atoi(fields[from+1])
	return time.Duration(user+system) * tick
}

// tree returns a process and all below it.
func tree(root int) []int {
	pids := []int{root}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children(pids[i])...)
	}
	return pids
}

// children are listed by the thread that made them. Reading all of /proc
// instead would cost a twentieth of a core at our pace.
func children(pid int) []int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range tasks {
		for f := range strings.FieldsSeq(slurp(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// resident returns the memory of a process and those below it, in KiB. One
// process has its own peak. Of several the shares are added up (PSS), so that
// what nginx's workers have in common is counted once.
//
// The Maxrss of a finished child would be simpler and wrong: it is at least
// what this program had resident when it started the child.
func resident(root int) int {
	pids := tree(root)
	if len(pids) == 1 {
		return field(fmt.Sprintf("/proc/%d/status", root), "VmHWM:")
	}
	sum := 0
	for _, pid := range pids {
		sum += field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
	}
	return sum
}

// field returns a number of KiB in a file of /proc, or 0.
func field(path, name string) int {
	_, rest, _ := strings.Cut(slurp(path), name)
	number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, _ := strconv.Atoi(number)
	return n
}

// slurp returns a file of /proc, or "": a process may end at any moment.
func slurp(path string) string {
	b, _ := os.ReadFile(path)
	return string(bytes.TrimRight(b, "\x00"))
}

// peaks follows the memory of process trees.
type peaks struct {
	roots []int
	stop  context.CancelFunc
	done  sync.WaitGroup
	kib   []int // of the goroutine, until done
}

// slowest is the pace of the looks at a long run. A short one is looked at more
// often, or it would be over unseen.
const slowest = 50 * time.Millisecond

// watch begins to look at the memory of the trees below the roots.
func watch(roots ...int) *peaks {
	ctx, stop := context.WithCancel(context.Background())
	p := &peaks{roots: roots, stop: stop, kib: make([]int, len(roots))}
	p.done.Go(func() {
		for pace := time.Millisecond; ctx.Err() == nil; pace = min(2*pace, slowest) {
			p.look()
			select {
			case <-ctx.Done():
			case <-time.After(pace):
			}
		}
	})
	return p
}

func (p *peaks) look() {
	for i, root := range p.roots {
		p.kib[i] = max(p.kib[i], resident(root))
	}
}

// end returns the peaks in MiB, in the order of the roots.
func (p *peaks) end() []float64 {
	p.stop()
	p.done.Wait()
	p.look() // a server that still runs knows its peak better than we
	mib := make([]float64, len(p.kib))
	for i, kib := range p.kib {
		mib[i] = float64(kib) / 1024
	}
	return mib
}
