package main

import (
	"flag"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/labtest"
	"cis490/internal/outbox"
)

var update = flag.Bool("update", false, "write the golden parts of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"shipper": func() { os.Exit(cli.Main(command())) },
	})
}

// TestScripts runs the scripts against the shipper's command and a receiver
// that was built as it is shipped.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	if err := labtest.Build(bin); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bin, "shipper")); err != nil { // the scripts' own is this process
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "lines": lines, "columns": columns, "ascii": onlyASCII,
			"locked": locked, "freeport": freePort, "hostile": hostile, "jsonline": jsonLine,
		},
	})
}

// exits runs a command that must end with a code: exits 2 shipper --no-such
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// lines bounds how many lines a file has: lines stdout 24
func lines(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	if n := strings.Count(ts.ReadFile(args[0]), "\n"); n > most {
		ts.Fatalf("%s has %d lines, want %d at the most", args[0], n, most)
	}
}

// columns bounds how wide a file is: columns stdout 80
func columns(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if n := len(strings.TrimSuffix(line, "\n")); n > most {
			ts.Fatalf("%d columns: %s", n, line)
		}
	}
}

// onlyASCII wants printable ASCII and line ends: ascii stderr
func onlyASCII(ts *testscript.TestScript, _ bool, args []string) {
	for _, b := range []byte(ts.ReadFile(args[0])) {
		if b != '\n' && (b < ' ' || b > '~') {
			ts.Fatalf("%s has the byte %#02x: %+q", args[0], b, ts.ReadFile(args[0]))
		}
	}
}

// jsonLine wants one line that begins as an object: jsonline stdout
func jsonLine(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.ReadFile(args[0])
	if strings.Count(s, "\n") != 1 || !strings.HasPrefix(s, "{") || !strings.HasSuffix(s, "}\n") {
		ts.Fatalf("not one object on one line: %q", s)
	}
}

// locked takes the lock of a folder until the script ends, as a shipper would.
func locked(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := durable.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	lock, err := outbox.New(dir).Lock(args[1])
	ts.Check(err)
	ts.Defer(func() { lock.Unlock(); dir.Close() })
}

// freePort sets a variable to a port where nothing listens.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], port)
}

// hostile makes finished episodes whose names are no names.
func hostile(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range []string{"esc\x1b[31m", "new\nline level=ERROR", "\xff\xfe", "\u202eltr", "ümlaut"} {
		dir := filepath.Join(ts.MkAbs(args[0]), name)
		ts.Check(os.MkdirAll(dir, 0o755))
		ts.Check(os.WriteFile(filepath.Join(dir, "done.marker"), nil, 0o644))
	}
}

func TestStatusShowsUntrustedTextAsASCII(t *testing.T) {
	for _, s := range []string{"esc\x1b[31m", "\xff", "a\nb", "ü\u202e", "\x7f"} {
		if got := ascii(s); strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q is shown as %q", s, got)
		}
	}
	if got := ascii(`the name "x" stays`); got != `the name "x" stays` {
		t.Errorf("got %s", got)
	}
}
