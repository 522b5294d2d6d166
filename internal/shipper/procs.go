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
	cores int // 0: somebody has said how many there shall be

	mu    sync.Mutex
	large int // being packed; guarded by mu
}

func newProcs() *procs {
	if os.Getenv("GOMAXPROCS") != "" {
		return &procs{}
	}
	return &procs{cores: runtime.GOMAXPROCS(0)}
}

// begin takes the places for small episodes, and returns what gives them up.
func (p *procs) begin() (end func()) {
	p.set(2 * p.cores)
	return func() { p.set(p.cores) }
}

// alone takes those for a large one, and returns what gives them up.
func (p *procs) alone() (end func()) {
	p.count(1)
	return func() { p.count(-1) }
}

func (p *procs) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.large
	if p.large += n; before > 0 == (p.large > 0) {
		return
	}
	if p.large > 0 {
		p.set(p.cores)
	} else {
		p.set(2 * p.cores)
	}
}

func (p *procs) set(n int) {
	if n > 0 {
		runtime.GOMAXPROCS(n)
	}
}
