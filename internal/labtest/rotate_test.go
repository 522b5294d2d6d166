package labtest_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// newFleet returns a lab with two hosts that have joined.
func newFleet(t *testing.T, options ...labtest.Option) (l *labtest.Lab, daemon, passes *labtest.Host) {
	t.Helper()
	l, daemon = newJoinLab(t, options...)
	passes = l.Newcomer("lab-08")
	for _, h := range []*labtest.Host{daemon, passes} {
		h.Run("join", l.Invite(h.Name)).MustExit(t, 0)
		path := h.Path("lab-host.toml")
		fixture.WriteFile(t, path, "settle = \"0s\"\n"+fixture.ReadFile(t, path))
	}
	return l, daemon, passes
}

func rotate(l *labtest.Lab, args ...string) labtest.Result {
	return l.Receiver(append([]string{"--config", l.Path("receiver.toml"), "pki", "rotate"}, args...)...)
}

// reload has a daemon read its files again.
func reload(t *testing.T, p *labtest.Process) {
	t.Helper()
	const done = "reloaded certificates and lists"
	before := strings.Count(p.Output(), done)
	p.Signal(t, syscall.SIGHUP)
	labtest.Eventually(t, "the files are reloaded", func() bool { return strings.Count(p.Output(), done) > before })
}

func countBlocks(t *testing.T, path string) int {
	t.Helper()
	return strings.Count(fixture.ReadFile(t, path), "-----BEGIN")
}

func TestCAsAreRotatedWhileHostsShip(t *testing.T) {
	l, daemon, passes := newFleet(t)
	byHand := l.Host("lab-09")
	byHand.Run("--ping").MustExit(t, 0)
	p := daemon.Daemon()
	before := fixture.ReadFile(t, daemon.Path("identity", "host.pem"))

	mustContain(t, "rotate", rotate(l).MustExit(t, 0).Stdout, "pki-next", "rotate --finish")
	reload(t, l.Process())
	daemon.Episode("run-1")
	reload(t, p) // and it pings
	p.WaitLine(t, "certificate renewed")
	p.WaitLine(t, "CAs of the receiver replaced")
	p.WaitLine(t, "shipped episode=run-1")
	if fixture.ReadFile(t, daemon.Path("identity", "host.pem")) == before {
		t.Error("the certificate is the same")
	}

	refused := rotate(l, "--finish").MustExit(t, 1)
	mustContain(t, "finish", refused.Stderr, "2 hosts would be locked out", "1 of 3 active hosts are ready", "lab-08", "lab-09")
	passes.Episode("run-1")
	passes.AgeCAs()
	passes.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	hosts := l.Receiver("--config", l.Path("receiver.toml"), "hosts").MustExit(t, 0).Stdout
	mustContain(t, "hosts", hosts, "2 of 3 active hosts are ready", "not ready, it has neither the new CA nor a new certificate: lab-09")
	l.Receiver("pki", "issue", "lab-09", "--dir", l.Path("pki"), "--out", byHand.Path("pki"), "--force").MustExit(t, 0)
	byHand.Run("--ping").MustExit(t, 0)

	finished := rotate(l, "--finish").MustExit(t, 0)
	mustContain(t, "finish", finished.Stdout, "pki-former-")
	reload(t, l.Process())
	for _, h := range []*labtest.Host{passes, byHand} {
		h.Episode("run-2")
		if h != byHand {
			h.AgeCAs()
		}
		h.Once().Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
	}
	daemon.Episode("run-2")
	reload(t, p)
	p.WaitLine(t, "shipped episode=run-2")
	labtest.Eventually(t, "the daemon trusts the new CA alone", func() bool { return countBlocks(t, daemon.Path("identity", "host-ca.crt")) == 1 })
	p.Stop(t)
	if n := countBlocks(t, passes.Path("identity", "host-ca.crt")); n != 1 {
		t.Errorf("lab-08 trusts %d CAs, want the new one alone", n)
	}

	// What the former CAs signed ends.
	fixture.WriteFile(t, daemon.Path("identity", "host.pem"), before)
	daemon.Run("--ping").MustExit(t, 4)
	mustContain(t, "list", l.Receiver("pki", "list", "--dir", l.Path("pki")).MustExit(t, 0).Stdout, "retired")
	newcomer := l.Newcomer("lab-10")
	newcomer.Run("join", l.Invite("lab-10")).MustExit(t, 0)
	ship(t, l, newcomer, "run-1")
	left, err := filepath.Glob(l.Path("pki-next*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
	rotate(l, "--finish").MustExit(t, 1)
}

// An upload in flight when the former CAs are retired is continued with the new certificate.
func TestUploadOutlivesARotation(t *testing.T) {
	l, h, _ := newFleet(t, labtest.Set("limits.idle_timeout", `"10m"`)) // the test decides when the upload continues
	l.Proxy.Always(labtest.Fault{StallAfter: 1 << 20})
	const size = 2 << 20
	makeLargeEpisode(t, h, "large", size)
	p := h.Daemon()
	labtest.Eventually(t, "an upload is under way", func() bool { return len(l.Staged()) > 0 })
	rotate(l).MustExit(t, 0)
	reload(t, l.Process())
	reload(t, p)
	p.WaitLine(t, "certificate renewed")
	if strings.Contains(p.Output(), "shipped episode=large") {
		t.Fatal("the upload ended before the rotation")
	}
	l.Proxy.Always(labtest.Fault{})                 // for what follows it
	rotate(l, "--finish", "--force").MustExit(t, 0) // lab-08 was not here
	reload(t, l.Process())
	p.WaitLine(t, "shipped episode=large")
	p.Stop(t)
	l.Settled(t)
	if sent := l.Proxy.Sent(); sent > size+size/2 {
		t.Errorf("%d bytes were sent for an episode of %d", sent, size)
	}
}

// A host that cannot follow ships as before. Its daemon says so once, and its passes once a day.
func TestHostThatCannotFollowARotationSaysSoSeldom(t *testing.T) {
	l, daemon, passes := newFleet(t)
	rotate(l).MustExit(t, 0)
	path := l.Path("identity", "server-ca.crt")
	cas := fixture.ReadFile(t, path)
	fixture.WriteFile(t, path, cas[:strings.LastIndex(cas, "-----BEGIN")]) // without the link certificate
	reload(t, l.Process())
	p := daemon.Daemon()
	const line = "CAs of the receiver not replaced"
	mustContain(t, "the daemon", p.WaitLine(t, line), "WARN", "vouches", "join again")
	reload(t, p)
	daemon.Episode("run-1")
	p.WaitLine(t, "shipped episode=run-1")
	p.Stop(t)
	if n := strings.Count(p.Output(), line); n != 1 {
		t.Errorf("the daemon says so %d times", n)
	}
	passes.SetCAsAsked(time.Now().Add(-30 * time.Hour))
	for i, want := range []bool{true, false} {
		passes.Episode(fmt.Sprint("run-", i))
		r := passes.Once()
		r.Must(t, 0, labtest.Tally{Scanned: 1, Shipped: 1})
		if got := strings.Contains(r.Stderr, line); got != want {
			t.Errorf("pass %d says so: %v, want %v", i, got, want)
		}
		passes.AgeCAs()
	}
	l.Settled(t)
}
