// Package snapshot shares the readings of a state among those that ask for it: scrapes of metrics, and
// viewers of a page.
//
// Invariant: however many ask, and however often, reading takes at most a twentieth of the time.
package snapshot

import (
	"sync"
	"time"
)

// MinAge is for how long at least a reading is the latest one.
const MinAge = time.Second

// readShare says that reading takes at most this part of the time.
const readShare = 20

// Shared is the latest reading of a state. Its zero value has none. It is safe for concurrent use.
type Shared[T any] struct {
	mu    sync.Mutex
	last  T         // guarded by mu
	fresh time.Time // guarded by mu; until then last is returned
}

// Latest returns the last reading, or calls read for another one if it is time for that. Whoever asks
// meanwhile waits for it.
func (s *Shared[T]) Latest(read func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	begun := time.Now() // its monotonic part counts: no change of the clock matters
	if begun.Before(s.fresh) {
		return s.last
	}
	s.last = read()
	s.fresh = time.Now().Add(max(MinAge, readShare*time.Since(begun)))
	return s.last
}
