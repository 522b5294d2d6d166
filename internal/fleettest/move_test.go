package fleettest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// move is a lab whose store moves from its receiver's disk into a bucket and back.
type move struct {
	t    *testing.T
	disk *labtest.Lab // has the hosts
	s3   *labtest.Lab
}

func newMove(t *testing.T) *move {
	t.Helper()
	requireFleet(t)
	e := newEngine(t)
	m := &move{t: t, disk: labtest.New(t)}
	m.s3 = m.disk.Peer("s3",
		labtest.Set("store.kind", `"s3"`),
		labtest.Set("store.s3.endpoints", fmt.Sprintf(`["http://%s"]`, e.addrs[0])),
		labtest.Set("store.s3.bucket", fmt.Sprintf("%q", bucketName)),
		labtest.Set("store.s3.prefix", `"moved"`),
		labtest.Set("store.s3.credentials_file", fmt.Sprintf("%q", e.credentials)),
	)
	return m
}

// copy runs "receiver store copy" from one receiver's place to that of another.
func (m *move) copy(from, to *labtest.Lab, kind string, code int, args ...string) labtest.Result {
	m.t.Helper()
	args = append([]string{"--config", from.Path("receiver.toml"), "store", "copy", "--to", kind, "--new-config", to.Path("receiver.toml")}, args...)
	return from.Receiver(args...).MustExit(m.t, code)
}

func (m *move) index(l *labtest.Lab) string {
	m.t.Helper()
	return fixture.ReadFile(m.t, l.Path("data", "index.jsonl"))
}

func (m *move) exported() string {
	m.t.Helper()
	return m.s3.Receiver("--config", m.s3.Path("receiver.toml"), "index", "export").MustExit(m.t, 0).Stdout
}

// checkHosts checks that the receiver has what hosts have shipped before.
func (m *move) checkHosts(hosts ...*labtest.Host) {
	m.t.Helper()
	for _, h := range hosts {
		h.Run("--ping").MustExit(m.t, 0)
		if got := h.Run("verify", "--all"); got.Code != 0 || strings.Contains(got.Stdout, "absent") {
			m.t.Errorf("%s: verify: exit code %d: %s%s", h.Name, got.Code, got.Stdout, got.Stderr)
		}
	}
}

// movedHosts are the hosts of [TestAStoreMovesWhileItsHostsShip].
type movedHosts struct{ busy, idle, daemon *labtest.Host }

// Hosts ship to a disk, to a bucket and to a disk again, and lose nothing.
func TestAStoreMovesWhileItsHostsShip(t *testing.T) {
	m := newMove(t)
	hosts := movedHosts{m.disk.Host("host-1"), m.disk.Host("host-2"), m.disk.Host("host-3")}
	m.moveToBucket(hosts)
	m.useBucket(hosts)
	m.moveBack(hosts)
}

// moveToBucket copies the store from the disk beside its receiver, and then hands it over.
func (m *move) moveToBucket(hosts movedHosts) {
	m.t.Helper()
	t, busy, idle, daemon := m.t, hosts.busy, hosts.idle, hosts.daemon
	for _, name := range []string{"run-0", "run-1", "run-2"} {
		busy.Episode(name)
	}
	busy.Once().Must(t, 0, labtest.Tally{Scanned: 3, Shipped: 3})
	idle.Episode("run-0")
	idle.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	daemon.Daemon()

	first := m.copy(m.disk, m.s3, "s3", 0)
	if !strings.Contains(first.Stdout, "copied 4 rows and 4 archives") {
		t.Errorf("the first copy: got %s", first.Stdout)
	}
	daemon.Episode("beside")
	daemon.WaitShipped("beside")
	busy.Episode("after", labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "capture.bin", Body: string(noise(3<<20, 1))})
	busy.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	m.copy(m.disk, m.s3, "s3", 5, "--final")
	if got := m.s3.StartUnready().Wait(t); got == 0 {
		t.Error("a receiver of the bucket starts before the last copy")
	}

	m.disk.Stop()
	daemon.Episode("meanwhile") // its shipper tries again and again
	last := m.copy(m.disk, m.s3, "s3", 0, "--final", "--json")
	if !strings.Contains(last.Stdout, `"rows":2,"archives":2,`) || !strings.Contains(last.Stdout, `"moved":true`) {
		t.Errorf("the last copy: got %s", last.Stdout)
	}
	if got, want := m.exported(), m.index(m.disk); got != want {
		t.Errorf("the index of the bucket: got\n%s\nwant\n%s", got, want)
	}
	old := m.disk.StartUnready()
	if got := old.Wait(t); got != 2 || !strings.Contains(old.Output(), "has moved to the bucket lab/moved") {
		t.Errorf("the receiver of the disk: exit code %d: %s", got, old.Output())
	}

	m.s3.Start()
	m.disk.Proxy.Forward(m.s3.Proxy.Addr())
	daemon.WaitShipped("meanwhile")
	m.checkHosts(busy, idle, daemon)
}

// useBucket has a host ship to the bucket, resend and prune.
func (m *move) useBucket(hosts movedHosts) {
	m.t.Helper()
	t, busy := m.t, hosts.busy
	busy.Episode("in-the-bucket")
	busy.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	if got := busy.Run("resend", "run-1"); got.Code != 0 {
		t.Errorf("resend: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	busy.Once()
	if got := busy.Run("prune", "--max-age", "1ns"); got.Code != 0 || fixture.Exists(busy.Shipped("run-0")) {
		t.Errorf("prune: exit code %d: %s%s", got.Code, got.Stdout, got.Stderr)
	}
	m.s3.Receiver("--config", m.s3.Path("receiver.toml"), "index", "verify", "--deep").MustExit(t, 0)
}

// moveBack moves the store to the disk on which it was before.
func (m *move) moveBack(hosts movedHosts) {
	m.t.Helper()
	t, busy, idle, daemon := m.t, hosts.busy, hosts.idle, hosts.daemon
	m.copy(m.s3, m.disk, "disk", 0)
	daemon.Episode("beside-2")
	daemon.WaitShipped("beside-2")
	m.s3.Stop()
	m.copy(m.s3, m.disk, "disk", 0, "--final")
	if got, want := m.index(m.disk), m.exported(); got != want {
		t.Errorf("the index of the disk: got\n%s\nwant\n%s", got, want)
	}
	if got := m.s3.StartUnready().Wait(t); got == 0 {
		t.Error("a receiver of the bucket starts after the store has moved to the disk")
	}
	m.disk.Start()
	for _, h := range []*labtest.Host{idle, busy} { // idle has shipped nothing since the store was on the disk
		h.Episode("at-last")
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	m.checkHosts(busy, idle, daemon)
	m.disk.Receiver("--config", m.disk.Path("receiver.toml"), "index", "verify", "--deep").MustExit(t, 0)
}

// A copy that is killed at any time is continued, and root runs it as the receiver's user does.
func TestACopyIsKilledAndContinued(t *testing.T) {
	m := newMove(t)
	h := m.disk.Host("host-1")
	const episodes = 40
	for i := range episodes {
		h.Episode(fmt.Sprintf("run-%02d", i), labtest.File{Name: "meta.json", Body: "{}"}, labtest.File{Name: "noise", Body: string(noise(60_000, uint64(i)))})
	}
	h.Once().Must(t, 0, labtest.Tally{Scanned: episodes, Shipped: episodes})
	m.disk.Stop()
	args := []string{m.disk.Program("receiver"), "--config", m.disk.Path("receiver.toml"), "store", "copy", "--to", "s3", "--new-config", m.s3.Path("receiver.toml"), "--rate", "1MiB"}
	for i := range 3 {
		p := labtest.StartProgram(t, "copy", args...)
		labtest.Eventually(t, "the copy has begun", func() bool {
			held, err := os.ReadFile(m.disk.Path("data", ".copy.lock"))
			return err == nil && len(held) > 0 || !p.Running()
		})
		p.Kill(t)
		t.Logf("killed %d", i)
	}
	m.copy(m.disk, m.s3, "s3", 0, "--final")
	if got, want := m.exported(), m.index(m.disk); got != want {
		t.Errorf("the index of the bucket: got\n%s\nwant\n%s", got, want)
	}
	m.s3.Receiver("--config", m.s3.Path("receiver.toml"), "index", "verify", "--deep").MustExit(t, 0)
}
