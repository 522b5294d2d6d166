package batchlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/bucket"
	"cis490/internal/buckettest"
	"cis490/internal/fixture"
)

// grownBucket has a log that needs no memory: its first batches are made up when they are read. What
// follows them is in Memory.
type grownBucket struct {
	*buckettest.Memory
	batches, rowsEach int64
	requests          atomic.Int64
}

func (g *grownBucket) body(n int64) []byte {
	var b []byte
	for i := range g.rowsEach {
		row := newRow("host", fmt.Sprintf("run-%d-%d", n, i))
		row.ReceivedAt = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
		b = row.Append(b)
	}
	return b
}

func (g *grownBucket) made(name string) (int64, bool) {
	n := numberOf(name)
	return n, n > 0 && n <= g.batches
}

func (g *grownBucket) Open(ctx context.Context, name string) (io.ReadCloser, bucket.Info, error) {
	g.requests.Add(1)
	n, made := g.made(name)
	if !made {
		return g.Memory.Open(ctx, name)
	}
	b := g.body(n)
	return io.NopCloser(bytes.NewReader(b)), bucket.Info{Name: name, Size: int64(len(b))}, nil
}

func (g *grownBucket) Stat(ctx context.Context, name string) (bucket.Info, error) {
	g.requests.Add(1)
	if _, made := g.made(name); made {
		return bucket.Info{Name: name}, nil
	}
	return g.Memory.Stat(ctx, name)
}

func (g *grownBucket) List(ctx context.Context, prefix, after string) iter.Seq2[bucket.Info, error] {
	g.requests.Add(1)
	if n, made := g.made(after); made && n < g.batches {
		panic(fmt.Sprintf("listed after batch %d of %d: that is not its end", n, g.batches))
	}
	return g.Memory.List(ctx, prefix, after)
}

// Ten million rows, as they come from uploads one at a time or from many at once, cost a start some
// dozens of requests, and an upload or a reader that follows the log no more than an empty log.
func TestALogOfTenMillionRowsCostsWhatIsNew(t *testing.T) {
	for _, tt := range []struct {
		name              string
		batches, rowsEach int64
	}{
		{"empty", 0, 0},
		{"one row each", 10_000_000, 1},
		{"full batches", 10_000_000 / maxRows, maxRows},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := &grownBucket{Memory: new(buckettest.Memory), batches: tt.batches, rowsEach: tt.rowsEach}
			l := openLog(t, in)
			if got := l.Head(); got != tt.batches {
				t.Errorf("end of the log: got batch %d, want %d", got, tt.batches)
			}
			if got := in.requests.Swap(0); got > 60 {
				t.Errorf("requests of a start: got %d, want at most 60", got)
			}

			before := in.Requests()
			ensure(t, l, newRow("host", "new"))
			after := in.Requests()
			after[buckettest.OpCreate]--
			maps.DeleteFunc(after, func(op string, n int) bool { return n == before[op] })
			if reads := in.requests.Swap(0); len(after) > 0 || reads > 0 {
				t.Errorf("an append sends more than one request: also %v, and %d to read", after, reads)
			}

			end, err := Export(t.Context(), in, tt.batches+1, func([]byte) error { return nil })
			fixture.Must(t, err)
			if got := in.requests.Load(); end != tt.batches+2 || got > 4 {
				t.Errorf("following one new batch: got %d requests up to batch %d, want at most 4 up to %d", got, end, tt.batches+2)
			}
		})
	}
}
