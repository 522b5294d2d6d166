package buckettest

import (
	"errors"
	"maps"
	"time"

	"cis490/internal/bucket"
)

// The operations of a bucket.
const (
	OpCreate = "create"
	OpPut    = "put"
	OpOpen   = "open"
	OpStat   = "stat"
	OpList   = "list"
	OpRemove = "remove"
	OpBegin  = "begin"
	OpPart   = "part"
	OpFinish = "finish"
	OpAbort  = "abort"
)

// Fault is what happens to a request.
type Fault int

// The faults. The caller gets an error from each except None.
const (
	None       Fault = iota
	LostBefore       // nothing happened
	LostAfter        // it took effect
	Late             // it takes effect on [Memory.Release]
	Full             // nothing happened, since there is no space
)

// ErrLost is the error of a request whose response was lost.
var ErrLost = errors.New("the connection was lost")

// before returns the error of a request that is not to take effect.
func (f Fault) before() error {
	switch f {
	case LostBefore:
		return ErrLost
	case Full:
		return bucket.ErrFull
	}
	return nil
}

// beforeReading is before for a request that changes nothing.
func (f Fault) beforeReading() error {
	if f == Late || f == Full {
		return ErrLost
	}
	return f.before()
}

type lostReader struct{}

func (lostReader) Read([]byte) (int, error) { return 0, ErrLost }

// begin counts a request and returns its fault.
func (m *Memory) begin(op, name string) Fault {
	m.mu.Lock()
	if m.requests == nil {
		m.requests = map[string]int{}
	}
	m.requests[op]++
	m.mu.Unlock()
	if m.Fault == nil {
		return None
	}
	return m.Fault(op, name)
}

// do lets a request take effect, now or later. It calls apply with m.mu held.
func (m *Memory) do(op, name string, fault Fault, apply func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fault == Late {
		m.late = append(m.late, func() { _ = apply() }) // as the engine, whose response is lost
		return wrap(op, name, ErrLost)
	}
	err := apply()
	if fault == LostAfter {
		err = ErrLost
	}
	if err != nil {
		return wrap(op, name, err)
	}
	return nil
}

// Release lets all late requests take effect in their order, and returns their number. One that
// cannot take effect any more has none, as at an engine.
func (m *Memory) Release() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	late := m.late
	m.late = nil
	for _, apply := range late {
		apply()
	}
	return len(late)
}

// Requests returns how many requests there were, by operation. A list of more than 1000 objects is
// several.
func (m *Memory) Requests() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.requests)
}

// Breach is a set of promises of [bucket.Bucket] that a bucket breaks, as engines do.
type Breach int

// What a bucket may break.
const (
	CreateReplaces   Breach = 1 << iota // an object that exists is replaced by Create
	CreateRaces                         // several concurrent creators of an object succeed
	StoreWrongDigest                    // bytes with another digest are stored
	StoreCutBody                        // a body that ends early is stored
	ListLags                            // a list lacks new objects for a while
	ListByElement                       // "a/b" is listed before "a-b"
	IgnorePartETags                     // a part that was replaced passes for the former one
)

// raceWindow is the time in which creators are concurrent with the breach CreateRaces, and listLag
// how long a list lacks new objects with ListLags.
const (
	raceWindow = 20 * time.Millisecond
	listLag    = 10 * time.Second
)
