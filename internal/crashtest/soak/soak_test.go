package soak_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestSoakLosesNothingAndStaysFlat runs two labs at the same time. In one, daemons are killed
// and restarted all the time. In the other they run from the first round to the last under all
// other faults, so that leaks add up and are seen. After each round the faults end, everything
// that can be shipped must be delivered, and every episode ever made is checked for the
// invariants of custody.
func TestSoakLosesNothingAndStaysFlat(t *testing.T) {
	switch {
	case *minutes == 0:
		t.Skip("run it with make soak")
	case !crashtest.Isolated() && os.Getenv("CI") != "":
		t.Fatal("the faults of disks need root and loop devices")
	}
	end := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	for stream, c := range []struct {
		name, fs string
		faults   []fault
	}{
		{"standing", "ext4", harmless},
		{"killed", "xfs", slices.Concat(harmless, deadly)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.fs, rand.New(rand.NewPCG(*seed, uint64(stream))))
			defer func() { s.printTable(c.name) }()
			for time.Now().Before(end) && !t.Failed() || s.rounds == 0 {
				s.runRound(t, c.faults)
			}
			s.stopDaemons(t, c.name == "standing")
		})
	}
}

// site is a lab with daemons, its disks and everything that was acknowledged to its hosts.
type site struct {
	*labtest.Lab
	hosts    []*labtest.Host
	shippers []*labtest.Process // of the hosts
	disks    map[string]string  // the directories that are disks of their own, by host
	intruder *labtest.Host      // a hostile host with a valid certificate
	random   *rand.Rand
	began    time.Time

	rounds, episodes, evil int
	faults                 map[string]int // how often, by kind
	waiting                []episode      // made in this round
	acked                  map[string]promise
	losses                 int
	gauges                 map[string][]gauge // by the name of the daemon, one per round
}

// episode is an episode that was made, and its expected fate.
type episode struct {
	host int // of site.hosts
	name string
	fate labtest.Fate
}

// promise is what the receiver acknowledged.
type promise struct {
	sha256 string
	pruned bool // the host's copy was deleted because the receiver had verified its own
}

func newSite(t *testing.T, fs string, random *rand.Rand) *site {
	s := &site{
		Lab:    labtest.New(t, labtest.Unstarted(), labtest.Set("limits.idle_timeout", `"2s"`)),
		random: random, began: time.Now(),
		disks: make(map[string]string), faults: make(map[string]int),
		acked: make(map[string]promise), gauges: make(map[string][]gauge),
	}
	s.mountDisk(t, fs, "receiver", s.Path("data"))
	s.intruder = s.Host("intruder")
	for i := range 3 {
		h := s.Host(fmt.Sprintf("lab-%02d", i+1))
		h.Set("scan_interval", `"1s"`)
		h.Set("settle", `"50ms"`)
		s.mountDisk(t, fs, h.Name, h.Path("data"))
		fixture.Must(t, os.MkdirAll(h.Episodes(), 0o755))
		s.hosts = append(s.hosts, h)
	}
	s.Start()
	for _, h := range s.hosts {
		s.shippers = append(s.shippers, h.Daemon())
	}
	return s
}

// mountDisk gives a directory a file system of its own, if this process may mount.
func (s *site) mountDisk(t *testing.T, fs, whose, dir string) {
	t.Helper()
	if !crashtest.Isolated() {
		return
	}
	const size = 2 << 30 // most of it never written
	fixture.Must(t, os.MkdirAll(dir, 0o755))
	d, err := crashtest.NewDisk(fs, s.Path(whose+".img"), size)
	fixture.Must(t, err)
	fixture.Must(t, d.Attach(dir))
	s.disks[whose] = dir
	t.Cleanup(func() {
		if err := d.Detach(); err != nil {
			t.Error(err)
		}
	})
}

// runRound injects faults under load, and then waits until everything is settled.
func (s *site) runRound(t *testing.T, faults []fault) {
	s.rounds++
	s.waiting = nil
	if s.rounds == 1 {
		s.warmPackers()
	}
	for range 6 + s.random.IntN(6) {
		s.finishEpisodes(t, s.random.IntN(len(s.hosts)))
		f := faults[s.random.IntN(len(faults))]
		if f.disks && len(s.disks) == 0 {
			continue
		}
		s.faults[f.kind]++
		f.do(t, s)
		s.finishEpisodes(t, s.random.IntN(len(s.hosts)))
		if t.Failed() {
			return
		}
	}
	s.waitSettled(t)
	s.checkPromises(t)
	s.runMaintenance(t)
	s.measure(t)
}

// finishEpisodes finishes some episodes of a host.
func (s *site) finishEpisodes(t *testing.T, host int) {
	t.Helper()
	h := s.hosts[host]
	for range 1 + s.random.IntN(4) {
		s.episodes++
		e := episode{host, fmt.Sprintf("run-%d", s.episodes), labtest.Ships}
		switch s.random.IntN(16) {
		case 0:
			s.makeLargeEpisode(h, e.name, 64<<10+s.random.IntN(2<<20))
		case 1, 2:
			s.evil++
			evil := labtest.Evils[s.random.IntN(len(labtest.Evils))]
			e.name, e.fate = evil.Make(h, e.name), evil.Fate
		default:
			h.Episode(e.name)
		}
		s.waiting = append(s.waiting, e)
	}
}

// warmPackers gives each packer of each host a large episode, so that it has allocated its buffers.
func (s *site) warmPackers() {
	for i, h := range s.hosts {
		for range 6 {
			s.episodes++
			e := episode{i, fmt.Sprintf("run-%d", s.episodes), labtest.Ships}
			s.makeLargeEpisode(h, e.name, 3<<20)
			s.waiting = append(s.waiting, e)
		}
	}
}

// makeLargeEpisode makes an episode that does not compress.
func (s *site) makeLargeEpisode(h *labtest.Host, name string, size int) {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(s.random.Uint32())
	}
	h.Episode(name, labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "mem.raw", Body: string(b)})
}

// pause waits for the duration of a fault.
func (s *site) pause() {
	<-time.After(time.Duration(20+s.random.IntN(600)) * time.Millisecond)
}

// deliveryTimeout is how long after the end of the faults everything that can be shipped must be
// delivered.
const deliveryTimeout = time.Minute

// waitSettled ends the faults, and waits until each episode is in its final state.
func (s *site) waitSettled(t *testing.T) {
	t.Helper()
	s.Proxy.Always(labtest.Fault{})
	s.Proxy.Sever()
	for _, e := range s.waiting {
		h := s.hosts[e.host]
		switch e.fate {
		case labtest.Ships:
			labtest.Within(t, deliveryTimeout, h.Name+" has shipped "+e.name, func() bool { return h.IsShipped(e.name) })
		case labtest.IsHeld:
			labtest.Within(t, deliveryTimeout, h.Name+" holds "+e.name, func() bool { return fixture.Exists(h.Outbox(e.name + ".held")) })
		}
	}
	for _, h := range s.hosts {
		h.WaitEmpty()
	}
}

// checkPromises checks that nothing acknowledged is lost, and the invariants of custody.
func (s *site) checkPromises(t *testing.T) {
	t.Helper()
	rows := make(map[string]labtest.Row)
	for _, row := range s.Rows(t) {
		rows[row.Host+"/"+row.Episode] = row
	}
	for _, e := range s.waiting {
		if key := s.hosts[e.host].Name + "/" + e.name; e.fate == labtest.Ships {
			s.acked[key] = promise{sha256: rows[key].SHA256}
		}
	}
	// Check compares rows with their files.
	for _, key := range slices.Sorted(maps.Keys(s.acked)) {
		host, name, _ := strings.Cut(key, "/")
		p, sum := s.acked[key], rows[key].SHA256
		stored, kept := fixture.Exists(s.Archive(host, name)), p.pruned || fixture.Exists(s.Path(host, "data", "shipped", name))
		if sum == "" || sum != p.sha256 || !stored || !kept {
			s.losses++
			t.Errorf("%s was acknowledged with the sha256 %q: its row says %q, its archive is there: %v, the host's copy: %v", key, p.sha256, sum, stored, kept)
		}
	}
	s.Settled(t)
	for _, e := range s.waiting {
		if e.fate != labtest.Ships {
			s.hosts[e.host].Discard(e.name)
		}
	}
	held, err := filepath.Glob(s.Path("*", "data", "outbox", "*.held"))
	fixture.Must(t, err)
	if len(held) > s.countFate(labtest.IsHeld) {
		t.Errorf("held: %q, want %d", held, s.countFate(labtest.IsHeld))
	}
	s.checkSecrets(t)
}

// countFate returns how many episodes of the round have a fate.
func (s *site) countFate(f labtest.Fate) int {
	n := 0
	for _, e := range s.waiting {
		if e.fate == f {
			n++
		}
	}
	return n
}

// checkSecrets checks that no archive of a hostile episode has the secrets it was made to
// steal. The packed content is compared elsewhere.
func (s *site) checkSecrets(t *testing.T) {
	t.Helper()
	for _, e := range s.waiting {
		if !strings.HasSuffix(e.name, "-links") {
			continue
		}
		for path, what := range labtest.ReadTree(t, labtest.Unpack(t, s.Archive(s.hosts[e.host].Name, e.name))) {
			if strings.HasSuffix(path, "meta.json") && !strings.HasPrefix(what, "link ") {
				t.Errorf("%s/%s: a link was followed: %s", e.name, path, what)
			}
		}
	}
}

// stopDaemons stops the daemons as a service manager would.
func (s *site) stopDaemons(t *testing.T, standing bool) {
	if t.Failed() {
		return
	}
	if standing {
		s.wantNoGrowth(t)
	}
	s.wantSmallMemory(t)
	for _, p := range s.shippers {
		p.Stop(t)
	}
	s.Stop()
	s.Settled(t)
}

func (s *site) printTable(name string) {
	var faults []string
	for _, kind := range slices.Sorted(maps.Keys(s.faults)) {
		faults = append(faults, fmt.Sprintf("%s %d", kind, s.faults[kind]))
	}
	fmt.Printf("%s: %.1f min, %d rounds, %d episodes, %d of them evil; %d acknowledgements, %d lost; seed %d\n  faults: %s\n%s",
		name, time.Since(s.began).Minutes(), s.rounds, s.episodes, s.evil, len(s.acked), s.losses, *seed,
		strings.Join(faults, ", "), s.formatTable())
}
