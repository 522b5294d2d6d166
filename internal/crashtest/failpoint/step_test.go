package failpoint_test

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cis490/internal/fixture"
)

// failureKind is a way in which a step may fail.
type failureKind struct {
	name  string
	steps string // the steps that can fail in this way, "" for all
	// fatal are the steps whose failure must end the program with 74, because the storage
	// cannot be trusted afterwards.
	fatal string
}

// fatalIfBroken are the steps after whose EIO no program may continue. A failed open may have
// been of no consequence.
const fatalIfBroken = "^(write|setxattr|fsync|fdatasync|truncate|close|link|rename|mkdir|unlink)$"

// probeStep is the one step whose failure ends the receiver with 1: the probe of the file system
// reports any error as a file system that cannot hold the store.
const probeStep = "link probe~b"

// hintSteps are in steps that nothing depends on. A fault there ends nothing, or ends the program
// with 1. They are: the probes for system calls of the kernel, which concern no file; the
// status report and what hosts report; and the probe whether a host's directory is a mount of its own, which uses a
// name that does not exist.
var hintSteps = regexp.MustCompile(`\.status\.json|\.report(\.tmp)?$|\.receiver(\.tmp)?$|^rename \.cis490-probe\.none$|^(rename|link) y$|^\w+ \.$`)

var kinds = []failureKind{
	{name: "kill"},
	{name: "kill-after"},
	{name: "eio", fatal: fatalIfBroken},
	{name: "eio-after", fatal: fatalIfBroken},
	{name: "enospc", steps: "write|fsync|fdatasync|close|link|rename|mkdir|open|setxattr", fatal: "fsync|fdatasync|close"},
	{name: "short", steps: "write"},
	{name: "emfile", steps: "open|opendir"},
}

// every is 1 for make crash and 6 for make crash-short, which take minutes.
var every = flag.Int("every", 0, "test every Nth case; 0 for a few cases of the main scenarios")

// fewCases is what 0 means for the main scenarios.
const fewCases = 200

// TestEveryStepFailsOnce makes each step of each scenario fail in each way that it can. The
// invariants of custody hold at once, and one pass of healthy programs completes the operation.
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
			if *every == 0 && !s.whole {
				continue
			}
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.failEveryNthStep(t, cmp.Or(*every, fewCases), idle[s.shipper], counts)
			})
		}
	})
	counts.print()
}

// failEveryNthStep is for every nth combination of a step and a kind of failure.
func (s scenario) failEveryNthStep(t *testing.T, nth int, idle []string, counts *tally) {
	steps := s.recordSteps(t)
	n := 0
	for at, step := range steps {
		if !s.whole && at < countStartSteps(steps, idle) || !regexp.MustCompile(s.only).MatchString(step) {
			continue
		}
		op, _, _ := strings.Cut(step, " ")
		for _, k := range kinds {
			if !regexp.MustCompile(k.steps).MatchString(op) {
				continue
			}
			n++
			if n%nth != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%02d %s %s", at+1, step, k.name), func(t *testing.T) {
				t.Parallel()
				counts.add(s.name, k.name, s.failStep(t, at+1, k))
			})
		}
	}
}

// recordSteps runs a scenario without a failure, and returns its steps.
func (s scenario) recordSteps(t *testing.T) []string {
	l, h := s.lab(t)
	dir := s.dir(l, h)
	fixture.WriteFile(t, filepath.Join(dir, "fail"), "0 none")
	s.work(t, l, h)
	steps := strings.Split(strings.TrimSpace(fixture.ReadFile(t, filepath.Join(dir, "failed"))), "\n")
	if len(steps) < 5 {
		t.Fatalf("steps: %q", steps)
	}
	return steps
}

// countStartSteps returns how many of the first steps belong to a start with nothing to do. One
// scenario of each program tests those.
func countStartSteps(steps, idle []string) int {
	n := 0
	for n < min(len(steps), len(idle)) && steps[n] == idle[n] {
		n++
	}
	return n
}

// ends reports whether the failure of a step must end the program.
func (k failureKind) ends(step string) bool {
	op, _, _ := strings.Cut(step, " ")
	return k.isKill() || k.fatal != "" && regexp.MustCompile(k.fatal).MatchString(op) && step != probeStep && !hintSteps.MatchString(step)
}

func (k failureKind) isKill() bool { return strings.HasPrefix(k.name, "kill") }

// failStep makes one step of a scenario fail, and reports whether it was reached. The step may differ
// from the one that was recorded under its number: background work has no fixed place in the order.
func (s scenario) failStep(t *testing.T, at int, kind failureKind) bool {
	l, h := s.lab(t)
	dir := s.dir(l, h)
	fixture.WriteFile(t, filepath.Join(dir, "fail"), fmt.Sprint(at, " ", kind.name))
	code := s.work(t, l, h)
	fixture.Must(t, os.Remove(filepath.Join(dir, "fail")))
	failed, err := os.ReadFile(filepath.Join(dir, "failed"))
	reached := err == nil
	ended := reached && kind.ends(strings.TrimSpace(string(failed))) && (kind.isKill() || !s.toleratesFaults)
	if ended && code == running {
		code = l.Process().Wait(t)
	}
	if ended && !kind.isKill() && code != 74 {
		t.Errorf("exit code %d after a fault of the storage in %q, want 74", code, failed)
	}
	if s.toleratesFaults && s.shipper && !kind.isKill() && code != s.code {
		t.Errorf("exit code %d after a fault in %q, want %d", code, failed, s.code)
	}
	// A receiver that refused because something is missing recovers at the next attempt. One
	// that ended, or that answers no ping because it is about to, recovers when it starts.
	if s.shipper || ended || at%2 == 0 || strings.HasPrefix(kind.name, "eio") || h.Run("--ping").Code != 0 {
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
