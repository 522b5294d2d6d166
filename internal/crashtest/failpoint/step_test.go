package failpoint_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// kind is what may become of a step.
type kind struct {
	name  string
	steps string // to which it can happen, "" for all
	// fatal are the steps whose failure must end the program with 74, as the
	// storage cannot be trusted after it.
	fatal string
}

// fatalIfBroken are the steps after whose EIO no program may continue. What could
// not be opened may have been of no consequence.
const fatalIfBroken = "^(write|setxattr|fsync|fdatasync|truncate|close|link|rename|mkdir|unlink)$"

// untold is the one step whose failure ends the receiver with 1: the probe of the
// file system says of any error that this one cannot keep the store.
const untold = "link probe~b"

// hints are in steps that nothing depends on, so that a fault there ends nothing, or ends it
// with 1: of the questions whether the kernel has a call, which are of no file; of the
// file that a person is shown; and of the question whether a host's folder is a mount of
// its own, which is of a name that nobody has.
var hints = regexp.MustCompile(`\.status\.json|^rename \.cis490-probe\.none$|^(rename|link) y$|^\w+ \.$`)

var kinds = []kind{
	{name: "kill"},
	{name: "kill-after"},
	{name: "eio", fatal: fatalIfBroken},
	{name: "eio-after", fatal: fatalIfBroken},
	{name: "enospc", steps: "write|fsync|fdatasync|close|link|rename|mkdir|open|setxattr", fatal: "fsync|fdatasync|close"},
	{name: "short", steps: "write"},
	{name: "emfile", steps: "open|opendir"},
}

// every is 1 for make crash and 6 for make crash-short; in go test ./... these cases would
// take minutes.
var every = flag.Int("every", 60, "test every Nth case")

// TestEveryStepFailsOnce lets each step of each scenario fail in each way that
// it can. Custody holds at once, and one pass of healthy programs ends the work.
func TestEveryStepFailsOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	counts := newTally()
	t.Run("each", func(t *testing.T) {
		idle := map[bool][]string{}
		for _, s := range []scenario{idleReceiver, idleShipper} {
			idle[s.shipper] = s.recordSteps(t)
		}
		for _, s := range scenarios {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.failEachStep(t, idle[s.shipper], counts)
			})
		}
	})
	counts.print()
}

func (s scenario) failEachStep(t *testing.T, idle []string, counts *tally) {
	steps := s.recordSteps(t)
	n := 0
	for at, step := range steps {
		if !s.whole && at < countStartSteps(steps, idle) {
			continue
		}
		op, _, _ := strings.Cut(step, " ")
		for _, k := range kinds {
			if !regexp.MustCompile(k.steps).MatchString(op) {
				continue
			}
			if n++; n%*every != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%02d %s %s", at+1, step, k.name), func(t *testing.T) {
				t.Parallel()
				fatal := k.fatal != "" && regexp.MustCompile(k.fatal).MatchString(op) && step != untold && !hints.MatchString(step)
				counts.add(s.name, k.name, s.failStep(t, at+1, k.name, fatal))
			})
		}
	}
}

// recordSteps runs a scenario without a failure, and returns its steps.
func (s scenario) recordSteps(t *testing.T) []string {
	l, h := s.lab(t)
	dir := s.dir(l, h)
	fixture.WriteFile(t, filepath.Join(dir, "fail"), "0 none")
	s.work(t, l, h, false)
	steps := strings.Split(strings.TrimSpace(fixture.ReadFile(t, filepath.Join(dir, "failed"))), "\n")
	if len(steps) < 5 {
		t.Fatalf("steps: %q", steps)
	}
	return steps
}

// countStartSteps returns how many of the first steps are those of a start with nothing to do. One
// scenario of each program tests those.
func countStartSteps(steps, idle []string) int {
	n := 0
	for n < min(len(steps), len(idle)) && steps[n] == idle[n] {
		n++
	}
	return n
}

// failStep makes one step of a scenario fail, and reports whether it was reached.
func (s scenario) failStep(t *testing.T, at int, kind string, fatal bool) bool {
	l, h := s.lab(t)
	dir := s.dir(l, h)
	fixture.WriteFile(t, filepath.Join(dir, "fail"), fmt.Sprint(at, " ", kind))
	code := s.work(t, l, h, fatal || strings.HasPrefix(kind, "kill"))
	fixture.Must(t, os.Remove(filepath.Join(dir, "fail")))
	_, err := os.Stat(filepath.Join(dir, "failed"))
	reached := err == nil
	if reached && fatal && code != 74 {
		t.Errorf("exit code %d after a fault of the storage, want 74", code)
	}
	// A receiver that refused because something is missing recovers by itself, at the
	// next attempt; one that ended, when it starts.
	if s.shipper || !l.Process().Running() || fatal || at%2 == 0 || strings.HasPrefix(kind, "eio") {
		l.Kill()
		if !s.ill {
			l.Check(t)
		}
		l.Start()
	}
	if s.after != nil {
		s.after(t, l, h)
	}
	h.Once().MustExit(t, s.code)
	if s.code == 0 {
		l.Settled(t)
	}
	l.Check(t)
	if n := len(l.Rows(t)); n > s.rows || n < s.rows-s.fewer {
		t.Errorf("%d rows, want %d", n, s.rows)
	}
	return reached
}
