package main

import (
	"errors"
	"fmt"
	"testing"

	"cis490/internal/batchlog"
	"cis490/internal/cli"
	"cis490/internal/datadir"
	"cis490/internal/storecopy"
)

// A receiver whose store is elsewhere is not started again by its service manager.
func TestAMovedStoreIsAMisuse(t *testing.T) {
	for _, err := range []error{&datadir.MovedError{MovedTo: "x"}, &batchlog.MovedError{To: "x"}} {
		got := startError(t.Context(), fmt.Errorf("open: %w", err), "receiver.toml")
		if exit, ok := errors.AsType[*cli.ExitError](got); !ok || exit.Code != cli.Misuse {
			t.Errorf("%T: got %v, want the code %d", err, got, cli.Misuse)
		}
	}
}

// Archives that are missing fail a run only if another one could copy them.
func TestMissingArchivesFailUntilTheStoreHasMoved(t *testing.T) {
	for _, moved := range []bool{false, true} {
		if err := copyError(nil, storecopy.Report{Missing: 1, Moved: moved}); (err == nil) != moved {
			t.Errorf("moved %v: got %v", moved, err)
		}
	}
}
