// Package scripttest runs test scripts (testscript) against one of the programs: the commands that
// a user types, and their output.
//
// The program under test runs in the test's binary, so that its coverage is counted. The other
// program is built as it is shipped.
package scripttest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"cis490/internal/cli"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// deadline bounds all scripts of a program: it ends a daemon that a script started by mistake.
const deadline = 8 * time.Minute

// Main is the TestMain of a program.
func Main(m *testing.M, command func() *cobra.Command) {
	testscript.Main(m, map[string]func(){
		command().Name(): func() { os.Exit(cli.Main(command())) },
	})
}

// Run runs the scripts in testdata/script against a program. With update it rewrites their
// golden files.
func Run(t *testing.T, program string, update bool) {
	t.Helper()
	bin := t.TempDir()
	fixture.Must(t, labtest.Build(bin))
	if err := os.Remove(filepath.Join(bin, program)); err != nil { // the scripts run this binary instead
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       update,
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(deadline),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "lines": lines, "columns": columns, "ascii": ascii, "objects": objects,
			"mode": mode, "hostile": hostile, "packed": packed, "locked": locked,
			"onterminal": onTerminal, "freeport": freePort, "takenport": takenPort, "logged": logged,
		},
	})
}
