package crashtest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/durable"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// cutsPerLab is how many cuts one lab and its file systems go through.
const cutsPerLab = 10

// cutStats summarizes the cuts of one kind of file system.
type cutStats struct {
	fs      string
	tearing bool           // the disks have caches
	cuts    map[string]int // by whose power it was
	torn    crashtest.Fates
	acks    int // copied before each cut
	parts   int // uploads that had reached an offset before each
	losses  int
	began   time.Time
}

// TestPowerCuts simulates power loss on the receiver, on the hosts and on all of them while
// they work, some hundred times if requested. After each cut, with the journals alone: every
// acknowledged episode is complete, in the index, and as it was sent; no upload in pieces is
// behind an offset that its sender was told; index verify --deep finds nothing; every episode
// of a host is complete in one place, in shipped/ only if the receiver has it.
func TestPowerCuts(t *testing.T) { powerCuts(t, false, *cuts) }

// TestPowerCutsOfATearingDisk is the same on disks with a volatile cache: any of the writes
// since the last flush may have arrived at the cut, in any order, and some of them in part.
func TestPowerCutsOfATearingDisk(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	powerCuts(t, true, *tears)
}

func powerCuts(t *testing.T, tearing bool, most int) {
	needMounts(t)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			to := &cutStats{fs: fs, tearing: tearing, cuts: make(map[string]int), began: time.Now()}
			defer to.print()
			for first := 0; first < most; first += cutsPerLab {
				t.Run(fmt.Sprint(first), func(t *testing.T) {
					newSite(t, fs, newRandom(first), to).runCuts(t, min(cutsPerLab, most-first))
				})
				if t.Failed() {
					return
				}
			}
		})
	}
}

func newRandom(stream int) *rand.Rand { return rand.New(rand.NewPCG(*seed, uint64(stream))) }

func (to *cutStats) print() {
	all := 0
	for _, n := range to.cuts {
		all += n
	}
	disk := ""
	if to.tearing {
		disk = fmt.Sprintf(", %+v writes in caches", to.torn)
	}
	fmt.Printf("%-5s %d power cuts (%d receiver, %d hosts, %d all, %d in mid-recovery): %d acknowledgements and %d offsets before them, %d lost%s; seed %d, %v\n",
		to.fs, all, to.cuts["receiver"], to.cuts["hosts"], to.cuts["all"], to.cuts["recovery"], to.acks, to.parts, to.losses, disk, *seed,
		time.Since(to.began).Round(time.Second))
}

// site is a lab whose receiver and hosts have disks that can be cut off.
type site struct {
	*labtest.Lab
	store  *crashtest.Disk
	hosts  []*labtest.Host
	disks  []*crashtest.Disk // of the hosts
	wire   *uploadClient
	random *rand.Rand
	toll   *cutStats
	made   int               // episodes
	id     string            // of the store
	acked  map[string]string // what was acknowledged so far: the sha256 by host/episode
}

func newSite(t *testing.T, fs string, random *rand.Rand, to *cutStats) *site {
	s := &site{Lab: labtest.New(t, labtest.Unstarted()), random: random, toll: to, acked: make(map[string]string)}
	s.store = s.mountDisk(t, fs, "store.img", s.Path("data"))
	s.wire = newUploadClient(t, s.Lab, newRandom(int(random.Uint32())))
	for _, name := range []string{"lab-01", "lab-02"} {
		h := s.Host(name)
		h.Set("settle", `"20ms"`) // so that some are cut while they settle
		s.disks = append(s.disks, s.mountDisk(t, fs, name+".img", h.Path("data")))
		s.hosts = append(s.hosts, h)
		fixture.Must(t, os.Mkdir(h.Episodes(), 0o755))
	}
	return s
}

// mountDisk makes a disk and mounts it until the test ends.
func (s *site) mountDisk(t *testing.T, fs, name, dir string) *crashtest.Disk {
	t.Helper()
	var tear func() uint64
	if s.toll.tearing {
		tear = s.random.Uint64
	}
	return mountDisk(t, fs, s.Path(name), dir, tear, &s.toll.torn)
}

// mountDisk makes a disk and mounts it until the test ends. It tears writes unless tear is nil, and adds
// their fates to torn.
func mountDisk(t *testing.T, fs, image, dir string, tear func() uint64, torn *crashtest.Fates) *crashtest.Disk {
	t.Helper()
	const size = 512 << 20
	fixture.Must(t, os.MkdirAll(dir, 0o755))
	d, err := crashtest.NewDisk(fs, image, size)
	fixture.Must(t, err)
	d.Tear = tear
	fixture.Must(t, d.Attach(dir))
	t.Cleanup(func() {
		if err := d.Detach(); err != nil {
			t.Error(err)
		}
		torn.Add(d.Torn)
	})
	return d
}

func (s *site) runCuts(t *testing.T, cuts int) {
	s.Start()
	for n := 0; n < cuts && !t.Failed(); {
		n += s.runRound(t)
	}
	// The faults are over: everything is delivered now.
	s.wire.sendWaiting(t)
	for _, h := range s.hosts {
		h.Once("--json").MustExit(t, 0)
	}
	s.Settled(t)
	if n := len(s.Rows(t)); !t.Failed() && n != s.made+len(s.wire.acks()) {
		t.Errorf("%d rows for %d episodes", n, s.made+len(s.wire.acks()))
	}
}

// runRound runs everything, cuts the power, and checks the result. It returns the number of cuts.
func (s *site) runRound(t *testing.T) int {
	s.finishEpisodes(t)
	var all sync.WaitGroup
	stop := make(chan struct{})
	s.wire.start(stop, &all)
	var shippers []*labtest.Process
	for _, h := range s.hosts {
		shippers = append(shippers, h.Launch())
	}
	whose := []string{"receiver", "hosts", "all"}[s.random.IntN(3)]
	<-time.After(s.randomDelay())
	offsets := s.wire.offsets()
	before := s.acknowledged(shippers) // an answer that came after the cut does not count
	s.cutPower(t, whose)
	close(stop)
	for i, h := range s.hosts {
		h.Kill(shippers[i])
	}
	s.Kill()
	all.Wait()
	s.toll.cuts[whose]++
	s.restorePower(t, whose)
	n := 1 + s.cutDuringRecovery(t, whose)
	s.Start()
	s.toll.parts += s.wire.wantOffsetsKept(t, offsets)
	s.checkPromises(t, before)
	return n
}

// randomDelay returns the delay before a cut: often under load, sometimes during a start.
func (s *site) randomDelay() time.Duration {
	if s.random.IntN(5) == 0 {
		return time.Duration(s.random.IntN(60_000)) * time.Microsecond
	}
	return 60*time.Millisecond + time.Duration(s.random.IntN(600_000))*time.Microsecond
}

// finishEpisodes finishes a number of episodes on each host and syncs them, as recorders must.
func (s *site) finishEpisodes(t *testing.T) {
	const backlog = 16
	for i, h := range s.hosts {
		waiting, err := filepath.Glob(h.Episodes("*"))
		fixture.Must(t, err)
		for range backlog - len(waiting) {
			s.made++
			name := fmt.Sprintf("run-%d", s.made)
			if s.random.IntN(8) > 0 {
				h.Episode(name)
				continue
			}
			noise := make([]byte, 200<<10+s.random.IntN(3<<20))
			for i := range noise {
				noise[i] = byte(s.random.Uint32())
			}
			h.Episode(name, labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "mem.raw", Body: string(noise)})
		}
		fixture.Must(t, s.disks[i].Sync())
	}
}

var shippedLine = regexp.MustCompile(`INFO shipped .*?episode=(\S+) sha256=([0-9a-f]{64}) `)

// acknowledged returns what is acknowledged now: the receipts of the upload client, and the
// episodes that the shippers report as retired.
func (s *site) acknowledged(shippers []*labtest.Process) map[string]string {
	now := make(map[string]string)
	for name, sum := range s.wire.acks() {
		now[s.wire.host.Name+"/"+name] = sum
	}
	for i, p := range shippers {
		for _, m := range shippedLine.FindAllStringSubmatch(p.Output(), -1) {
			now[s.hosts[i].Name+"/"+m[1]] = m[2]
		}
	}
	return now
}

func (s *site) cutPower(t *testing.T, whose string) {
	if whose != "hosts" {
		fixture.Must(t, s.store.Cut())
	}
	if whose != "receiver" {
		for _, d := range s.disks {
			fixture.Must(t, d.Cut())
		}
	}
}

func (s *site) restorePower(t *testing.T, whose string) {
	if whose != "hosts" {
		fixture.Must(t, s.store.Reattach())
	}
	if whose != "receiver" {
		for _, d := range s.disks {
			fixture.Must(t, d.Reattach())
		}
	}
}

// cutDuringRecovery sometimes cuts the power again while the receiver recovers from the last cut.
func (s *site) cutDuringRecovery(t *testing.T, whose string) int {
	if whose == "hosts" || s.random.IntN(4) > 0 {
		return 0
	}
	s.StartUnready()
	<-time.After(time.Duration(s.random.IntN(40_000)) * time.Microsecond)
	fixture.Must(t, s.store.Cut())
	s.Kill()
	fixture.Must(t, s.store.Reattach())
	s.toll.cuts["recovery"]++
	return 1
}

// checkPromises checks that nothing acknowledged is lost. The receiver runs, the shippers do not.
func (s *site) checkPromises(t *testing.T, now map[string]string) {
	t.Helper()
	for key, sum := range now {
		if _, known := s.acked[key]; !known {
			s.toll.acks++
		}
		s.acked[key] = sum
	}
	rows := make(map[string]labtest.Row)
	for _, row := range s.Rows(t) {
		rows[row.Host+"/"+row.Episode] = row
	}
	for key, sum := range s.acked {
		host, name, _ := strings.Cut(key, "/")
		if got, err := sha256Of(s.Archive(host, name)); err != nil || got != sum || rows[key].SHA256 != sum {
			s.toll.losses++
			t.Errorf("%s was acknowledged with the sha256 %s: the file has %s (%v), the row says %q", key, sum, got, err, rows[key].SHA256)
		}
	}
	for _, h := range s.hosts {
		for key := range now {
			if name, found := strings.CutPrefix(key, h.Name+"/"); found && !h.IsShipped(name) {
				s.toll.losses++
				t.Errorf("%s was retired, and is not in shipped/", key)
			}
		}
	}
	s.checkStores(t)
	r := s.Receiver("index", "verify", "--deep", "--config", s.Path("receiver.toml"))
	if r.Code != 0 {
		t.Errorf("index verify --deep: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	s.Check(t)
}

// checkStores checks that each host that has retired an episode has adopted the store, and that
// no host knows more of the index than the disk has.
func (s *site) checkStores(t *testing.T) {
	t.Helper()
	var is struct {
		ID         string
		IndexBytes int64 `json:"index_bytes"`
	}
	r := s.Receiver("store", "--json", "--config", s.Path("receiver.toml")).MustExit(t, 0)
	fixture.Must(t, json.Unmarshal([]byte(r.Stdout), &is))
	if s.id == "" {
		s.id = is.ID
	}
	if is.ID != s.id {
		t.Errorf("the store was %s and is %s", s.id, is.ID)
	}
	for _, h := range s.hosts {
		shipped, err := os.ReadDir(h.Shipped())
		// A start that is killed may leave the empty directory with which it tested a move.
		shipped = slices.DeleteFunc(shipped, func(e os.DirEntry) bool { return durable.IsProbe(e.Name()) })
		if err != nil || len(shipped) == 0 {
			continue
		}
		known := is
		b, err := os.ReadFile(h.Outbox(".store.json"))
		if err == nil {
			err = json.Unmarshal(b, &known)
		}
		if err != nil || known.ID != s.id || known.IndexBytes > is.IndexBytes {
			t.Errorf("%s has retired %d episodes and knows %+v (%v) of %+v", h.Name, len(shipped), known, err, is)
		}
	}
}
