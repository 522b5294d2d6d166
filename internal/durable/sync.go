package durable

import (
	"runtime"
	"sync"
)

// yieldBeforeSync is called before a sync that others may have company for. It lets run who
// can: some of them are about to sync as well, and a file system commits at once what
// it is asked for at one time. Whoever syncs would also keep one of the runtime's
// threads from them while it waits for the disk.
func yieldBeforeSync() { runtime.Gosched() }

// syncGroup lets all who want one directory synced share the sync: many small files
// are made durable at once, and each of them needs its directory to be. Who asks
// while one runs gets the next, together with all others who asked meanwhile: the
// running one may have begun before the name was there.
type syncGroup struct {
	mu                 sync.Mutex // guards the fields below
	cond               *sync.Cond
	started, completed int   // syncs that have begun, and those of them that have ended
	err                error // of one: no later one means anything
}

func newSyncGroup() *syncGroup {
	s := new(syncGroup)
	s.cond = sync.NewCond(&s.mu)
	return s
}

// do returns when a sync has ended that began after the call, or an error if that
// or any before it failed.
func (s *syncGroup) do(sync func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for want := s.started + 1; s.completed < want && s.err == nil; {
		if s.started > s.completed {
			s.cond.Wait()
			continue
		}
		s.started++
		s.mu.Unlock()
		yieldBeforeSync()
		err := sync()
		s.mu.Lock()
		s.completed, s.err = s.started, err
		s.cond.Broadcast()
	}
	return s.err
}
