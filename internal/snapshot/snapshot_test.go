package snapshot_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/snapshot"
)

// TestManyViewersShareOneReading: at one moment, and one after the other.
func TestManyViewersShareOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared snapshot.Shared[int]
		reads := 0
		read := func() int { reads++; time.Sleep(time.Second); return reads }
		var viewers sync.WaitGroup
		for range 10 {
			viewers.Go(func() {
				if got := shared.Latest(read); got != 1 {
					t.Errorf("a viewer got reading %d", got)
				}
			})
		}
		viewers.Wait()
		for range 10 * 60 {
			time.Sleep(time.Second)
			shared.Latest(read)
		}
		if reads < 20 || reads > 30 { // a twentieth of ten minutes
			t.Errorf("%d readings of one second in ten minutes", reads)
		}
	})
}
