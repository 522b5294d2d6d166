// Package soak_test runs labs for a given time, with random faults of all kinds, and checks the
// invariants of custody after each round.
// `make soak MINUTES=n` runs it at length.
package soak_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/labtest"
)

// What make soak sets: go test ./... leaves it out.
var (
	minutes = flag.Float64("minutes", 0, "how long to go on, the time to settle not counted")
	seed    = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the faults, their moments and the episodes")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code, ran, err := crashtest.Isolate() // other users run without, and then without faults of disks
	if !ran && (err == nil || errors.Is(err, crashtest.ErrNotRoot)) {
		code, ran, err = crashtest.Overlaid(overlayPrograms)
	}
	switch {
	case ran:
		os.Exit(code)
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	labtest.Main(m)
}

// overlayPrograms makes labtest build programs that report their number of goroutines, and that
// wait for seconds where the real ones wait for minutes.
func overlayPrograms(o *crashtest.Overlay) error {
	gauge, err := os.ReadFile("testdata/gauge.go")
	if err != nil {
		return err
	}
	waits := []struct{ file, old, text string }{
		{"shipper/link.go", "minProbeInterval = 5 * time.Second", "minProbeInterval = 200 * time.Millisecond"},
		{"shipper/link.go", "maxProbeInterval = 2 * time.Minute", "maxProbeInterval = 2 * time.Second"},
		{"shipper/backoff.go", "firstBackoff = 5 * time.Second", "firstBackoff = 200 * time.Millisecond"},
		{"shipper/backoff.go", "maxBackoff   = time.Hour", "maxBackoff   = 2 * time.Second"},
		{"admission/admission.go", "fullRetryAfter = 5 * time.Minute", "fullRetryAfter = time.Second"},
		{"wire/body.go", "p.RetryAfter = 5 * time.Second", "p.RetryAfter = time.Second"},
	}
	for _, w := range waits {
		if err := o.Edit("internal/"+w.file, w.old, w.text); err != nil {
			return err
		}
	}
	return errors.Join(
		o.Put("cmd/receiver/gauge.go", string(gauge)),
		o.Put("cmd/shipper/gauge.go", string(gauge)),
	)
}
