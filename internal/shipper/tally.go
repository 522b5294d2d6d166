package shipper

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Tally counts the results of a pass. At its end, each scanned episode is in exactly one of the
// other counters.
type Tally struct {
	Scanned        int `json:"scanned"`
	Shipped        int `json:"shipped"`
	AlreadyPresent int `json:"already_present"`
	Transient      int `json:"transient"`
	Conflicts      int `json:"conflicts"`
	Held           int `json:"held"`
}

func (t Tally) String() string {
	return fmt.Sprintf("scanned=%d shipped=%d already_present=%d transient=%d conflicts=%d held=%d",
		t.Scanned, t.Shipped, t.AlreadyPresent, t.Transient, t.Conflicts, t.Held)
}

// ResultCount returns how many of the scanned episodes have a result.
func (t Tally) ResultCount() int {
	return t.Shipped + t.AlreadyPresent + t.Transient + t.Conflicts + t.Held
}

// tallyCounter is a [Tally] for concurrent use.
type tallyCounter struct {
	mu    sync.Mutex
	tally Tally // guarded by mu
}

func (t *tallyCounter) update(f func(*Tally)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f(&t.tally)
}

// Tally returns the counts so far.
func (s *Shipper) Tally() Tally {
	s.tally.mu.Lock()
	defer s.tally.mu.Unlock()
	return s.tally.tally
}

// Outcomes counts the results of attempts with episodes since the start. Unlike a [Tally], which has a
// result for each scanned episode, it does not count episodes that were not tried.
type Outcomes struct {
	Shipped, AlreadyPresent, Failed, Held int64
	DeliveredBytes                        int64 // of archives with a receipt
}

// outcomeCounter is [Outcomes] for concurrent use.
type outcomeCounter struct {
	shipped, alreadyPresent, failed, held, deliveredBytes atomic.Int64
}

// Outcomes returns the counts so far.
func (s *Shipper) Outcomes() Outcomes {
	r := &s.outcomes
	return Outcomes{
		Shipped: r.shipped.Load(), AlreadyPresent: r.alreadyPresent.Load(), Failed: r.failed.Load(), Held: r.held.Load(),
		DeliveredBytes: r.deliveredBytes.Load(),
	}
}
