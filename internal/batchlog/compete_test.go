package batchlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
)

// TestReceiversThatCompeteShareBatches: each row costs few requests, however many receivers append.
func TestReceiversThatCompeteShareBatches(t *testing.T) {
	const uploads, rows = 16, 50 // at once at each receiver, and of each of them
	for _, test := range []struct {
		receivers int
		most      float64 // requests per row
	}{{1, 0.18}, {2, 0.3}, {4, 0.5}} {
		t.Run(fmt.Sprint(test.receivers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := &buckettest.Memory{Fault: func(op, name string) buckettest.Fault {
					time.Sleep(4*time.Millisecond + rand.N(4*time.Millisecond))
					return buckettest.None
				}}
				start := time.Now()
				var g sync.WaitGroup
				for r := range test.receivers {
					l := openLog(t, in)
					for u := range uploads {
						g.Go(func() {
							for n := range rows {
								time.Sleep(8*time.Millisecond + rand.N(8*time.Millisecond)) // for the archive and its commit
								row := newRow(fmt.Sprintf("lab-%d-%d", r, u), fmt.Sprintf("run-%d", n))
								if _, err := l.Ensure(t.Context(), row, l.Head()); err != nil {
									t.Error(err)
								}
							}
						})
					}
				}
				g.Wait()
				all := test.receivers * uploads * rows
				took, requests := time.Since(start), 0
				for _, n := range in.Requests() {
					requests += n
				}
				perRow := float64(requests) / float64(all)
				t.Logf("%.2f requests per row, %.0f rows a second", perRow, float64(all)/took.Seconds())
				if perRow > test.most {
					t.Errorf("%.2f requests per row, want at most %.2f: %v", perRow, test.most, in.Requests())
				}
				if got := len(rowsOf(t, exported(t, in))); got != all {
					t.Errorf("%d rows, want %d", got, all)
				}
			})
		})
	}
}

// hidingBucket has objects that cannot be opened, and does not create them again.
type hidingBucket struct{ bucket.Bucket }

func (hidingBucket) Open(context.Context, string) (io.ReadCloser, bucket.Info, error) {
	return nil, bucket.Info{}, fs.ErrNotExist
}

func TestObjectStoreThatHidesABatchIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		l := openLog(t, hidingBucket{in})
		ensure(t, openLog(t, in), newRow("lab-1", "run-1"))
		if _, err := l.Ensure(t.Context(), newRow("lab-2", "run-1"), 0); !errors.Is(err, errUnreadable) {
			t.Errorf("got %v, want %v", err, errUnreadable)
		}
	})
}
