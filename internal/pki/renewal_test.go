package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
)

const day = 24 * time.Hour

// loadJoined returns the client of a host that has joined.
func loadJoined(t testing.TB, h joined) *pki.Client {
	t.Helper()
	client, err := pki.LoadClient(pki.ClientConfig{IdentityDir: h.identity, Host: h.issued.Host})
	fixture.Must(t, err)
	return client
}

// openRenewal opens the request for the next certificate of a client until the test ends.
func openRenewal(t *testing.T, c *pki.Client) *pki.Renewal {
	t.Helper()
	r, err := c.OpenRenewal(t.Context())
	fixture.Must(t, err)
	return r
}

// answer signs a request for renewal as the receiver does.
func (j *joinLab) answer(r *pki.Renewal, host episode.Name, now time.Time) []byte {
	j.t.Helper()
	request, err := pki.ParseRequest(r.Request)
	fixture.Must(j.t, err)
	issued, err := j.issuer.SignHost(request, host, now)
	fixture.Must(j.t, err)
	fixture.Must(j.t, j.records.SetRenewed(issued, request.KeySHA256))
	chain, err := j.issuer.Chain(issued.Serial)
	fixture.Must(j.t, err)
	return chain
}

func TestJoinedCertificateIsRenewedAfterHalfItsLife(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	times := make(map[time.Time]bool)
	for range 3 {
		at, renews := loadJoined(t, j.join("lab-01", false, now)).RenewAt()
		if after := at.Sub(now); !renews || after < 182*day || after > 206*day {
			t.Errorf("it is renewed %v, after %v; want after half a year or a little more", renews, after)
		}
		times[at] = true
	}
	if len(times) != 3 {
		t.Errorf("hosts that joined together ask together: %v", times)
	}
	out := t.TempDir()
	_, err := pki.IssueHost(j.dir, "lab-01", out, pki.IssueOptions{})
	fixture.Must(t, err)
	byHand, err := pki.LoadClient(pki.ClientConfig{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, "lab-01.crt"), KeyFile: filepath.Join(out, "lab-01.key"),
		IdentityDir: j.join("lab-01", false, now.Add(-day)).identity, Host: "lab-01",
	})
	fixture.Must(t, err)
	if _, renews := byHand.RenewAt(); renews {
		t.Error("a certificate that was installed by hand would be replaced")
	}
}

// The answer may be lost: the next request is for the same key. After the installation it is not.
func TestRenewalKeepsItsKeyUntilItIsInstalled(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	h := j.join("lab-01", false, now.Add(-200*day))
	client := loadJoined(t, h)
	keyOf := func(r *pki.Renewal) string {
		t.Helper()
		request, err := pki.ParseRequest(r.Request)
		fixture.Must(t, err)
		return request.KeySHA256
	}
	first := openRenewal(t, client)
	key := keyOf(first)
	fixture.Must(t, first.Close())
	second := openRenewal(t, client)
	if keyOf(second) != key {
		t.Error("the next attempt has another key")
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.OpenRenewal(impatient); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two renew at once: %v", err)
	}
	before := readFile(t, filepath.Join(h.identity, "host.pem"))
	chain := j.answer(second, "lab-01", now)
	candidate, err := second.Candidate(chain, now)
	fixture.Must(t, err)
	j.newCaller(candidate.TLSConfig()).wantAccess("lab-01 mtls")
	if string(readFile(t, filepath.Join(h.identity, "host.pem"))) != string(before) {
		t.Error("the certificate was replaced before the receiver accepted the new one")
	}
	renewed, err := second.Install(chain)
	fixture.Must(t, err)
	fixture.Must(t, second.Close())
	fixture.Must(t, client.Reload())
	if !client.NotAfter().Equal(renewed.NotAfter) {
		t.Errorf("the certificate in use expires on %v, not on %v", client.NotAfter(), renewed.NotAfter)
	}
	j.newCaller(client.TLSConfig()).wantAccess("lab-01 mtls")
	third := openRenewal(t, client)
	defer third.Close()
	if keyOf(third) == key {
		t.Error("the next certificate has the same key")
	}
}

func TestCandidateMustBeUsableAndLastLonger(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	h := j.join("lab-01", false, now.Add(-200*day))
	r := openRenewal(t, loadJoined(t, h))
	defer r.Close()
	other := openRenewal(t, loadJoined(t, j.join("lab-01", false, now.Add(-200*day))))
	defer other.Close()
	for name, test := range map[string]struct {
		chain []byte
		want  string
	}{
		"good":        {j.answer(r, "lab-01", now), ""},
		"other key":   {j.answer(other, "lab-01", now), "another key"},
		"other host":  {j.answer(r, "lab-02", now), "for host lab-02"},
		"future":      {j.answer(r, "lab-01", now.Add(30*day)), "not valid before"},
		"expired":     {j.answer(r, "lab-01", now.Add(-400*day)), "expired"},
		"not longer":  {j.answer(r, "lab-01", now.Add(-201*day)), "not later"},
		"nothing":     {nil, "0 of 0"},
		"no PEM":      {[]byte("hello"), "0 of 0"},
		"half of it":  {j.answer(r, "lab-01", now)[:300], "can be read"},
		"a key in it": {append(j.answer(r, "lab-01", now), readFile(t, filepath.Join(h.identity, "host.pem"))...), "PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Candidate(test.chain, now)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A machine that was replaced must not get around that by renewing between the two.
func TestRenewalDoesNotOutliveJoiningAgain(t *testing.T) {
	j := newJoinLab(t)
	now := time.Now()
	stolen := j.join("lab-01", false, now.Add(-200*day))
	renew := func(h joined, now time.Time) {
		t.Helper()
		r := openRenewal(t, loadJoined(t, h))
		defer r.Close()
		_, err := r.Install(j.answer(r, "lab-01", now))
		fixture.Must(t, err)
	}
	again := j.join("lab-01", true, now.Add(-3*time.Hour))
	renew(stolen, now.Add(-2*time.Hour))
	fixture.Must(t, j.note(stolen)) // the new machine has not been seen
	fixture.Must(t, j.note(again))
	for range 2 {
		if err := j.note(stolen); !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("got %v, want %v", err, pki.ErrIdentity)
		}
		j.reopen()
	}
	// The new machine's own renewals have access, also after a clock was set back.
	for _, at := range []time.Duration{-6 * time.Hour, -5 * time.Hour, -4 * time.Hour, 0} {
		r := openRenewal(t, loadJoined(t, again))
		chain := j.answer(r, "lab-01", now.Add(at))
		fixture.Must(t, j.note(again)) // it still uses the one before
		_, err := r.Install(chain)
		fixture.Must(t, errors.Join(err, r.Close()))
		fixture.Must(t, j.note(again))
	}
}

// receiverCertificate returns the certificate that a host which trusts the root gets.
func (j *joinLab) receiverCertificate() *x509.Certificate {
	j.t.Helper()
	config := loadJoined(j.t, j.join("lab-01", false, time.Now())).TLSConfig()
	config.ServerName = "localhost"
	conn, err := tls.Dial("tcp", j.addr, config)
	fixture.Must(j.t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// issueServer replaces the configured certificate of the receiver.
func (j *joinLab) issueServer(o pki.RenewOptions) {
	j.t.Helper()
	_, err := pki.RenewServer(j.dir, o)
	fixture.Must(j.t, err)
}

// renewOwn does what the receiver does each hour.
func (j *joinLab) renewOwn() (changed bool) {
	j.t.Helper()
	_, err := j.config.RenewOwn(j.gate.Now())
	fixture.Must(j.t, err)
	changed, err = j.gate.UseRenewed()
	fixture.Must(j.t, err)
	return changed
}

func TestReceiverRenewsItsOwnCertificate(t *testing.T) {
	j := newJoinLab(t)
	renewed := filepath.Join(j.identity, "server.pem")
	for age, want := range map[time.Duration]bool{0: false, 180 * day: false, 210 * day: true, 400 * day: true} {
		j.issueServer(pki.RenewOptions{Now: time.Now().Add(-age)})
		fixture.Must(t, j.gate.Reload())
		before := j.gate.Trust().NotAfter()
		if got := j.renewOwn(); got != want {
			t.Errorf("%v old: renewed %v, want %v", age, got, want)
		}
		if !want {
			continue
		}
		if j.renewOwn() {
			t.Error("it is renewed twice")
		}
		if info, err := os.Stat(renewed); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", renewed, info, err)
		}
		fixture.Must(t, j.gate.Reload())
		if got := j.receiverCertificate(); got.NotAfter.Before(before.Add(200*day)) || got.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("hosts see a certificate until %v for %v", got.NotAfter, got.IPAddresses)
		}
	}
}

// What the operator installs wins over what renewal wrote, also if it was signed earlier.
func TestCertificateOfTheOperatorWins(t *testing.T) {
	for name, signed := range map[string]time.Time{"later": time.Now(), "earlier": time.Now().Add(-day)} {
		t.Run(name, func(t *testing.T) {
			j := newJoinLab(t)
			j.issueServer(pki.RenewOptions{Now: time.Now().Add(-300 * day)})
			if !j.renewOwn() {
				t.Fatal("it was not renewed")
			}
			j.issueServer(pki.RenewOptions{Now: signed, Names: []string{"localhost"}})
			if j.renewOwn() {
				t.Error("it is used before a reload")
			}
			fixture.Must(t, j.gate.Reload())
			if got := j.gate.Trust().Names(); len(got) != 1 {
				t.Errorf("the certificate in use is for %q", got)
			}
		})
	}
}

// What another CA signed, its owner renews.
func TestReceiverRenewsOnlyWhatItsIssuingCASigned(t *testing.T) {
	for name, change := range map[string]func(j *joinLab){
		"no issuing CA":      func(j *joinLab) { fixture.Must(t, os.Remove(filepath.Join(j.identity, "server-issuing.pem"))) },
		"no identity":        func(j *joinLab) { j.config.IdentityDir = "" },
		"signed by the root": func(j *joinLab) { fixture.Must(t, os.Remove(j.path("ca-issuing.key"))) },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoinLab(t)
			change(j)
			j.issueServer(pki.RenewOptions{Now: time.Now().Add(-300 * day)})
			if renewed, err := j.config.RenewOwn(time.Now()); renewed || err != nil {
				t.Errorf("got %v, %v", renewed, err)
			}
			if _, renews := j.config.RenewsOwnAt(time.Now()); renews {
				t.Error("it is said to renew itself")
			}
			if lacks := j.config.LacksOwnIssuer(); lacks != (name == "no issuing CA") {
				t.Errorf("lacks the issuing CA: %v", lacks)
			}
		})
	}
}

// A clock that was wrong when the receiver renewed must not lock out all hosts when it is right again:
// neither while the configured certificate is valid, nor later.
func TestWrongClockLocksOutNoHost(t *testing.T) {
	for name, test := range map[string]struct{ age, wrong time.Duration }{
		"ahead, first year":  {0, 300 * day},
		"ahead, second year": {500 * day, 300 * day},
		"ahead, for ever":    {500 * day, 9 * 365 * day},
		"behind":             {500 * day, -100 * day},
		"of 1970":            {500 * day, -56 * 365 * day},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoinLab(t)
			j.issueServer(pki.RenewOptions{Now: time.Now().Add(-test.age)})
			fixture.Must(t, j.gate.Reload())
			j.renewOwn()
			for _, clock := range []time.Duration{test.wrong, 0, test.wrong, 0} {
				j.late.Store(int64(clock))
				j.renewOwn()
			}
			now := time.Now()
			if trust := j.gate.Trust(); now.Before(trust.NotBefore()) || now.After(trust.NotAfter()) {
				t.Errorf("the certificate in use is valid from %v to %v", trust.NotBefore(), trust.NotAfter())
			}
			j.receiverCertificate()
		})
	}
}

func TestDamagedRenewedCertificateIsNamed(t *testing.T) {
	j := newJoinLab(t)
	path := filepath.Join(j.identity, "server.pem")
	writeFile(t, path, []byte("damaged"))
	if err := j.gate.Reload(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("got %v", err)
	}
}
