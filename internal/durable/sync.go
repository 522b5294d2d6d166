package durable

import "sync"

// syncGroup lets concurrent callers share an fsync of one directory. A call during an fsync gets
// the next one, with all others that arrive meanwhile, because the running fsync may have begun
// before its name existed.
type syncGroup struct {
	mu                 sync.Mutex // guards the fields below
	cond               *sync.Cond
	started, completed int   // number of syncs that have begun, and that have ended
	err                error // of the first sync that failed; no later one counts
}

func newSyncGroup() *syncGroup {
	s := new(syncGroup)
	s.cond = sync.NewCond(&s.mu)
	return s
}

// syncShared returns after a sync that began after the call. It returns an error if that sync or an
// earlier one failed.
func (s *syncGroup) syncShared(sync func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for want := s.started + 1; s.completed < want && s.err == nil; {
		if s.started > s.completed {
			s.cond.Wait()
			continue
		}
		s.started++
		s.mu.Unlock()
		err := sync()
		s.mu.Lock()
		s.completed, s.err = s.started, err
		s.cond.Broadcast()
	}
	return s.err
}
