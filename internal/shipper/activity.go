package shipper

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"cis490/internal/transfer"
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

// Outcomes counts the results of attempts with episodes since the start. Unlike a [Tally], which has a
// result for each scanned episode, it does not count episodes that were not tried.
type Outcomes struct {
	Shipped, AlreadyPresent, Failed, Held int64
	DeliveredBytes                        int64 // of archives with a receipt
}

// counters are the counts of a shipper, for concurrent use.
type counters struct {
	mu       sync.Mutex
	tally    Tally    // guarded by mu
	outcomes Outcomes // guarded by mu; without bytes

	toSendCount, toSendBytes atomic.Int64 // archives that are queued or being sent
}

func (c *counters) count(f func(*Tally, *Outcomes)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.tally, &c.outcomes)
}

// Tally returns the counts so far.
func (s *Shipper) Tally() (now Tally) {
	s.count(func(t *Tally, _ *Outcomes) { now = *t })
	return now
}

// Outcomes returns the counts so far.
func (s *Shipper) Outcomes() (now Outcomes) {
	s.count(func(_ *Tally, o *Outcomes) { now = *o })
	now.DeliveredBytes = s.transfers.DeliveredBytes()
	return now
}

// Activity is what a shipper is doing at one moment.
type Activity struct {
	Tally Tally
	// SentBytes is the size of the archives that were delivered since the start, plus what was sent
	// of others. PackedBytes is the size of those archives, plus the packed ones that are queued: it
	// grows while episodes are packed.
	SentBytes, PackedBytes int64
	// ReadBytes is the number of bytes that were read to be sent. Unlike SentBytes, it does not
	// jump when an upload resumes.
	ReadBytes int64
	// AllPacked means that no scanned episode is left to pack.
	AllPacked bool
	// Transfers are the episodes that are being packed or sent, in the order of their starts.
	Transfers []transfer.Progress
}

// Activity returns what the shipper is doing now. It may be called at any time, and does not delay the
// work.
func (s *Shipper) Activity() Activity {
	a := Activity{Tally: s.Tally(), Transfers: s.transfers.Active(), ReadBytes: s.transfers.ReadBytes()}
	a.addBytes(s.transfers.DeliveredBytes(), s.toSendBytes.Load())
	a.AllPacked = int64(a.Tally.Scanned-a.Tally.ResultCount()) <= s.toSendCount.Load()
	return a
}

// addBytes sets the bytes. toSend is the size of the archives that are queued or being sent.
func (a *Activity) addBytes(delivered, toSend int64) {
	a.SentBytes, a.PackedBytes = delivered, delivered+toSend
	for _, t := range a.Transfers {
		switch {
		case t.Delivered: // it is being retired
			a.PackedBytes -= t.Size
		case t.Sends:
			a.SentBytes += t.Bytes
		}
	}
	a.SentBytes = min(a.SentBytes, a.PackedBytes) // the two are not read at the same moment
}

// countToSend adds (1) or removes (-1) an archive that is queued or being sent.
func (n *counters) countToSend(sign int64, c candidate) {
	n.toSendCount.Add(sign)
	n.toSendBytes.Add(sign * c.Size)
}

// IsAlive reports whether the dispatcher responds and no transfer hangs. It is meant for a
// watchdog.
func (s *Shipper) IsAlive(ctx context.Context) bool {
	answer := make(chan struct{}, 1)
	select {
	case s.livenessProbes <- answer:
	case <-ctx.Done():
		return false
	}
	select {
	case <-answer:
		return s.transfers.IsProgressing()
	case <-ctx.Done():
		return false
	}
}
