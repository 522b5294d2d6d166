package durable

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// TestSyncsAreShared by all callers that asked while one ran, and not by callers that asked
// after the next sync had begun.
func TestSyncsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSyncGroup()
		var ran atomic.Int32
		go_ := make(chan error)
		sync := func() error { ran.Add(1); return <-go_ }
		done := make(chan error, 100)
		ask := func(n int) {
			for range n {
				go func() { done <- s.syncShared(sync) }()
			}
			synctest.Wait()
		}
		ask(1)
		ask(50) // while the first runs
		if ran.Load() != 1 || len(done) != 0 {
			t.Fatalf("%d syncs ran, %d calls returned", ran.Load(), len(done))
		}
		go_ <- nil
		synctest.Wait()
		if ran.Load() != 2 || len(done) != 1 {
			t.Fatalf("after the first: %d syncs ran, %d calls returned; want 2 and 1", ran.Load(), len(done))
		}
		ask(1) // too late for the second
		go_ <- nil
		synctest.Wait()
		if ran.Load() != 3 || len(done) != 51 {
			t.Fatalf("after the second: %d syncs ran, %d calls returned; want 3 and 51", ran.Load(), len(done))
		}
		lost := errors.New("lost")
		ask(10)
		go_ <- lost
		synctest.Wait()
		if ran.Load() != 3 || len(done) != 62 {
			t.Errorf("a failed sync was tried again: %d ran, %d calls returned", ran.Load(), len(done))
		}
		if err := s.syncShared(sync); !errors.Is(err, lost) {
			t.Errorf("after a failure: %v", err)
		}
	})
}
