package diskbackend

import (
	"context"
	"slices"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/index"
)

// A search is followed by a pause for the hosts that caused it, and by a shorter one for all
// hosts. No pause is longer than a sender waits for its answer.
const (
	searchPause    = 3 // times the duration of the search
	sharedPause    = 1
	maxSearchPause = 30 * time.Second
)

// rowSearches looks up rows of the index for requests. Few requests need that: uploads of an
// archive for which the host had a receipt before, and those of archives whose file does not
// say that it has a row. A search reads the index backward to the row, perhaps all of it. A few
// bytes of request must not occupy the disk.
//
// One search runs at a time, for all requests that wait. A host may cause searches for at
// most a quarter of the time, and all hosts together for half of it.
type rowSearches struct {
	ctx  context.Context // of the backend: several requests wait for one search
	find func(ctx context.Context, keys ...episode.Key) (index.SearchResult, error)
	wake chan struct{} // receives a value if another request waits

	running sync.WaitGroup // has run

	mu      sync.Mutex // guards the fields below
	active  bool       // run is running
	waiting []*rowSearch
	next    time.Time                  // time of the next search
	hosts   map[episode.Name]time.Time // time of the next search that a host may cause
}

// rowSearch is a request that waits for rows of its host.
type rowSearch struct {
	host episode.Name
	keys []episode.Key
	done chan struct{} // closed when the fields below are set

	found index.SearchResult
	err   error
}

// newRowSearches returns searches by find that end with ctx.
func newRowSearches(ctx context.Context, find func(context.Context, ...episode.Key) (index.SearchResult, error)) *rowSearches {
	return &rowSearches{ctx: ctx, find: find, wake: make(chan struct{}, 1), hosts: make(map[episode.Name]time.Time)}
}

// close waits for the search that is running. The context must have ended.
func (s *rowSearches) close() { s.running.Wait() }

// lookUp returns the last rows of some keys of host. The search begins after the call.
func (s *rowSearches) lookUp(ctx context.Context, host episode.Name, keys ...episode.Key) (index.SearchResult, error) {
	w := &rowSearch{host: host, keys: keys, done: make(chan struct{})}
	s.addSearch(w)
	select {
	case <-w.done:
		return w.found, w.err
	case <-ctx.Done():
		s.removeSearch(w)
		return index.SearchResult{}, ctx.Err()
	}
}

func (s *rowSearches) addSearch(w *rowSearch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, w)
	if !s.active {
		s.active = true
		s.running.Go(s.run)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *rowSearches) removeSearch(w *rowSearch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *rowSearch) bool { return other == w })
}

// run searches until no request waits.
func (s *rowSearches) run() {
	for {
		batch, pause := s.nextBatch()
		switch {
		case pause > 0:
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-s.wake:
			case <-s.ctx.Done():
			}
			t.Stop()
		case len(batch) > 0:
			s.searchBatch(batch)
		default:
			return
		}
	}
}

// nextBatch returns the requests to search for now, or the time until then, or neither if
// none waits.
func (s *rowSearches) nextBatch() (batch []*rowSearch, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.active = false
		return nil, 0
	}
	first := s.hosts[s.waiting[0].host]
	for _, w := range s.waiting[1:] {
		if at := s.hosts[w.host]; at.Before(first) {
			first = at
		}
	}
	if first.Before(s.next) {
		first = s.next
	}
	pause = time.Until(first)
	if pause > 0 && s.ctx.Err() == nil {
		return nil, pause
	}
	batch, s.waiting = s.waiting, nil
	return batch, 0
}

func (s *rowSearches) searchBatch(batch []*rowSearch) {
	var keys []episode.Key
	for _, w := range batch {
		keys = append(keys, w.keys...)
	}
	began := time.Now()
	found, err := s.find(s.ctx, keys...)
	if err != nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	s.schedulePauses(batch, time.Since(began))
	for _, w := range batch {
		w.found, w.err = found, err
		close(w.done)
	}
}

// schedulePauses records when the hosts of a batch may cause the next search.
func (s *rowSearches) schedulePauses(batch []*rowSearch, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for host, at := range s.hosts {
		if at.Before(now) {
			delete(s.hosts, host)
		}
	}
	s.next = now.Add(min(sharedPause*took, maxSearchPause))
	for _, w := range batch {
		s.hosts[w.host] = now.Add(min(searchPause*took, maxSearchPause))
	}
}
