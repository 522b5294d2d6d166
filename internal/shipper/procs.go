package shipper

import (
	"os"
	"runtime"
	"sync"
)

// procs says on how many threads Go code runs at once. Where many small episodes are
// on their way, most goroutines are in a sync, and each holds its place among the
// threads for a while after it has begun to wait: there are twice as many places as
// cores. The goroutines that pack a large episode hand their blocks on thousands of
// times a second, which costs more than it brings where a place is free on another
// core: then there are as many as cores.
type procs struct {
	fixed bool // somebody has said how many there shall be

	mu    sync.Mutex
	on    bool // guarded by mu; episodes are on their way
	large int  // guarded by mu; being packed
}

func newProcs() *procs { return &procs{fixed: os.Getenv("GOMAXPROCS") != ""} }

// begin is called before any episode is on its way, and returns what ends it.
func (p *procs) begin() (end func()) {
	p.change(func() { p.on = true })
	return func() { p.change(func() { p.on = false }) }
}

// alone is called before a large episode is packed, and returns what ends it.
func (p *procs) alone() (end func()) {
	p.change(func() { p.large++ })
	return func() { p.change(func() { p.large-- }) }
}

func (p *procs) change(how func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.twice()
	if how(); p.fixed || before == p.twice() {
		return
	}
	runtime.SetDefaultGOMAXPROCS() // as many as cores, or as the control group allows
	if p.twice() {
		runtime.GOMAXPROCS(2 * runtime.GOMAXPROCS(0))
	}
}

func (p *procs) twice() bool { return p.on && p.large == 0 }
