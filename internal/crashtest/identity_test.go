package crashtest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/crashtest"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestPowerCutsOfIdentities cuts the power of the receiver, of a host or of both while a receiver is set
// up, the host joins, its certificate is renewed and the CAs are rotated. After each cut the receiver starts, the
// interrupted command can be repeated, and the host ships.
func TestPowerCutsOfIdentities(t *testing.T) {
	needMounts(t)
	rounds := *cuts / 8
	if rounds == 0 {
		t.Skip("slow; make crash-short runs it")
	}
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			s := newIdentitySite(t, fs)
			for range rounds {
				for _, step := range []func(*testing.T){s.setUp, s.join, s.renew, s.rotate, s.follow, s.finish} {
					step(t)
					if t.Failed() {
						return
					}
				}
			}
			fmt.Printf("%-5s %d power cuts while a receiver is set up, hosts join, renew and CAs are rotated (%d receiver, %d host, %d both), %d of them before the command ended; seed %d\n",
				fs, s.cuts["receiver"]+s.cuts["host"]+s.cuts["both"], s.cuts["receiver"], s.cuts["host"], s.cuts["both"], s.early, *seed)
		})
	}
}

// identitySite is a lab whose receiver and host have a disk each, with keys and certificates on it.
type identitySite struct {
	*labtest.Lab
	host   *labtest.Host
	own    *crashtest.Disk // the receiver's
	hosts  *crashtest.Disk
	random *rand.Rand
	cuts   map[string]int
	early  int // cuts before the command ended
	made   int // episodes, one after each cut but those of a setup
	joined int
}

func newIdentitySite(t *testing.T, fs string) *identitySite {
	s := &identitySite{random: newRandom(7 * len(fs)), cuts: make(map[string]int)}
	dir := t.TempDir()
	s.own = mountDisk(t, fs, filepath.Join(dir, "receiver.img"), filepath.Join(dir, "receiver"), nil, new(crashtest.Fates))
	s.Lab = labtest.New(t, labtest.Unstarted(), labtest.In(filepath.Join(dir, "receiver")))
	s.SetUp()
	s.hosts = mountDisk(t, fs, filepath.Join(dir, "host.img"), s.Path("lab-07"), nil, new(crashtest.Fates))
	s.host = s.Newcomer("lab-07")
	fixture.Must(t, s.own.Sync())
	s.Start()
	return s
}

// cutDuring runs a command, cuts the power at a random moment of it, and starts the receiver again.
func (s *identitySite) cutDuring(t *testing.T, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(s.Program(program), args...)
	fixture.Must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); cmd.Wait() }() // its result does not matter
	<-time.After(time.Duration(s.random.IntN(120_000)) * time.Microsecond)
	whose := []string{"receiver", "host", "both"}[s.random.IntN(3)]
	// The host's disk is mounted below the receiver's: it goes first, and comes last.
	if whose != "receiver" {
		fixture.Must(t, s.hosts.Cut())
	}
	if whose != "host" {
		fixture.Must(t, s.own.Cut())
	}
	select {
	case <-ended:
	default:
		s.early++
	}
	cmd.Process.Kill() // it may have ended
	<-ended
	s.Kill()
	s.restore(t, whose)
	s.cuts[whose]++
	s.Start()
}

func (s *identitySite) restore(t *testing.T, whose string) {
	t.Helper()
	if whose == "host" {
		fixture.Must(t, s.hosts.Reattach())
		return
	}
	fixture.Must(t, s.hosts.Detach())
	fixture.Must(t, s.own.Reattach())
	fixture.Must(t, s.hosts.Attach(s.Path("lab-07")))
}

// ship delivers an episode, and checks the lab.
func (s *identitySite) ship(t *testing.T) {
	t.Helper()
	s.made++
	s.host.Episode(fmt.Sprintf("run-%d", s.made))
	s.host.Once().MustExit(t, 0)
	s.Check(t)
	fixture.Must(t, s.hosts.Sync())
}

func (s *identitySite) config() string { return s.Path("receiver.toml") }

// setUp sets up another receiver beside the lab's.
func (s *identitySite) setUp(t *testing.T) {
	dir := s.Path(fmt.Sprint("fresh-", s.made))
	fixture.Must(t, os.Mkdir(dir, 0o755))
	fixture.Must(t, s.own.Sync())
	args := []string{"--config", filepath.Join(dir, "receiver.toml"), "setup", "--name", "localhost", "--listen", "127.0.0.1:8443"}
	s.cutDuring(t, "receiver", args...)
	s.Receiver(args...).MustExit(t, 0)
	s.Receiver("--config", filepath.Join(dir, "receiver.toml"), "invite", "lab-01").MustExit(t, 0)
}

func (s *identitySite) join(t *testing.T) {
	var again []string
	if s.joined > 0 {
		again = []string{"--again"}
	}
	token := s.Invite("lab-07", again...)
	config := s.host.Path("lab-host.toml")
	s.cutDuring(t, "shipper", "--config", config, "join", token)
	s.host.Run("join", token).MustExit(t, 0)
	if text := fixture.ReadFile(t, config); s.joined == 0 {
		fixture.WriteFile(t, config, "settle = \"0s\"\n"+text)
	}
	s.joined++
	s.ship(t)
}

// renew: the certificate is so old that a pass renews it. After joining again, one of that age has ended.
func (s *identitySite) renew(t *testing.T) {
	if s.joined > 1 {
		return
	}
	s.host.AgeCertificate(300 * 24 * time.Hour)
	fixture.Must(t, s.hosts.Sync())
	s.cutDuring(t, "shipper", "--config", s.host.Path("lab-host.toml"), "--once")
	s.host.AgeRenewal()
	s.ship(t)
	if out := s.host.Run("--ping").MustExit(t, 0).Stdout; strings.Contains(out, "renews itself now") {
		t.Errorf("it was not renewed:\n%s", out)
	}
}

func (s *identitySite) rotate(t *testing.T) {
	s.cutDuring(t, "receiver", "--config", s.config(), "pki", "rotate")
	s.Receiver("--config", s.config(), "pki", "rotate").MustExit(t, 0)
	s.Restart()
	s.ship(t)
}

// follow: the host learns the new CA, and renews.
func (s *identitySite) follow(t *testing.T) {
	s.host.AgeCAs()
	fixture.Must(t, s.hosts.Sync())
	s.cutDuring(t, "shipper", "--config", s.host.Path("lab-host.toml"), "--once")
	s.host.AgeCAs()
	s.host.AgeRenewal()
	s.ship(t)
	hosts := s.Receiver("--config", s.config(), "hosts").MustExit(t, 0).Stdout
	if !strings.Contains(hosts, "1 of 1 active hosts are ready") {
		t.Errorf("the host is not ready:\n%s", hosts)
	}
}

func (s *identitySite) finish(t *testing.T) {
	s.cutDuring(t, "receiver", "--config", s.config(), "pki", "rotate", "--finish")
	if r := s.Receiver("--config", s.config(), "pki", "rotate", "--finish"); r.Code != 0 && !strings.Contains(r.Stderr, "there is no rotation") {
		t.Errorf("finish: exit code %d\n%s", r.Code, r.Stderr)
	}
	s.Restart()
	s.host.AgeCAs()
	s.ship(t)
	if n := strings.Count(fixture.ReadFile(t, s.host.Path("identity", "host-ca.crt")), "-----BEGIN"); n != 1 {
		t.Errorf("the host trusts %d CAs, want the new one", n)
	}
}
