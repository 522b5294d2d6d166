package mutation_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cis490/internal/crashtest"
	"cis490/internal/fixture"
)

// mutant is the program with one sync or one check removed, and the test that must fail because
// of it.
type mutant struct {
	what   string
	killer killer
	edits  []edit // several if two guards do one thing
}

// edit replaces old by text in a file below internal/.
type edit struct{ file, old, text string }

// killer is a test, and the package that it is in.
type killer struct{ dir, test string }

func (k killer) String() string { return k.dir + "." + k.test }

// TestEverySyncAndCheckHasATestThatMissesIt removes each of them in turn. A mutant that no test
// notices is a promise that no test guards.
func TestEverySyncAndCheckHasATestThatMissesIt(t *testing.T) {
	if os.Getenv("CRASH_MUTATIONS") == "" {
		t.Skip("slow: make crash runs it")
	}
	t.Run("healthy", wantKillersGreen)
	if t.Failed() {
		return
	}
	var mu sync.Mutex
	rows := make([]string, len(mutants()))
	t.Run("mutant", func(t *testing.T) {
		for i, m := range mutants() {
			t.Run(m.what, func(t *testing.T) {
				t.Parallel()
				verdict := "no mutant"
				defer func() {
					mu.Lock()
					defer mu.Unlock()
					rows[i] = fmt.Sprintf("%-9s %-66s %s", verdict, m.what, m.killer)
				}()
				verdict = m.run(t)
			})
		}
	})
	fmt.Println(strings.Join(rows, "\n"))
	green := 0
	for _, row := range rows {
		if !strings.HasPrefix(row, red) {
			green++
		}
	}
	fmt.Printf("%d mutants, %d red, %d not\n", len(rows), len(rows)-green, green)
}

// TestEveryMutantCanBeMade keeps the list current. A mutant that does not compile, or whose
// killer is gone, shows nothing.
func TestEveryMutantCanBeMade(t *testing.T) {
	checker := newTypeChecker(t, "../../..")
	tests := make(map[string]string) // by package, its test files
	for _, m := range mutants() {
		t.Run(m.what, func(t *testing.T) {
			m.overlayFlags(t)
			if err := checker.check(m); err != nil {
				t.Errorf("it does not compile: %v", err)
			}
			dir := m.killer.dir
			if tests[dir] == "" {
				tests[dir] = readTests(t, filepath.Join("../..", dir))
			}
			name, _, _ := strings.Cut(m.killer.test, "/")
			if !strings.Contains(tests[dir], "\nfunc "+name+"(") {
				t.Errorf("there is no %v", m.killer)
			}
		})
	}
}

func readTests(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	fixture.Must(t, err)
	var all strings.Builder
	for _, name := range names {
		all.WriteString(fixture.ReadFile(t, name))
	}
	return all.String()
}

// wantKillersGreen checks that every killer passes without a mutant.
func wantKillersGreen(t *testing.T) {
	tests := make(map[string][]string)
	for _, m := range mutants() {
		if !slices.Contains(tests[m.killer.dir], m.killer.test) {
			tests[m.killer.dir] = append(tests[m.killer.dir], m.killer.test)
		}
	}
	for dir, names := range tests {
		t.Run(dir, func(t *testing.T) {
			out, err := runKiller(killer{dir, "(" + strings.Join(names, "|") + ")"}, "")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, name := range names {
				if !bytes.Contains(out, []byte("--- PASS: "+name+" ")) {
					t.Errorf("%s: no test passed under this name:\n%s", name, out)
				}
			}
		})
	}
}

// runKiller runs a killer with flags as GOFLAGS.
func runKiller(k killer, flags string) ([]byte, error) {
	cmd := exec.Command("go", "test", "-v", "-count=1", "-timeout=100s", "-run", "^"+k.test+"$", "cis490/internal/"+k.dir)
	cmd.Env = append(os.Environ(), "GOFLAGS="+flags)
	return cmd.CombinedOutput()
}

// red is the verdict on a mutant that its killer noticed.
const red = "red"

// overlayFlags returns the GOFLAGS that build the mutant.
func (m mutant) overlayFlags(t *testing.T) string {
	t.Helper()
	o, err := crashtest.NewOverlay(t.TempDir())
	fixture.Must(t, err)
	for _, e := range m.edits {
		if err := o.Edit("internal/"+e.file, e.old, e.text); err != nil {
			t.Fatalf("%s: what it takes out has moved; give it its new place: %v", m.what, err)
		}
	}
	flags, err := o.Flags()
	fixture.Must(t, err)
	return flags
}

func (m mutant) run(t *testing.T) string {
	flags := m.overlayFlags(t)
	out, err := runKiller(m.killer, flags)
	switch {
	case err == nil:
		t.Errorf("%s is green without it", m.killer)
		return "GREEN"
	case bytes.Contains(out, []byte("--- FAIL: "+m.killer.test)), bytes.Contains(out, []byte("panic: test timed out")):
		return red
	}
	t.Errorf("neither green nor red:\n%s", out)
	return "broken"
}
