package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"cis490/internal/cli"
	"cis490/internal/durable"
	"cis490/internal/labtest"
)

var update = flag.Bool("update", false, "write the golden parts of the scripts anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"receiver": func() { os.Exit(cli.Main(command())) },
	})
}

// TestScripts runs the scripts against the receiver's command and a shipper
// that was built as it is shipped.
func TestScripts(t *testing.T) {
	bin := t.TempDir()
	if err := labtest.Build(bin); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(bin, "receiver")); err != nil { // the scripts' own is this process
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(3 * time.Minute), // a daemon that starts against the script's will ends then
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "lines": lines, "columns": columns, "ascii": onlyASCII, "objects": objects,
			"mode": mode, "hostile": hostile, "packed": packed,
			"locked": locked, "freeport": freePort, "takenport": takenPort, "logged": logged,
		},
	})
}

// condition knows [mounts]: this user may mount a file system of its own.
func condition(name string) (bool, error) {
	if name != "mounts" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", os.TempDir()).Run() == nil, nil
}

// exits runs a command that must end with a code: exits 2 receiver --no-such
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

// objects wants so many lines, each one JSON object: objects stdout 3
func objects(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	got := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			ts.Fatalf("%q: %v", line, err)
		}
		got++
	}
	if got != want {
		ts.Fatalf("%d objects, want %d", got, want)
	}
}

// mode wants files of a mode: mode 600 a b
func mode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := info.Mode().Perm(); got != os.FileMode(want) {
			ts.Fatalf("%s has mode %o, want %o", file, got, want)
		}
	}
}

// hostile makes folders whose names are no names.
func hostile(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range []string{"esc\x1b[31m", "new\nline", "\xff\xfe", "\u202eltr", "ümlaut"} {
		ts.Check(os.Mkdir(filepath.Join(ts.MkAbs(args[0]), name), 0o755))
	}
}

// packed makes an archive of no members: packed run-1.tar.zst
func packed(ts *testscript.TestScript, _ bool, args []string) {
	enc, err := zstd.NewWriter(nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), enc.EncodeAll(make([]byte, 1024), nil), 0o640))
}

// locked takes a lock until the script ends: locked data .lock 'pid 4711 (receiver)'
func locked(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := durable.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	lock, err := dir.Lock(args[1], args[2])
	ts.Check(err)
	ts.Defer(func() { lock.Unlock(); dir.Close() })
}

// freePort sets a variable to a port where nothing listens.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(port(ts, args[0]).Close())
}

// takenPort sets a variable to a port that is taken until the script ends.
func takenPort(ts *testscript.TestScript, _ bool, args []string) {
	l := port(ts, args[0])
	ts.Defer(func() { l.Close() })
}

func port(ts *testscript.TestScript, variable string) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(variable, port)
	return l
}

// logged waits until a file has a line, which a daemon of the script writes:
// logged log 'INFO receiver started'
func logged(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	var text []byte
	for range 1000 {
		if text, _ = os.ReadFile(ts.MkAbs(args[0])); want.Match(text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("nothing in %s matches %s:\n%s", args[0], args[1], text)
}
