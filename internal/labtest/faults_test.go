package labtest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// Faults come in pairs: before the receiver has committed, and after.

func TestLostAnswerIsAlreadyPresentNextTime(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	for i := range 3 {
		name := fmt.Sprintf("run-%d", i)
		h.Episode(name)
		l.Proxy.Next(labtest.Fault{LoseAnswer: true})
		if p := h.Once(); p.Code == 0 || p.Tally != (labtest.Tally{Scanned: 1, Transient: 1}) {
			t.Fatalf("the pass whose answer was lost: exit code %d, %+v", p.Code, p.Tally)
		}
		row := l.RowOf(t, "lab-01", name) // it was committed
		if h.IsShipped(name) {
			t.Fatalf("%s was retired without an answer", name)
		}
		wantNoHolds(t, h)
		l.Check(t)
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, AlreadyPresent: 1})
		if again := l.RowOf(t, "lab-01", name); again != row {
			t.Errorf("the row changed from %+v to %+v", row, again)
		}
		l.Settled(t)
	}
}

func TestUploadCutAnywhereLosesNothing(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	cuts := map[string][]int64{
		"small": {1, 500, 1500, 1800, 2100, 2400, 2700, 3000, 3300, 3600},
		"bulky": {3000, 5000, 300 << 10, 1 << 20, 1<<20 + 2000, 1<<20 + 4000},
	}
	for size, places := range cuts {
		for _, n := range places {
			name := fmt.Sprintf("%s-%d", size, n)
			if size == "small" {
				h.Episode(name)
			} else {
				makeLargeEpisode(t, h, name, 1<<20)
			}
			l.Proxy.Always(labtest.Fault{CutAfter: n})
			p := h.Once()
			l.Check(t)
			l.Proxy.Always(labtest.Fault{})
			if h.IsShipped(name) {
				if p.Code != 0 || p.Shipped+p.AlreadyPresent != 1 {
					t.Errorf("%s: exit code %d, %+v", name, p.Code, p.Tally)
				}
				continue // the cut came after the end, or each cut a little further
			}
			if p.Code == 0 || p.Tally != (labtest.Tally{Scanned: 1, Transient: 1}) {
				t.Errorf("%s: exit code %d, %+v", name, p.Code, p.Tally)
			}
			wantNoHolds(t, h)
			l.Check(t)                                          // which waits for what is still being stored
			stored := fixture.Exists(l.Archive("lab-01", name)) // or only its answer was cut off
			h.Once().Must(t, 0, tallyOf(stored))
		}
	}
	l.Settled(t)
}

// tallyOf is the tally of a pass that ships an episode which was stored before, or was not.
func tallyOf(stored bool) labtest.Tally {
	if stored {
		return labtest.Tally{Scanned: 1, AlreadyPresent: 1}
	}
	return labtest.Tally{Scanned: 1, Shipped: 1}
}

func TestStalledUploadDoesNotSit(t *testing.T) {
	t.Parallel()
	l, h := newLab(t, labtest.Set("limits.idle_timeout", `"1s"`))
	makeLargeEpisode(t, h, "run-1", 2<<20)
	l.Proxy.Always(labtest.Fault{StallAfter: 1 << 20}) // so it takes three of them
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	labtest.Eventually(t, "two uploads that stood still were ended", func() bool {
		return strings.Count(l.Process().Output(), "stalled: no byte for 1s") >= 2
	})
	wantNoHolds(t, h)
	l.Settled(t)
}

func TestHangingPathDoesNotKeepTheDaemon(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	l.Proxy.Always(labtest.Fault{Hang: true})
	h.Episode("run-1")
	d := h.Daemon()
	labtest.Eventually(t, "the shipper has called", func() bool { return l.Proxy.Accepted() > 0 })
	d.Stop(t)
	l.Check(t)
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	l.Settled(t)
}

func TestDeadReceiverCostsOneProbeNotOneTimeoutAnEpisode(t *testing.T) {
	t.Parallel()
	l, h := newLab(t)
	const senders = 4
	h.Set("senders", strconv.Itoa(senders))
	for i := range 50 {
		h.Episode(fmt.Sprintf("run-%02d", i))
	}
	l.Proxy.Always(labtest.Fault{Refuse: true})
	h.Once().Must(t, 4, labtest.Tally{Scanned: 50, Transient: 50})
	if n := l.Proxy.Accepted(); n > senders+1 {
		t.Errorf("%d connections for 50 episodes, want at most one for each of %d senders and one ping", n, senders)
	}
	l.Proxy.Always(labtest.Fault{})
	h.Once().Must(t, 0, labtest.Tally{Scanned: 50, Shipped: 50})
	l.Settled(t)
}

// killsEnv scales the tests that kill.
const killsEnv = "LAB_KILLS"

// killSchedule returns the number of kills, and the random source of their times.
func killSchedule(t *testing.T) (int, *rand.Rand) {
	t.Helper()
	if testing.Short() {
		t.Skip("kills take their time")
	}
	n := 8
	if s := os.Getenv(killsEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", killsEnv, err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %s=%d", seed, killsEnv, n)
	return n, rand.New(rand.NewPCG(seed, 0))
}

func TestKilledReceiverLosesNothing(t *testing.T) {
	t.Parallel()
	killDuringPasses(t, true, false)
}

func TestKilledShipperLosesNothing(t *testing.T) {
	t.Parallel()
	killDuringPasses(t, false, true)
}

func TestBothKilledLoseNothing(t *testing.T) {
	t.Parallel()
	killDuringPasses(t, true, true)
}

// waitingEpisodes is how many episodes are waiting when a kill comes.
const waitingEpisodes = 6

// killDuringPasses kills one or both programs in the middle of passes, and checks after each
// kill and after each start.
func killDuringPasses(t *testing.T, receiver, shipper bool) {
	n, random := killSchedule(t)
	l, h := newLab(t)
	for round := range n {
		for i := range waitingEpisodes - 1 {
			h.Episode(fmt.Sprintf("run-%d-%d", round, i))
		}
		makeLargeEpisode(t, h, fmt.Sprintf("run-%d-bulky", round), 300<<10)
		p := h.Launch("--once", "--json")
		r := l.Process()
		shoot := func() {
			if receiver {
				r.Shoot()
			}
			if shipper {
				p.Shoot()
			}
		}
		doAtRandomMoment(l, random, shoot)
		p.Wait(t)
		shoot() // if the moment never came
		if shipper {
			h.Kill(p)
		}
		if receiver {
			l.Kill()
			l.Check(t)
			l.Start()
		}
		l.Check(t)
	}
	last := h.Once()
	if last.Code != 0 || last.Shipped+last.AlreadyPresent != last.Scanned {
		t.Errorf("the pass after the faults: exit code %d, %+v", last.Code, last.Tally)
	}
	wantNoHolds(t, h)
	l.Settled(t)
	if rows := len(l.Rows(t)); rows != n*waitingEpisodes {
		t.Errorf("%d rows for %d episodes", rows, n*waitingEpisodes)
	}
}

// doAtRandomMoment calls do during a pass: at a byte of the traffic or some time after it, or
// while packing, before any byte.
func doAtRandomMoment(l *labtest.Lab, random *rand.Rand, do func()) {
	wait := time.Duration(random.IntN(8000)) * time.Microsecond
	switch random.IntN(4) {
	case 0:
		l.Proxy.After(int64(random.IntN(40_000)), do)
	case 1:
		l.Proxy.After(int64(300_000+random.IntN(60_000)), do)
	case 2:
		l.Proxy.After(int64(random.IntN(360_000)), func() { time.AfterFunc(wait, do) })
	case 3:
		time.AfterFunc(5*wait, do)
	}
}
