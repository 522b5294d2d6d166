package fleettest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

const (
	hostCount     = 12
	receiverCount = 3
	perRound      = 4 // episodes of each host
	large         = 9 << 20
)

// noise returns random bytes. The same seed yields the same bytes.
func noise(size int, seed uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, size)
	rand.NewChaCha8(key).Read(b)
	return b
}

// send sends an archive until it is acknowledged or refused as a conflict.
func send(t *testing.T, l *ledger, host string, s *labtest.Sender, name string, archive []byte) {
	sum := sha256.Sum256(archive)
	l.begin(host + "/" + name)
	deadline := time.Now().Add(3 * time.Minute)
	for time.Now().Before(deadline) {
		got, err := sendOnce(s, host, name, archive, sum)
		if err == nil && got.Receipt(archive) {
			l.ack(host+"/"+name, got.SHA256)
			return
		}
		// Other refusals with this status concern the upload: another request continues it.
		if err == nil && got.Status == http.StatusConflict && strings.Contains(got.Told, "episode-conflict") {
			l.conflict()
			return
		}
		if err == nil && got.Status/100 == 4 && got.Status != http.StatusConflict && got.Status != http.StatusTooManyRequests && got.Status != http.StatusNotFound && got.Status != http.StatusRequestTimeout {
			t.Errorf("%s/%s: %s", host, name, got.Told)
			return
		}
		pause := time.NewTimer(rand.N(200 * time.Millisecond))
		select {
		case <-pause.C:
		case <-t.Context().Done():
			return
		}
	}
	t.Errorf("%s/%s: not acknowledged in time", host, name)
}

func sendOnce(s *labtest.Sender, host, name string, archive []byte, sum [32]byte) (labtest.Answer, error) {
	if len(archive) < 256<<10 {
		return s.Send(http.MethodPut, "/v1/episodes/"+host+"/"+name, bytes.NewReader(archive), map[string]string{
			"Content-Type": "application/zstd", "Content-Length": strconv.Itoa(len(archive)),
			"Repr-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":",
		})
	}
	at, err := s.Announce(name, archive)
	if err != nil || at.Where == "" {
		return at, err
	}
	return s.Patch(at.Where, at.Offset, archive[at.Offset:], true)
}

// start starts a receiver that was killed. Faults that are left of an earlier disturbance would end it,
// and only systemd starts it again.
func (f *fleet) start(i int) {
	f.links[i].Always(labtest.Fault{})
	f.receivers[i].Start()
}

// disturb does one thing to the fleet, and undoes it.
func (f *fleet) disturb(random *rand.Rand, pause func(time.Duration)) (what string) {
	i := random.IntN(len(f.receivers))
	r, down := f.receivers[i], time.Duration(random.IntN(400))*time.Millisecond
	which := random.IntN(8)
	if f.engine.crash == nil && (which == 3 || which == 4) {
		which = 0
	}
	switch which {
	case 0, 1, 2:
		r.Kill()
		pause(down)
		f.start(i)
		return "receiver killed"
	case 3:
		what, restart := f.engine.crash(random)
		pause(down)
		restart()
		return what
	case 4:
		what, restart := f.engine.crash(random)
		r.Kill()
		pause(down)
		restart()
		f.start(i)
		return what + ", receiver killed"
	case 5:
		f.links[i].Next(labtest.Fault{LoseAnswer: true}, labtest.Fault{CutAfter: int64(random.IntN(20_000))}, labtest.Fault{LoseBehind: int64(random.IntN(5_000))})
		f.links[i].Sever()
		return "answers of the engine lost"
	case 6:
		f.links[i].Always(labtest.Fault{Refuse: true})
		f.links[i].Sever()
		pause(down)
		f.links[i].Always(labtest.Fault{})
		return "engine not reached"
	default:
		r.Proxy.Next(labtest.Fault{LoseAnswer: true}, labtest.Fault{CutAfter: int64(random.IntN(20_000))})
		r.Proxy.Sever()
		return "answers of a receiver lost"
	}
}

// maxMemory is the maximum memory of a receiver.
const maxMemory = 64 << 20

// peakMemory returns the maximum resident memory of a process.
func peakMemory(t testing.TB, pid int) int64 {
	t.Helper()
	text := fixture.ReadFile(t, fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(text, "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	fixture.Must(t, err)
	t.Logf("a receiver used %d MiB", kib>>10)
	return kib << 10
}

// Twelve hosts send to three receivers while these, the engine and the links between them fail, and
// requests of earlier rounds reach the engine. Half of the episodes are sent twice at once, some of them as two recordings of one name.
func TestNothingIsLostOrThereTwice(t *testing.T) {
	requireFleet(t)
	first := *seed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	t.Logf("-seed %d", first)
	f := newFleet(t, receiverCount)
	var hosts []*labtest.Host
	var senders []*labtest.Sender
	for i := range hostCount {
		h := f.lab.Host(fmt.Sprintf("host-%02d", i))
		hosts, senders = append(hosts, h), append(senders, h.Sender(t))
	}
	l, disturbances := newLedger(), map[string]int{}
	f.addHolders(t)
	for n := range *rounds {
		random := rand.New(rand.NewPCG(first, uint64(n)))
		ended := make(chan struct{})
		var g sync.WaitGroup
		for i, h := range hosts {
			for e := range perRound {
				size := 1000 + random.IntN(30_000)
				if random.IntN(12) == 0 {
					size = large
				}
				recordings := 1 + random.IntN(2)*random.IntN(2)
				for copies := range 1 + random.IntN(2) {
					archive := noise(size, first<<20+uint64(n<<12+i<<6+e<<2+copies%recordings))
					g.Go(func() { send(t, l, h.Name, senders[i], fmt.Sprintf("run-%d-%d", n, e), archive) })
				}
			}
		}
		go func() { g.Wait(); close(ended) }()
		pause := func(d time.Duration) {
			select {
			case <-ended:
			case <-time.After(d):
			}
		}
		f.release(n, false)
		disturbances[f.holdOne(t, n, random, ended)]++
		for range 3 {
			pause(time.Duration(50+random.IntN(500)) * time.Millisecond)
			disturbances[f.disturb(random, pause)]++
		}
		<-ended
		if n == *rounds-1 {
			f.release(n, true)
		}
		if got := l.check(t, f.engine.open()); got != (breaches{}) {
			t.Fatalf("round %d with -seed %d: got %+v, want none", n, first, got)
		}
		if t.Failed() {
			t.Fatalf("round %d with -seed %d", n, first)
		}
	}
	for _, r := range f.receivers {
		if got := peakMemory(t, r.Process().Pid()); got > maxMemory {
			t.Errorf("a receiver used %d MiB, want at most %d", got>>20, maxMemory>>20)
		}
	}
	t.Logf("%d rounds: %d acknowledgements, %d conflicts, %v", *rounds, l.acks, l.conflicts, disturbances)
	f.logHeld(t)
}
