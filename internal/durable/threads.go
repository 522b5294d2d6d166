package durable

import (
	"os"
	"runtime"
)

// RaiseGOMAXPROCS lets Go code run on twice as many threads as there are cores, and
// returns what ends it. Where many small files are made durable at once most
// goroutines are in a sync, and each holds its place among the threads for a while
// after it has begun to wait: the others' syncs come too late to share its commit.
func RaiseGOMAXPROCS() (end func()) {
	if os.Getenv("GOMAXPROCS") != "" { // somebody has said how many there shall be
		return func() {}
	}
	runtime.SetDefaultGOMAXPROCS() // as many as cores, or as the control group allows
	runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	return runtime.SetDefaultGOMAXPROCS
}
