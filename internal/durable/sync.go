package durable

import (
	"runtime"
	"sync"
)

// giveWay is called before a sync that others may have company for. It lets run who
// can: some of them are about to sync as well, and a file system commits at once what
// it is asked for at one time. Whoever syncs would also keep one of the runtime's
// threads from them while it waits for the disk.
func giveWay() { runtime.Gosched() }

// syncs lets all who want one directory synced share the sync: many small files
// are made durable at once, and each of them needs its directory to be. Who asks
// while one runs gets the next, together with all others who asked meanwhile: the
// running one may have begun before the name was there.
type syncs struct {
	mu           sync.Mutex // guards the fields below
	ended        *sync.Cond
	begun, whole int   // syncs that have begun, and those of them that have ended
	failed       error // of one: no later one means anything
}

func newSyncs() *syncs {
	s := new(syncs)
	s.ended = sync.NewCond(&s.mu)
	return s
}

// do returns when a sync has ended that began after the call, or an error if that
// or any before it failed.
func (s *syncs) do(sync func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for want := s.begun + 1; s.whole < want && s.failed == nil; {
		if s.begun > s.whole {
			s.ended.Wait()
			continue
		}
		s.begun++
		s.mu.Unlock()
		giveWay()
		err := sync()
		s.mu.Lock()
		s.whole, s.failed = s.begun, err
		s.ended.Broadcast()
	}
	return s.failed
}
