package diskbackend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/index"
)

// TestSearchesForRowsArePaced: they run one at a time. Those of one host take a quarter of the
// time, and another host does not wait for that.
func TestSearchesForRowsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		took, searches, keys := time.Second, 0, 0
		s := newRowSearches(ctx, func(_ context.Context, of ...episode.Key) (index.SearchResult, error) {
			searches++
			keys += len(of)
			time.Sleep(took)
			return index.SearchResult{}, nil
		})
		defer s.close()
		defer cancel()
		search := func(host episode.Name) (elapsed time.Duration) {
			begun := time.Now()
			_, err := s.lookUp(ctx, host, episode.Key{Host: host, Name: "e"})
			fixture.Must(t, err)
			return time.Since(begun)
		}
		begun := time.Now()
		for range 3 {
			search("lab-01")
		}
		if took := time.Since(begun); took != 9*time.Second {
			t.Errorf("three searches of 1 s took %v, want 9 s", took)
		}
		if took := search("lab-02"); took != 2*time.Second {
			t.Errorf("another host waited %v, want 2 s: a shared pause and its search", took)
		}

		time.Sleep(time.Minute)
		searches, keys, begun = 0, 0, time.Now()
		var all sync.WaitGroup
		for i := range 40 { // the first one searches alone
			all.Go(func() { search(episode.Name(fmt.Sprint("lab-", i%4))) })
			synctest.Wait()
		}
		all.Wait()
		if took := time.Since(begun); searches != 2 || keys != 40 || took != 3*time.Second {
			t.Errorf("40 requests at once: %d searches of %d keys in %v, want 2 of 40 in 3 s", searches, keys, took)
		}

		took = time.Hour
		search("lab-01")
		took = 0
		if took := search("lab-01"); took != 30*time.Second {
			t.Errorf("the pause after a long search is %v, want 30 s", took)
		}
	})
}

// TestSearchForRowsEndsWithItsRequest, and with the receiver.
func TestSearchForRowsEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, stopped := episode.Key{Host: "h", Name: "1"}, errors.New("stopped")
		life, stop := context.WithCancelCause(t.Context())
		s := newRowSearches(life, func(ctx context.Context, _ ...episode.Key) (index.SearchResult, error) {
			<-ctx.Done()
			return index.SearchResult{}, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := s.lookUp(ctx, "h", key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a request that ended: %v", err)
		}
		time.AfterFunc(time.Minute, func() { stop(stopped) })
		if _, err := s.lookUp(t.Context(), "h", key); !errors.Is(err, stopped) {
			t.Errorf("a receiver that stops: %v", err)
		}
		s.close()
	})
}
