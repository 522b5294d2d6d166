package transfer

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A request that is repeated begins before what is sent: the bytes move, and the position does not go back.
func TestRepeatedRequestKeepsThePosition(t *testing.T) {
	w := new(workTracker).startWork("run-1", true)
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
		w := work.startWork("run-1", false)
		for total := range 10 {
			time.Sleep(HangTimeout / 2)
			w.beat()
			w.advance(1, int64(total+1))
		}
		if !work.IsProgressing() {
			t.Error("it counts as stuck")
		}
		time.Sleep(HangTimeout + time.Second)
		if work.IsProgressing() {
			t.Error("once it writes no more, it does not count as stuck")
		}
	})
}

func TestTransfersAreInTheOrderOfTheirStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work workTracker
		work.startWork("b", true)
		work.startWork("a", true)
		time.Sleep(time.Second)
		work.startWork("0", false)
		if list := work.Active(); list[0].Episode != "a" || list[1].Episode != "b" || list[2].Episode != "0" {
			t.Errorf("got %v", list)
		}
	})
}

// It is asked at any time: this is for the race detector.
func TestActiveIsAskedAtAnyTime(t *testing.T) {
	var work workTracker
	var workers sync.WaitGroup
	for range 2 {
		workers.Go(func() {
			for i := range int64(200) {
				w := work.startWork("run-1", false)
				w.advance(1, i)
				work.Active()
				work.endWork(w)
			}
		})
	}
	workers.Wait()
	if left := work.Active(); len(left) != 0 {
		t.Errorf("at the end: %+v", left)
	}
}

// What recording costs per 64 KiB that are sent. A daemon is never asked for its activity.
func BenchmarkRecordingOfASentPiece(b *testing.B) {
	var p Pipeline
	w, position := p.startWork("run-1", true), int64(0)
	for b.Loop() {
		w.beat()
		p.readBytes.Add(64 << 10)
		position += 64 << 10
		w.advance(64<<10, position)
	}
}
