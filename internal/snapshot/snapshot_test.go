package snapshot_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/snapshot"
)

// TestManyViewersShareOneReading: at the same time, and one after the other.
func TestManyViewersShareOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared snapshot.Shared[int]
		var reads atomic.Int64
		read := func() int { return int(reads.Add(1)) }
		var viewers sync.WaitGroup
		for range 10 {
			viewers.Go(func() {
				if got := shared.Latest(read); got != 1 {
					t.Errorf("a viewer got reading %d", got)
				}
			})
		}
		viewers.Wait()
		time.Sleep(snapshot.MinAge)
		if got := shared.Latest(read); got != 2 {
			t.Errorf("later, a viewer got reading %d", got)
		}
	})
}

// TestSlowReadingsAreFurtherApart: viewers must not keep the disk busy.
func TestSlowReadingsAreFurtherApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared snapshot.Shared[int]
		reads := 0
		for begun := time.Now(); time.Since(begun) < 10*time.Minute; time.Sleep(time.Second) {
			shared.Latest(func() int { reads++; time.Sleep(time.Second); return reads })
		}
		if reads < 20 || reads > 30 { // a twentieth of the time
			t.Errorf("%d readings of one second in ten minutes", reads)
		}
	})
}
