package s3backend

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cis490/internal/buckettest"
	"cis490/internal/digest"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/wire"
)

var (
	rounds = flag.Int("rounds", 30, "number of rounds of TestRandomRounds")
	seed   = flag.Uint64("seed", 0, "seed of the first round; 0: a random one")
)

// faultOneIn is how rare faults are in a round.
const faultOneIn = 25

// chaos makes some requests fail, each time in a random way, until it is stopped.
type chaos struct {
	in *buckettest.Memory

	mu      sync.Mutex // guards the fields below
	random  *rand.Rand
	stopped bool
	faults  int
}

func (c *chaos) fault(string, string) buckettest.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.random.IntN(faultOneIn) > 0 {
		return buckettest.None
	}
	c.faults++
	return []buckettest.Fault{buckettest.LostBefore, buckettest.LostAfter, buckettest.Late, buckettest.Full}[c.random.IntN(4)]
}

func (c *chaos) intN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

func (c *chaos) stop() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	return c.faults
}

// ledger has what hosts were told.
type ledger struct {
	mu      sync.Mutex
	acked   []wire.Receipt
	digests map[episode.Key]digest.Digest
	refused int
}

func (l *ledger) add(t *testing.T, u wire.Upload, got wire.Receipt, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, wire.Conflict) {
		l.refused++
		return
	}
	if err != nil {
		t.Errorf("%s: %v", u.Key, err)
		return
	}
	if of, known := l.digests[u.Key]; known && of != got.Digest {
		t.Errorf("%s was acknowledged with two digests", u.Key)
	}
	l.digests[u.Key] = got.Digest
	l.acked = append(l.acked, got)
}

// round lets three hosts send episodes to three receivers, which crash, through a bucket that fails.
// Some episodes are sent twice at once, and some are two recordings of one name.
func round(t *testing.T, number uint64, spool string) (acked, faults int) {
	in := newBucket()
	c := &chaos{in: in, random: rand.New(rand.NewPCG(number, 0))}
	in.Fault = c.fault
	// Those that stop may be in use: their requests end as if the process was killed.
	var receivers [3]atomic.Pointer[Backend]
	for i := range receivers {
		receivers[i].Store(openFaulty(t, in, spool))
	}
	l := &ledger{digests: make(map[episode.Key]digest.Digest)}
	var g sync.WaitGroup
	for host := range 3 {
		for e := range 4 {
			size := 500 + c.intN(3*testPart)*c.intN(2)*3
			recordings := 1 + c.intN(2)
			for sender := range 1 + c.intN(2) {
				archive := noise(number<<8|uint64(16*host+4*e+sender%recordings), size)
				u := uploadOf(fmt.Sprintf("host-%d", host), fmt.Sprintf("run-%d", e), archive)
				g.Go(func() {
					var got wire.Receipt
					err := error(buckettest.ErrLost)
					for range 60 {
						time.Sleep(time.Duration(c.intN(1000)) * time.Millisecond) // of the test's clock
						got, err = sendOnce(t.Context(), receivers[c.intN(len(receivers))].Load(), u, archive)
						if err == nil || errors.Is(err, wire.Conflict) {
							break
						}
					}
					l.add(t, u, got, err)
				})
			}
		}
	}
	g.Go(func() {
		for range 4 {
			time.Sleep(time.Duration(c.intN(1500)) * time.Millisecond)
			in.Release()
			i := c.intN(len(receivers))
			fixture.Must(t, receivers[i].Swap(openFaulty(t, in, spool)).Close())
		}
	})
	g.Wait()
	faults = c.stop()
	in.Release()
	for i := range receivers {
		fixture.Must(t, receivers[i].Load().Close())
	}
	checkCustody(t, in, l.acked)
	return len(l.acked), faults
}

func TestRandomRounds(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	spool := t.TempDir()
	acks, faults := 0, 0
	for n := range uint64(*rounds) {
		synctest.Test(t, func(t *testing.T) {
			a, f := round(t, first+n, spool)
			acks, faults = acks+a, faults+f
			if t.Failed() {
				t.Logf("round %d of %d, with -seed %d", n+1, *rounds, first+n)
			}
		})
	}
	t.Logf("%d rounds from seed %d: %d acknowledgements, %d faults", *rounds, first, acks, faults)
}
