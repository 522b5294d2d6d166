package labtest_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

const day = 24 * time.Hour

// newJoinedHost returns a lab with a host that has joined, and whose certificate is that old.
func newJoinedHost(t *testing.T, age time.Duration) (*labtest.Lab, *labtest.Host) {
	t.Helper()
	l, h := newJoinLab(t)
	h.Run("join", l.Invite("lab-07")).MustExit(t, 0)
	path := h.Path("lab-host.toml")
	fixture.WriteFile(t, path, "settle = \"0s\"\n"+fixture.ReadFile(t, path))
	h.AgeCertificate(age)
	return l, h
}

// hostFacts are in the output of receiver hosts --json.
type hostFacts struct {
	State        string `json:"state"`
	Certificates []struct {
		Serial   string    `json:"serial"`
		NotAfter time.Time `json:"not_after"`
	} `json:"certificates"`
}

func factsOf(t *testing.T, l *labtest.Lab, host string) hostFacts {
	t.Helper()
	for _, line := range strings.Split(l.Receiver("--config", l.Path("receiver.toml"), "hosts", "--json").MustExit(t, 0).Stdout, "\n") {
		var f struct {
			Host string `json:"host_id"`
			hostFacts
		}
		if json.Unmarshal([]byte(line), &f) == nil && f.Host == host {
			return f.hostFacts
		}
	}
	t.Fatalf("receiver hosts does not list %s", host)
	return hostFacts{}
}

func TestCertificateRenewsItself(t *testing.T) {
	l, h := newJoinedHost(t, 300*day)
	old := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	h.Episode("run-1")
	p := h.Daemon()
	p.WaitLine(t, "certificate renewed")
	p.WaitLine(t, "shipped episode=run-1")
	p.Stop(t)
	l.Settled(t)
	now := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	if key := now[:strings.Index(now, "END PRIVATE KEY")]; strings.Contains(old, key) {
		t.Error("the new certificate has the old key")
	}
	if fixture.Exists(h.Path("identity", "host-renewal.pem")) {
		t.Error("a copy of the key is left")
	}
	facts := factsOf(t, l, "lab-07")
	if left := time.Until(facts.Certificates[0].NotAfter); facts.State != "active" || left < 364*day {
		t.Errorf("the receiver knows %+v", facts)
	}
	ship(t, l, h, "run-2")
	if fixture.ReadFile(t, h.Path("identity", "host.pem")) != now {
		t.Error("a pass renewed the new certificate")
	}
}

// A host that runs from cron has no daemon that could renew.
func TestPassRenewsTheCertificate(t *testing.T) {
	l, h := newJoinedHost(t, 300*day)
	ship(t, l, h, "run-1")
	if left := time.Until(factsOf(t, l, "lab-07").Certificates[0].NotAfter); left < 364*day {
		t.Errorf("the certificate expires in %v", left)
	}
	ship(t, l, h, "run-2")
}

// The connection is cut at every place, and the answer is lost behind each of them.
func TestRenewalIsRepeatedAfterAnyCut(t *testing.T) {
	l, h := newJoinedHost(t, 300*day)
	old := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	changed := func() bool { return fixture.ReadFile(t, h.Path("identity", "host.pem")) != old }
	lost := false
	for at := int64(400); !changed(); at += 400 {
		if at > 1<<16 {
			t.Fatal("the certificate was not renewed")
		}
		h.AgeRenewal()
		l.Proxy.Next(labtest.Fault{LoseBehind: at})
		h.Once().MustExit(t, 0)
		lost = lost || !changed() && strings.Contains(l.Process().Output(), "host certificate renewed")
	}
	if !lost {
		t.Error("no answer was lost")
	}
	l.Proxy.Always(labtest.Fault{})
	ship(t, l, h, "run-1")
	if n := len(factsOf(t, l, "lab-07").Certificates); n != 3 {
		t.Errorf("the receiver knows %d certificates, want those of joining, of this test and of renewal", n)
	}
}

// The former certificate is given up only when the receiver has accepted the new one.
func TestRenewedCertificateIsTestedBeforeItIsInstalled(t *testing.T) {
	l, h := newJoinedHost(t, 300*day)
	old := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	for range 3 {
		h.AgeRenewal()
		l.Proxy.Next(labtest.Fault{}, labtest.Fault{Refuse: true}) // the second connection is the test
		h.Once().MustExit(t, 0)
		if fixture.ReadFile(t, h.Path("identity", "host.pem")) != old {
			t.Fatal("it was installed without a test")
		}
	}
	if !strings.Contains(l.Process().Output(), "host certificate renewed") {
		t.Error("the receiver renewed nothing")
	}
	ship(t, l, h, "run-1") // within the hour it does not ask again
	if fixture.ReadFile(t, h.Path("identity", "host.pem")) != old {
		t.Error("each pass asks")
	}
	h.AgeRenewal()
	ship(t, l, h, "run-2")
	if fixture.ReadFile(t, h.Path("identity", "host.pem")) == old {
		t.Error("it was not installed after the test")
	}
}

// Sending does not pause, and the log has one line.
func TestOlderReceiverCostsOneLine(t *testing.T) {
	l, h := newJoinedHost(t, 300*day)
	fixture.Must(t, os.Remove(l.Path("identity", "hosts-issuing.pem"))) // it cannot sign: 404, as from an older one
	l.Restart()
	h.Episode("run-1")
	p := h.Daemon()
	p.WaitLine(t, "shipped episode=run-1")
	p.WaitLine(t, "certificate not renewed")
	h.Episode("run-2")
	p.WaitLine(t, "shipped episode=run-2")
	p.Stop(t)
	l.Settled(t)
	if n := strings.Count(p.Output(), "not renewed"); n != 1 || strings.Contains(p.Output(), "paused") {
		t.Errorf("%d lines say so:\n%s", n, p.Output())
	}
	ship(t, l, h, "run-3")
}

// A certificate that was installed by hand is not replaced.
func TestCertificateInstalledByHandIsLeftAlone(t *testing.T) {
	l, h := newJoinedHost(t, 340*day)
	_, err := ca.IssueHost(l.Path("pki"), "lab-07", h.Path("pki"), ca.IssueOptions{Now: time.Now().Add(-300 * day)})
	fixture.Must(t, err)
	path := h.Path("lab-host.toml")
	fixture.WriteFile(t, path, fixture.ReadFile(t, path)+"\nca_file = \"pki/ca.crt\"\ncert_file = \"pki/lab-07.crt\"\nkey_file = \"pki/lab-07.key\"\n")
	old := fixture.ReadFile(t, h.Path("identity", "host.pem"))
	ship(t, l, h, "run-1")
	if fixture.ReadFile(t, h.Path("identity", "host.pem")) != old {
		t.Error("the certificate of joining was renewed, which is not in use")
	}
	if strings.Contains(l.Process().Output(), "/v1/renew") {
		t.Error("the host asked for another certificate")
	}
}

func TestHostThatWasAwayTooLongIsToldToJoinAgain(t *testing.T) {
	l, h := newJoinedHost(t, 400*day)
	mustContain(t, "ping", h.Run("--ping").MustExit(t, 4).Stderr, "expired", "receiver invite lab-07 --again")
	h.Run("join", l.Invite("lab-07", "--again")).MustExit(t, 0)
	ship(t, l, h, "run-1")
}

func TestReceiverRenewsItself(t *testing.T) {
	l, h := newJoinedHost(t, 0)
	_, err := ca.RenewServer(l.Path("pki"), ca.RenewOptions{Now: time.Now().Add(-300 * day)})
	fixture.Must(t, err)
	l.Restart()
	l.Process().WaitLine(t, "certificate renewed")
	for _, name := range []string{"run-1", "run-2"} {
		ship(t, l, h, name)
		l.Restart()
	}
	if strings.Contains(l.Process().Output(), "renewed") {
		t.Error("it renewed its certificate twice")
	}
	check := l.Receiver("--config", l.Path("receiver.toml"), "check").MustExit(t, 0)
	mustContain(t, "check", check.Stdout, l.Path("identity", "server.pem"), time.Now().Add(365*day).UTC().Format("2006"))
}

// An older unit does not list the directory in ReadWritePaths=. That must not stop the shipper.
func TestReadOnlyIdentityStopsNoShipping(t *testing.T) {
	l, h := newJoinedHost(t, 340*day)
	h.Episode("run-1")
	code, said := runReadOnly(t, h.Path("identity"), l.Program("shipper"), "--once", "--config", h.Path("lab-host.toml"))
	if code != 0 || !h.IsShipped("run-1") {
		t.Errorf("exit code %d, shipped: %v", code, h.IsShipped("run-1"))
	}
	mustContain(t, "the pass", said, "certificate not renewed", "read-only file system", "ReadWritePaths=")
	l.Settled(t)
	ship(t, l, h, "run-2")
	if left := time.Until(factsOf(t, l, "lab-07").Certificates[0].NotAfter); left < 364*day {
		t.Errorf("the certificate expires in %v", left)
	}
}

// A certificate that is not renewed is named at both ends, and why.
func TestBothEndsWarnOfAnExpiry(t *testing.T) {
	l, h := newJoinedHost(t, 340*day)
	fixture.Must(t, os.Remove(l.Path("identity", "hosts-issuing.pem")))
	l.Restart()
	ship(t, l, h, "run-1")
	l.Restart()
	mustContain(t, "the receiver", l.Process().WaitLine(t, "host certificate expires soon"), "host=lab-07", "days=2", "receiver invite lab-07 --again")
	p := h.Daemon()
	mustContain(t, "the shipper", p.WaitLine(t, "certificate expires soon"), "days=2", "receiver invite lab-07 --again")
	p.Stop(t)
}
