package receiver

import (
	"context"
	"sync"
	"time"

	"cis490/internal/admission"
	"cis490/internal/episode"
)

// A host's searches of the index take at most a part of the time, and a pause is not
// longer than a sender waits.
const (
	searchPause    = 3 // pauses as long as the search
	maxSearchPause = 30 * time.Second
)

// searches bounds how often the index is searched for the rows of archives that do not
// say that they have one: those of an older version, or of a store that was moved. A
// host that announces them all again must not have the whole index read for each, one
// after the other, at full speed.
type searches struct {
	hosts admission.KeyLocks[episode.Name] // one search per host at a time

	mu   sync.Mutex
	next map[episode.Name]time.Time // guarded by mu; when a host's next search may begin
}

// begin waits until a host's archive may be searched for. The returned function ends
// the search.
func (s *searches) begin(ctx context.Context, host episode.Name) (end func(), err error) {
	unlock, err := s.hosts.LockContext(ctx, host)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	next := s.next[host]
	s.mu.Unlock()
	if !sleep(ctx, time.Until(next)) {
		unlock()
		return nil, ctx.Err()
	}
	begun := time.Now()
	return func() {
		s.ended(host, time.Since(begun))
		unlock()
	}, nil
}

func (s *searches) ended(host episode.Name, took time.Duration) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(map[episode.Name]time.Time)
	}
	for other, at := range s.next {
		if at.Before(now) {
			delete(s.next, other)
		}
	}
	s.next[host] = now.Add(min(searchPause*took, maxSearchPause))
}
