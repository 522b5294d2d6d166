package sharedhosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/batchlog"
	"cis490/internal/buckettest"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
)

// Each change that a command reported is in the newest version, whatever happened to requests.
func TestConcurrentChangesUnderFaultsLoseNone(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) { changeConcurrently(t, seed) })
	}
}

func changeConcurrently(t *testing.T, seed uint64) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	in := &buckettest.Memory{Fault: func(string, string) buckettest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(3) > 0 {
			return buckettest.None
		}
		return []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter, buckettest.Late}[random.IntN(3)]
	}}
	const machines, changes = 4, 5
	var done sync.WaitGroup
	var disabled []episode.Name // guarded by mu
	for i := range machines {
		m := newMachine(t, in)
		done.Go(func() {
			for j := range changes {
				host := episode.Name(fmt.Sprintf("lab-%d-%d", i, j))
				got, err := m.list.Disable(t.Context(), []episode.Name{host}, time.Now())
				if err != nil {
					continue // 30 s of bad luck
				}
				if !got[0].Changed {
					t.Errorf("seed %d: %s: got %+v, want changed", seed, host, got[0])
				}
				mu.Lock()
				disabled = append(disabled, host)
				mu.Unlock()
				in.Release()
			}
		})
	}
	done.Wait()
	in.Release()
	in.Fault = nil
	if len(disabled) < machines*changes/2 {
		t.Errorf("seed %d: %d of %d changes succeeded", seed, len(disabled), machines*changes)
	}
	last := newest(t, in)
	for _, host := range disabled {
		if !strings.Contains(last, fmt.Sprintf("%q", host)) {
			t.Errorf("seed %d: %s is not disabled: %s", seed, host, last)
		}
	}
	if _, err := NewList(in).findNewest(t.Context(), 0); err != nil {
		t.Errorf("seed %d: %v", seed, err)
	}
}

// A command whose first request had a fault succeeds all the same, says what it changed, and changes
// it once.
func TestAChangeSurvivesEachFault(t *testing.T) {
	for _, op := range []string{buckettest.OpList, buckettest.OpOpen, buckettest.OpCreate} {
		for _, fault := range []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter, buckettest.Late} {
			synctest.Test(t, func(t *testing.T) {
				in := new(buckettest.Memory)
				m := newMachine(t, in)
				_, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
				fixture.Must(t, err)
				failed := false
				in.Fault = func(o, _ string) buckettest.Fault {
					if o != op || failed {
						return buckettest.None
					}
					failed = true
					return fault
				}
				got, err := m.list.Disable(t.Context(), []episode.Name{"lab-02"}, time.Now())
				if err != nil || !got[0].Changed || !failed {
					t.Errorf("%s, fault %d: got %+v, %v, want changed", op, fault, got, err)
				}
				in.Release()
				if n := len(in.Names()); n != 2 {
					t.Errorf("%s, fault %d: got %d versions, want 2: %s", op, fault, n, newest(t, in))
				}
			})
		}
	}
}

// A request that arrives after its command has given up takes no change back.
func TestALateRequestTakesNoChangeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &buckettest.Memory{Fault: func(op, _ string) buckettest.Fault {
			if op == buckettest.OpCreate {
				return buckettest.Late
			}
			return buckettest.None
		}}
		one, other := newMachine(t, in), newMachine(t, in)
		_, err := one.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
		if err == nil || !strings.Contains(err.Error(), "repeat the command") {
			t.Errorf("no request was answered: got %v, want that the command must be repeated", err)
		}
		in.Fault = nil
		_, err = other.list.Disable(t.Context(), []episode.Name{"lab-02"}, time.Now())
		fixture.Must(t, err)
		if in.Release() == 0 {
			t.Fatal("no request was late")
		}
		if last := newest(t, in); !strings.Contains(last, "lab-02") || strings.Contains(last, "lab-01") {
			t.Errorf("got %s, want lab-02 only", last)
		}
	})
}

// A copy of the store fences the log and then reads the list. A command whose version comes later must not
// say that it has succeeded.
func TestAChangeBehindAStoreThatHasLeftFails(t *testing.T) {
	in := new(buckettest.Memory)
	m := newMachine(t, in)
	fenced := false
	in.Fault = func(op, name string) buckettest.Fault {
		if op == buckettest.OpCreate && strings.HasPrefix(name, accessPrefix) && !fenced {
			fenced = true
			fixture.Must(t, batchlog.Fence(t.Context(), in, 0, "the disk", "x"))
		}
		return buckettest.None
	}
	got, err := m.list.Disable(t.Context(), []episode.Name{"lab-01"}, time.Now())
	if _, moved := errors.AsType[*batchlog.MovedError](err); !moved {
		t.Errorf("got %+v, %v, want that the store has moved", got, err)
	}
}

func TestAnIdleChangeStoresNothing(t *testing.T) {
	in := new(buckettest.Memory)
	m := newMachine(t, in)
	got, err := m.list.Enable(t.Context(), []episode.Name{"lab-01"})
	if err != nil || got[0].Changed || len(in.Names()) != 0 {
		t.Errorf("got %+v, %v, and the objects %q, want none", got, err, in.Names())
	}
}

// A list that lost its newest versions would give access to hosts that were disabled.
func TestAnOlderBucketIsRefused(t *testing.T) {
	in, older := new(buckettest.Memory), new(buckettest.Memory)
	m := newMachine(t, in)
	for _, host := range []episode.Name{"lab-01", "lab-02", "lab-03"} {
		_, err := m.list.Disable(t.Context(), []episode.Name{host}, time.Now())
		fixture.Must(t, err)
	}
	put(t, older, accessName(1), `{"schema_version":1,"disabled":[],"version":1}`)
	m.list.Shared = NewList(older)
	if _, err := m.list.Enable(t.Context(), []episode.Name{"lab-01"}); !errors.Is(err, ErrVersionMissing) {
		t.Errorf("enable: got %v, want %v", err, ErrVersionMissing)
	}
	if _, err := m.follow(older); !errors.Is(err, ErrVersionMissing) {
		t.Errorf("start: got %v, want %v", err, ErrVersionMissing)
	}
	put(t, older, accessName(3), `{"schema_version":1,"disabled":[],"version":3}`)
	if _, err := newMachine(t, older).follow(older); !errors.Is(err, ErrVersionMissing) {
		t.Errorf("a gap: got %v, want %v", err, ErrVersionMissing)
	}
}

func TestACommandWorksWhereNoReceiverHasRun(t *testing.T) {
	in := new(buckettest.Memory)
	list := datadir.HostList{Dir: t.TempDir() + "/missing", Holder: "the test", Shared: NewList(in)}
	got, err := list.Disable(context.Background(), []episode.Name{"lab-01"}, time.Now())
	if err != nil || !got[0].Changed {
		t.Errorf("got %+v, %v, want changed", got, err)
	}
	if last := newest(t, in); !strings.Contains(last, "lab-01") {
		t.Errorf("got %s, want lab-01", last)
	}
}
