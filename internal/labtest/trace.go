package labtest

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// Trace records a program's system calls in order, with strace.
type Trace struct{ path string }

// tracedCalls are the calls that affect what is on disk at which time.
const tracedCalls = "openat,write,pwrite64,writev,sendto,sendmsg,splice,sendfile,copy_file_range,ftruncate,fsync,fdatasync," +
	"rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,setxattr,fsetxattr,connect"

// NewTrace returns a trace, or skips the test if there is no strace. With CI set
// in the environment that is a failure.
func NewTrace(t testing.TB) *Trace {
	t.Helper()
	fixture.RequireTool(t, "strace")
	return &Trace{path: t.TempDir() + "/trace"}
}

// straceCommand makes a command line run under strace, as a direct child: the tracer detaches into its
// own process (-D), so that signals reach the program.
func (tr *Trace) straceCommand(argv []string) []string {
	return append([]string{"strace", "-D", "-f", "--seccomp-bpf", "-y", "-s", "64", "-o", tr.path, "-e", "trace=" + tracedCalls, "--"}, argv...)
}

// Trace makes the receivers that are started from now on write a trace.
func (l *Lab) Trace(tr *Trace) { l.tracing = tr }

// TracedOnce makes a pass under a trace.
func (h *Host) TracedOnce(tr *Trace) Result {
	h.t.Helper()
	return h.TracedRun(tr, "--once", "--json")
}

// TracedRun runs a command of the shipper under a trace.
func (h *Host) TracedRun(tr *Trace, args ...string) Result {
	h.t.Helper()
	argv := tr.straceCommand(append([]string{h.lab.bin + "/shipper"}, h.withConfig(args)...))
	return runProgram(h.t, argv[0], argv[1:]...)
}

// Slowed starts the shipper with a delay before each system call of a name.
func (h *Host) Slowed(tr *Trace, call string, delay time.Duration) *Process {
	h.t.Helper()
	argv := []string{
		"strace", "-D", "-f", "-o", tr.path, "-e", "trace=" + call,
		"-e", fmt.Sprintf("inject=%s:delay_enter=%d", call, delay.Microseconds()), "--", h.lab.bin + "/shipper",
	}
	return StartProgram(h.t, "shipper "+h.Name, append(argv, h.withConfig(nil)...)...)
}

// Text returns what has been traced so far.
func (tr *Trace) Text() string {
	b, _ := os.ReadFile(tr.path) // there is none before the first call
	return string(b)
}

// Call is a system call that succeeded, or a connect in progress. Calls of several threads
// overlap: it was in progress from line Begin to line End of the trace.
type Call struct {
	Name, Args string
	Begin, End int
}

// Before reports whether the call had returned when the other one began.
func (c Call) Before(other Call) bool { return c.End < other.Begin }

var (
	wholeCall = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	beganCall = regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$`)
	endedCall = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)`)
)

// Calls reads the trace of a program that has ended.
func (tr *Trace) Calls(t testing.TB) []Call {
	t.Helper()
	f, err := os.Open(tr.path)
	fixture.Must(t, err)
	defer f.Close()
	var calls []Call
	open := make(map[string]Call) // by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if m := beganCall.FindStringSubmatch(line); m != nil {
			open[m[1]] = Call{Name: m[2], Args: m[3], Begin: n}
			continue
		}
		c, result := Call{Begin: n, End: n}, ""
		if m := endedCall.FindStringSubmatch(line); m != nil {
			c = open[m[1]]
			c.Args, c.End, result = c.Args+m[3], n, m[4]
		} else if m := wholeCall.FindStringSubmatch(line); m != nil {
			c.Name, c.Args, result = m[2], m[3], m[4]
		} else {
			continue
		}
		if code, err := strconv.Atoi(result); err == nil && (code >= 0 || c.Name == "connect") {
			calls = append(calls, c)
		}
	}
	fixture.Must(t, lines.Err())
	return calls
}

// Find returns the calls of a name whose arguments match a pattern, in the order in which they
// ended. Several names are separated by |.
func Find(calls []Call, names, args string) []Call {
	pattern := regexp.MustCompile(args)
	var found []Call
	for _, c := range calls {
		for name := range strings.SplitSeq(names, "|") {
			if c.Name == name && pattern.MatchString(c.Args) {
				found = append(found, c)
			}
		}
	}
	return found
}
