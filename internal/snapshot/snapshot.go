// Package snapshot shares the readings of a state among all requests for it: scrapes of metrics, and
// views of a page.
//
// Invariant: reading takes at most a twentieth of the time, whatever the number of requests.
package snapshot

import (
	"sync"
	"time"
)

// MinAge is the minimum time for which a reading is reused.
const MinAge = time.Second

// readShare limits reading to this part of the time: one in 20.
const readShare = 20

// Shared is the latest reading of a state. Its zero value has none. It is safe for concurrent use.
type Shared[T any] struct {
	mu         sync.Mutex
	last       T         // guarded by mu
	freshUntil time.Time // guarded by mu; until then last is returned
}

// Latest returns the last reading while it is fresh, and then calls read for a new one. Concurrent calls
// wait for that.
func (s *Shared[T]) Latest(read func() T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	begun := time.Now() // monotonic, so changes of the clock do not matter
	if begun.Before(s.freshUntil) {
		return s.last
	}
	s.last = read()
	s.freshUntil = time.Now().Add(max(MinAge, readShare*time.Since(begun)))
	return s.last
}
