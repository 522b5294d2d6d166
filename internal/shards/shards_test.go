package shards

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/fixture"
	"cis490/internal/scrub"
)

const day = 24 * time.Hour

// join joins a pass over a number of batches.
func join(t *testing.T, in *buckettest.Memory, batches int64) *Pass {
	t.Helper()
	p, err := Join(t.Context(), in, slog.New(slog.DiscardHandler), "receiver", day, func(context.Context) (int64, error) { return batches, nil })
	fixture.Must(t, err)
	return p
}

// next returns the next shard, which there must be.
func next(t *testing.T, p *Pass) Shard {
	t.Helper()
	s, more, err := p.Next(t.Context())
	if err != nil || !more {
		t.Fatalf("got %+v, %t, %v, want a shard", s, more, err)
	}
	return s
}

func TestShardsCoverEachBatchOnce(t *testing.T) {
	for _, batches := range []int64{0, 1, 2, 63, 64, 65, 1000, 1_000_003} {
		synctest.Test(t, func(t *testing.T) {
			p := join(t, new(buckettest.Memory), batches)
			end := int64(0)
			for range p.start.Shards {
				s := next(t, p)
				if s.First != end+1 || s.Last < end {
					t.Errorf("%d batches: got the shard %+v after %d", batches, s, end)
				}
				end = s.Last
				fixture.Must(t, p.Finish(t.Context(), s, scrub.Progress{Objects: s.Last - s.First + 1}))
			}
			if _, more, err := p.Next(t.Context()); more || err != nil || p.Ended().Objects != batches || end != batches {
				t.Errorf("%d batches: got %+v, %t, %v, want as many", batches, p.Ended(), more, err)
			}
		})
	}
}

// Two receivers that begin at once share one pass, and the first result of a shard counts.
func TestAShardHasOneResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		var passes [4]*Pass
		var joining sync.WaitGroup
		for i := range passes {
			joining.Go(func() { passes[i] = join(t, in, 3) })
		}
		joining.Wait()
		for _, p := range passes {
			if p.number != 1 || p.start != passes[0].start {
				t.Errorf("got the pass %d, %+v, want %+v", p.number, p.start, passes[0].start)
			}
		}
		dead, one := passes[0], passes[1]
		lost := next(t, dead)
		for range 2 {
			s := next(t, one)
			fixture.Must(t, one.Finish(t.Context(), s, scrub.Progress{Objects: 1}))
		}
		begun := time.Now()
		again := next(t, one)
		if again != lost || time.Since(begun) < staleAfter || time.Since(begun) > 2*staleAfter {
			t.Errorf("got %+v after %v, want the shard of the receiver that died, after %v", again, time.Since(begun), staleAfter)
		}
		fixture.Must(t, one.Finish(t.Context(), again, scrub.Progress{Objects: 10}))
		fixture.Must(t, dead.Finish(t.Context(), lost, scrub.Progress{Objects: 100})) // it was only slow
		for _, p := range []*Pass{one, dead, passes[2]} {
			if _, more, err := p.Next(t.Context()); more || err != nil || p.Ended().Objects != 12 {
				t.Errorf("got %+v, %v, want 12 objects", p.Ended(), err)
			}
		}
		// A receiver that wakes up in a later pass takes no shard of the former ones.
		for range 2 {
			time.Sleep(day)
			p := join(t, in, 1)
			fixture.Must(t, p.Finish(t.Context(), next(t, p), scrub.Progress{Objects: 1}))
			_, _, err := p.Next(t.Context())
			fixture.Must(t, err)
		}
		if s, more, err := passes[3].Next(t.Context()); more || err != nil || passes[3].Ended().Objects != 1 {
			t.Errorf("after other passes: got %+v, %t, %v, want none", s, more, err)
		}
		for _, name := range in.Names() {
			if n := numberOf(name); n != 3 {
				t.Errorf("%s is left of a former pass", name)
			}
		}
	})
}

// A receiver that is at work keeps its shard, however long that takes.
func TestARenewedClaimIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		slow, other := join(t, in, 1), join(t, in, 1)
		s := next(t, slow)
		ended := make(chan error, 1)
		go func() {
			_, _, err := other.Next(t.Context())
			ended <- err
		}()
		for range 500 {
			time.Sleep(17 * time.Second)
			slow.Renew(t.Context(), s)
		}
		fixture.Must(t, slow.Finish(t.Context(), s, scrub.Progress{Objects: 1}))
		fixture.Must(t, <-ended)
		if other.Ended() == nil || other.Ended().Objects != 1 {
			t.Errorf("got %+v, want the result of the other receiver", other.Ended())
		}
	})
}

// A pass that could not open everything does not count as complete.
func TestAnIncompletePassIsNotWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		var starts []time.Time
		for _, notOpened := range []int64{0, 1} {
			p := join(t, in, 1)
			starts = append(starts, p.Started())
			fixture.Must(t, p.Finish(t.Context(), next(t, p), scrub.Progress{NotOpened: notOpened, Unreadable: notOpened}))
			_, _, err := p.Next(t.Context())
			fixture.Must(t, err)
			time.Sleep(day)
		}
		got, err := Status(t.Context(), in)
		if err != nil || !got.WholeSince.Equal(starts[0]) || !got.Started.Equal(starts[1]) || got.Unreadable != 1 {
			t.Errorf("got %+v, %v, want it whole since %v", got, err, starts[0])
		}
	})
}

func TestStatusOfAPassInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := new(buckettest.Memory)
		if got, err := Status(t.Context(), in); err != nil || !got.Started.IsZero() {
			t.Errorf("before the first pass: got %+v, %v", got, err)
		}
		p := join(t, in, 3)
		for want := range int64(3) {
			got, err := Status(t.Context(), in)
			if err != nil || got.Objects != want || !got.Started.Equal(p.Started()) || !got.Ended.IsZero() {
				t.Errorf("after %d shards: got %+v, %v", want, got, err)
			}
			fixture.Must(t, p.Finish(t.Context(), next(t, p), scrub.Progress{Objects: 1}))
		}
	})
}

// An error of the engine ends what a receiver does, and it continues later.
func TestAnErrorOfTheEngineEndsNothing(t *testing.T) {
	for n := 1; ; n++ {
		failed := false
		synctest.Test(t, func(t *testing.T) {
			requests, over := 0, false
			in := &buckettest.Memory{Fault: func(op, _ string) buckettest.Fault {
				requests++
				if !over && requests == n && op != buckettest.OpRemove {
					failed = true
					return []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter}[n%2]
				}
				return buckettest.None
			}}
			for range 3 {
				p, err := Join(t.Context(), in, slog.New(slog.DiscardHandler), "receiver", day, func(context.Context) (int64, error) { return 2, nil })
				for err == nil && p.Ended() == nil {
					var s Shard
					var more bool
					if s, more, err = p.Next(t.Context()); err == nil && more {
						err = p.Finish(t.Context(), s, scrub.Progress{Objects: 1})
					}
				}
			}
			over = true
			if got, err := Status(t.Context(), in); err != nil || got.Objects != 2 || got.Ended.IsZero() {
				t.Errorf("request %d failed: got %+v, %v; %s", n, got, err, strings.Join(in.Names(), " "))
			}
		})
		if !failed {
			break
		}
	}
}

func FuzzNumberOf(f *testing.F) {
	f.Add("scrub/passes/00000012.json")
	f.Add("scrub/results/00000012/017.json")
	f.Add("scrub/x")
	f.Fuzz(func(t *testing.T, name string) {
		n := numberOf(name)
		if n > 0 && !slices.Contains(strings.Split(strings.TrimSuffix(name, suffix), "/"), fmt.Sprintf("%08d", n)) {
			t.Errorf("%q: got the pass %d", name, n)
		}
	})
}
