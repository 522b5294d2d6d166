package durable

import (
	"os"
	"runtime"
)

// RaiseGOMAXPROCS lets Go code run on twice as many threads as there are cores, and returns a
// function that undoes it. When many small files are made durable, most goroutines are in an fsync,
// and each blocks its thread for a while. The fsyncs of the others would start too late to share
// its commit.
func RaiseGOMAXPROCS() (end func()) {
	if os.Getenv("GOMAXPROCS") != "" { // set by the operator
		return func() {}
	}
	runtime.SetDefaultGOMAXPROCS() // the number of cores, or the limit of the control group
	runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	return runtime.SetDefaultGOMAXPROCS
}
