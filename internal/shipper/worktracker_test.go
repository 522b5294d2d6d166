package shipper

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A request that is repeated begins before what is sent: the bytes move, and the position does not go back.
func TestRepeatedRequestKeepsThePosition(t *testing.T) {
	w := new(workTracker).startWork("run-1", Send)
	w.advance(10, 10)
	w.advance(5, 5)
	if p, n := w.position.Load(), w.moved.Load(); p != 10 || n != 15 {
		t.Errorf("position %d, %d bytes moved, want 10 and 15", p, n)
	}
}

// A worker that writes is not stuck, however long it takes: the watchdog must not end the daemon.
func TestWritingIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work workTracker
		w := work.startWork("run-1", Pack)
		for total := range 10 {
			time.Sleep(stuckAfter / 2)
			w.recordWrite(1, int64(total+1))
		}
		if !work.isProgressing() {
			t.Error("it counts as stuck")
		}
		time.Sleep(stuckAfter + time.Second)
		if work.isProgressing() {
			t.Error("once it writes no more, it does not count as stuck")
		}
	})
}

func TestTransfersAreInTheOrderOfTheirStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work workTracker
		work.startWork("b", Send)
		work.startWork("a", Send)
		time.Sleep(time.Second)
		work.startWork("0", Pack)
		if list := work.listTransfers(); list[0].Episode != "a" || list[1].Episode != "b" || list[2].Episode != "0" {
			t.Errorf("got %v", list)
		}
	})
}

// All are packed once each scanned episode has a result, or waits to be sent.
func TestAllIsPackedWhenNothingElseIsToBePacked(t *testing.T) {
	var s Shipper
	s.tally.tally = Tally{Scanned: 7, Shipped: 1, AlreadyPresent: 1, Transient: 1, Conflicts: 1, Held: 1}
	s.countToSend(1, candidate{size: 10})
	if a := s.Activity(); a.AllPacked || a.PackedBytes != 10 {
		t.Errorf("while one is packed: %+v", a)
	}
	s.countToSend(1, candidate{size: 20})
	if a := s.Activity(); !a.AllPacked || a.PackedBytes != 30 {
		t.Errorf("when both wait: %+v", a)
	}
}

// What was delivered is counted once, while it is retired too.
func TestDeliveredBytesAreCountedOnce(t *testing.T) {
	var s Shipper
	w := s.work.startWork("run-1", Send)
	w.size.Store(10)
	w.advance(10, 10)
	s.countToSend(1, candidate{size: 10})
	check := func(when string) {
		t.Helper()
		if a := s.Activity(); a.SentBytes != 10 || a.PackedBytes != 10 {
			t.Errorf("%s: %d of %d bytes are sent, want 10 of 10", when, a.SentBytes, a.PackedBytes)
		}
	}
	check("while it is sent")
	w.delivered.Store(true)
	s.outcomes.deliveredBytes.Add(10)
	check("while it is retired")
	s.work.endWork(w)
	s.countToSend(-1, candidate{size: 10})
	check("at the end")
}

// It is asked at any time: this is for the race detector.
func TestActivityIsAskedWhileWorkersWork(t *testing.T) {
	var s Shipper
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for i := range int64(200) {
				w := s.work.startWork("run-1", Pack)
				w.recordWrite(1, i)
				s.Activity()
				s.work.endWork(w)
			}
		})
	}
	workers.Wait()
	if a := s.Activity(); len(a.Transfers) != 0 {
		t.Errorf("at the end: %+v", a)
	}
}
