package admission_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/admission"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// TestHostsShareThePlaces: hosts that have more than their share must give slots up when others
// come, and only those hosts.
func TestHostsShareThePlaces(t *testing.T) {
	p := &admission.Limiter{Total: 16, PerHost: 8, MaxWait: 0}
	held := map[episode.Name][]func(){}
	take := func(host episode.Name, want error) {
		t.Helper()
		free, err := p.Acquire(t.Context(), host)
		if !errors.Is(err, want) {
			t.Fatalf("%s, who has %d: %v, want %v", host, len(held[host]), err, want)
		}
		if err == nil {
			held[host] = append(held[host], free)
		}
	}
	release := func(host episode.Name) {
		held[host][0]()
		held[host] = held[host][1:]
	}
	for range 8 {
		take("a", nil)
	}
	take("a", admission.HostBusy)
	for range 8 {
		take("b", nil)
	}
	take("c", admission.Busy) // nothing is left
	release("a")
	take("a", admission.Busy) // of which it has its share
	take("c", nil)
	for range 3 {
		release("b")
		take("b", admission.Busy) // it has more than a third of all
		take("c", nil)
	}
	release("a")
	take("a", admission.Busy)
	take("b", admission.Busy)
	take("c", nil) // the host with the least
	if a, b, c := len(held["a"]), len(held["b"]), len(held["c"]); a != 6 || b != 5 || c != 5 {
		t.Errorf("a has %d, b has %d, c has %d, want 6, 5 and 5", a, b, c)
	}
	// A single host gets the maximum of one host.
	alone := &admission.Limiter{Total: 16, PerHost: 8, MaxWait: 0}
	for i := range 8 {
		if _, err := alone.Acquire(t.Context(), "a"); err != nil {
			t.Errorf("place %d of a host that is alone: %v", i, err)
		}
	}
}

// TestARequestWithoutASlotIsQueued: a free slot goes to the host that has the fewest, and
// among those to the first that came. A request that leaves the queue takes no slot with it.
func TestARequestWithoutASlotIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &admission.Limiter{Total: 2, PerHost: 3, MaxWait: time.Minute}
		var mu sync.Mutex
		var got []string
		came := func(who string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, who)
		}
		wait := func(ctx context.Context, who string, host episode.Name) {
			go func() {
				free, err := p.Acquire(ctx, host)
				if err != nil {
					came(who + ": " + err.Error())
					return
				}
				came(who)
				time.Sleep(10 * time.Second)
				free()
			}()
			synctest.Wait()
		}
		ctx := t.Context()
		leaves, leave := context.WithCancel(ctx)
		wait(ctx, "a1", "a")
		time.Sleep(time.Second)
		wait(ctx, "b1", "b")
		wait(leaves, "c0", "c")
		wait(ctx, "b2", "b")
		wait(ctx, "c1", "c")
		wait(ctx, "c2", "c")
		wait(ctx, "a2", "a")
		leave()
		time.Sleep(time.Minute)
		synctest.Wait()
		// b1 still has one slot when a1 releases the other.
		if want := []string{"a1", "b1", "c0: context canceled", "c1", "b2", "c2", "a2"}; !slices.Equal(got, want) {
			t.Errorf("they came in as %q, want %q", got, want)
		}
	})
}

// TestAHostWaitsForItsOwn: a host that sends more requests than its maximum may queue as many
// again, and uses no slots beyond its own.
func TestAHostWaitsForItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &admission.Limiter{Total: 8, PerHost: 2, MaxWait: 10 * time.Second}
		var waiting []chan error
		var free []func()
		for range 2 {
			done, err := p.Acquire(t.Context(), "a")
			fixture.Must(t, err)
			free = append(free, done)
		}
		for range 2 {
			answer := make(chan error, 1)
			waiting = append(waiting, answer)
			go func() {
				_, err := p.Acquire(t.Context(), "a")
				answer <- err
			}()
			synctest.Wait() // in this order
		}
		if _, err := p.Acquire(t.Context(), "a"); !errors.Is(err, admission.HostBusy) {
			t.Errorf("the fifth: %v, want host-busy at once", err)
		}
		if _, err := p.Acquire(t.Context(), "b"); err != nil {
			t.Errorf("another host: %v", err)
		}
		time.Sleep(5 * time.Second)
		free[0]()
		if err := <-waiting[0]; err != nil {
			t.Errorf("the first that waited: %v", err)
		}
		start := time.Now()
		if err := <-waiting[1]; !errors.Is(err, admission.HostBusy) || time.Since(start) != 5*time.Second {
			t.Errorf("the second: %v after %v, want host-busy at the end of its wait", err, time.Since(start))
		}
	})
}

// TestAnUnclaimedShareIsGiven to the waiters, at the latest when demandTTL ends.
func TestAnUnclaimedShareIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &admission.Limiter{Total: 4, PerHost: 4, MaxWait: 10 * time.Second}
		take := func(host episode.Name) func() {
			free, err := p.Acquire(t.Context(), host)
			fixture.Must(t, err)
			return free
		}
		free := take("c")
		take("c")
		take("c")
		take("a")
		if _, err := p.Acquire(t.Context(), "b"); !errors.Is(err, admission.Busy) { // and does not come again
			t.Errorf("b: %v, want busy", err)
		}
		free()
		time.Sleep(2 * time.Second)
		if _, err := p.Acquire(t.Context(), "a"); err != nil {
			t.Errorf("a is refused beside a free place: %v", err)
		}
	})
}

// TestNoRequestWaitsForASlotForever: uploads may take hours.
func TestNoRequestWaitsForASlotForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &admission.Limiter{Total: 1, PerHost: 1, MaxWait: 10 * time.Second}
		free, err := p.Acquire(t.Context(), "a")
		fixture.Must(t, err)
		start := time.Now()
		_, err = p.Acquire(t.Context(), "b")
		problem, _ := errors.AsType[*admission.RefusedError](err)
		if took := time.Since(start); problem == nil || problem.Reason != admission.Busy || problem.RetryAfter <= 0 || took != 10*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		free()
		if _, err := p.Acquire(t.Context(), "b"); err != nil {
			t.Errorf("a free place: %v", err)
		}
	})
}
