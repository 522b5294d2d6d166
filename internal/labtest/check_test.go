package labtest_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// recorder records what would fail a test.
type recorder struct {
	testing.TB
	said []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// recordFailures returns what check finds wrong.
func recordFailures(t *testing.T, check func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		check(r)
	}()
	<-done
	return strings.Join(r.said, "\n")
}

// TestCheckSeesEachBreachOfCustody breaks the invariants in a lab, one at a time.
func TestCheckSeesEachBreachOfCustody(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	h.Episode("run-1")
	h.Episode("run-2")
	h.Once().Must(t, 0, labtest.Tally{Scanned: 2, Shipped: 2})
	h.Draft("waiting")
	h.Finish("waiting")
	l.Settled(t)
	l.Stop()
	archive, index := l.Archive("lab-01", "run-1"), l.Path("data", "index.jsonl")
	text := fixture.ReadFile(t, index)
	first := strings.SplitAfter(text, "\n")[0]
	telemetry := h.Shipped("run-1", "telemetry.jsonl")
	breaches := []struct {
		name, path, text string // what path holds meanwhile; "" removes it
		says             string
	}{
		{"a row is lost", index, strings.TrimPrefix(text, first), "has no row"},
		{"a row comes twice", index, text + first, "more than one row"},
		{"a row is torn", index, text[:len(text)-5], "a line of the index"},
		{"an archive is lost", archive, "", "is not stored"},
		{"an archive is another", archive, fixture.ReadFile(t, l.Archive("lab-01", "run-2")), "its row says"},
		{"an archive is torn", archive, fixture.ReadFile(t, archive)[:200], "zstd -t"},
		{"a stranger is stored", l.Path("data/episodes/lab-01/note.txt"), "x", "is no recording"},
		{"a retired file changed", telemetry, "x", "is not whole anywhere"},
		{"a retired file is lost", telemetry, "", "is not whole anywhere"},
		{"a waiting file is lost", h.Episodes("waiting", "meta.json"), "", "is not whole anywhere"},
		{"an episode is in both places", h.Episodes("run-1", "done.marker"), " ", "once too often"},
		{"an entry outlives its delivery", h.Outbox("run-1.tar.zst"), "x", "is left of an episode"},
		{"somebody else is retired", h.Shipped("nobody"), "x", "was never made"},
	}
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			defer replaceFile(t, b.path, b.text)()
			if said := recordFailures(t, l.Check); !strings.Contains(said, b.says) {
				t.Errorf("the check says %q, want %q among it", said, b.says)
			}
		})
	}
	l.Settled(t) // all is as it was
}

// replaceFile replaces a file with text, or removes it, and returns a function that restores it.
func replaceFile(t *testing.T, path, text string) (back func()) {
	t.Helper()
	had, aside := fixture.Exists(path), ""
	if had {
		aside = t.TempDir() + "/aside"
		fixture.Must(t, os.Rename(path, aside))
	}
	dir := strings.TrimSuffix(path, "/done.marker")
	made := dir != path && !fixture.Exists(dir)
	if made {
		fixture.Must(t, os.Mkdir(dir, 0o755))
	}
	if text != "" {
		fixture.WriteFile(t, path, text)
	}
	return func() {
		os.Remove(path)
		if made {
			os.Remove(dir)
		}
		if had {
			fixture.Must(t, os.Rename(aside, path))
		}
	}
}
