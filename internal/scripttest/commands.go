package scripttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"cis490/internal/durable"
	"cis490/internal/fixture"
)

// condition evaluates [mounts]: whether this user may mount a file system of its own.
func condition(name string) (bool, error) {
	if name != "mounts" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return exec.Command("unshare", "-rm", "mount", "-t", "tmpfs", "none", os.TempDir()).Run() == nil, nil
}

// exits checks the exit code of a command: exits 2 receiver --no-such
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code: got %d, want %d", got, want)
	}
}

// lines checks the maximum number of lines of a file: lines stdout 24
func lines(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := strconv.Atoi(args[1])
	ts.Check(err)
	if n := strings.Count(ts.ReadFile(args[0]), "\n"); n > limit {
		ts.Fatalf("%s: got %d lines, want at most %d", args[0], n, limit)
	}
}

// columns checks the maximum width of a file: columns stdout 80
func columns(ts *testscript.TestScript, _ bool, args []string) {
	limit, err := strconv.Atoi(args[1])
	ts.Check(err)
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if n := len(strings.TrimSuffix(line, "\n")); n > limit {
			ts.Fatalf("%s: got %d columns, want at most %d: %s", args[0], n, limit, line)
		}
	}
}

// ascii checks that a file has only printable ASCII and line ends: ascii stderr
func ascii(ts *testscript.TestScript, _ bool, args []string) {
	for _, b := range []byte(ts.ReadFile(args[0])) {
		if b != '\n' && (b < ' ' || b > '~') {
			ts.Fatalf("%s has the byte %#02x: %+q", args[0], b, ts.ReadFile(args[0]))
		}
	}
}

// objects checks that a file has this many lines, each one a JSON object: objects stdout 3
func objects(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	got := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil || !strings.HasSuffix(line, "}\n") {
			ts.Fatalf("%q is not an object on one line: %v", line, err)
		}
		got++
	}
	if got != want {
		ts.Fatalf("%s: got %d objects, want %d", args[0], got, want)
	}
}

// mode checks the mode of files: mode 600 a b
func mode(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, file := range args[1:] {
		info, err := os.Stat(ts.MkAbs(file))
		ts.Check(err)
		if got := info.Mode().Perm(); got != os.FileMode(want) {
			ts.Fatalf("%s: got mode %o, want %o", file, got, want)
		}
	}
}

// hostile creates directories whose names are not valid names of episodes or hosts, each
// with an empty file if one is given: hostile episodes done.marker
func hostile(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range []string{"esc\x1b[31m", "new\nline level=ERROR", "\xff\xfe", "\u202eltr", "ümlaut"} {
		dir := filepath.Join(ts.MkAbs(args[0]), name)
		ts.Check(os.MkdirAll(dir, 0o755))
		for _, file := range args[1:] {
			ts.Check(os.WriteFile(filepath.Join(dir, file), nil, 0o644))
		}
	}
}

// packed creates an archive without members: packed run-1.tar.zst
func packed(ts *testscript.TestScript, _ bool, args []string) {
	enc, err := zstd.NewWriter(nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), enc.EncodeAll(make([]byte, 1024), nil), 0o640))
}

// locked holds a lock until the script ends: locked data .lock 'pid 4711 (receiver)'
func locked(ts *testscript.TestScript, _ bool, args []string) {
	dir, err := durable.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	lock, err := dir.Lock(args[1], args[2])
	ts.Check(err)
	ts.Defer(func() { lock.Unlock(); dir.Close() })
}

// onTerminal runs a command with $TTY as the path of a terminal of 80 columns, and writes what it wrote
// there to a file: onterminal tty sh -c 'receiver status >$TTY'. Unlike testscript's ttyout it loses
// nothing if the reader of the terminal is slow.
func onTerminal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: onterminal file command [args...]")
	}
	term, err := fixture.OpenTerminal(80, 24)
	ts.Check(err)
	ts.Setenv("TTY", term.File.Name())
	failed := ts.Exec(args[1], args[2:]...)
	output := term.Close()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(output), 0o644))
	ts.Check(failed)
}

// freePort sets a variable to a port on which nothing listens: freeport PORT
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	addr, err := fixture.FreeAddr()
	ts.Check(err)
	setPort(ts, args[0], addr)
}

// takenPort sets a variable to a port that is in use until the script ends: takenport PORT
func takenPort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	setPort(ts, args[0], l.Addr().String())
}

// setPort sets a variable to the port of an address.
func setPort(ts *testscript.TestScript, variable, addr string) {
	_, port, err := net.SplitHostPort(addr)
	ts.Check(err)
	ts.Setenv(variable, port)
}

// logged waits until a file, which a daemon of the script writes, matches a pattern:
// logged log 'INFO receiver started'
func logged(ts *testscript.TestScript, _ bool, args []string) {
	want, err := regexp.Compile(args[1])
	ts.Check(err)
	var text []byte
	for range 1000 {
		text, _ = os.ReadFile(ts.MkAbs(args[0]))
		if want.Match(text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s: got %s\nwant a match of %s", args[0], text, args[1])
}
