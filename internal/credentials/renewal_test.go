package credentials_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pkitest"
)

func TestJoinedCertificateIsRenewedAfterHalfItsLife(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	times := make(map[time.Time]bool)
	for range 3 {
		at, renews := pkitest.LoadJoined(t, j.Join("lab-01", false, now)).RenewAt()
		if after := at.Sub(now); !renews || after < 182*pkitest.Day || after > 206*pkitest.Day {
			t.Errorf("it is renewed %v, after %v; want after half a year or a little more", renews, after)
		}
		times[at] = true
	}
	if len(times) != 3 {
		t.Errorf("hosts that joined together ask together: %v", times)
	}
	out := t.TempDir()
	_, err := ca.IssueHost(j.Dir, "lab-01", out, ca.IssueOptions{})
	fixture.Must(t, err)
	byHand, err := credentials.Load(credentials.Config{
		CAFile: filepath.Join(out, "ca.crt"), CertFile: filepath.Join(out, "lab-01.crt"), KeyFile: filepath.Join(out, "lab-01.key"),
		IdentityDir: j.Join("lab-01", false, now.Add(-pkitest.Day)).Identity, Host: "lab-01",
	})
	fixture.Must(t, err)
	if _, renews := byHand.RenewAt(); renews {
		t.Error("a certificate that was installed by hand would be replaced")
	}
}

// The answer may be lost: the next request is for the same key. After the installation it is not.
func TestRenewalKeepsItsKeyUntilItIsInstalled(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	h := j.Join("lab-01", false, now.Add(-200*pkitest.Day))
	client := pkitest.LoadJoined(t, h)
	keyOf := func(r *credentials.Renewal) string {
		t.Helper()
		request, err := gate.ParseRequest(r.Request)
		fixture.Must(t, err)
		return request.KeySHA256
	}
	first := pkitest.OpenRenewal(t, client)
	key := keyOf(first)
	fixture.Must(t, first.Close())
	second := pkitest.OpenRenewal(t, client)
	if keyOf(second) != key {
		t.Error("the next attempt has another key")
	}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.OpenRenewal(impatient); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two renew at once: %v", err)
	}
	before := pkitest.ReadFile(t, filepath.Join(h.Identity, "host.pem"))
	chain := j.Answer(second, "lab-01", now)
	candidate, err := second.Candidate(chain, now)
	fixture.Must(t, err)
	j.NewCaller(candidate.TLSConfig()).WantAccess("lab-01 mtls")
	if string(pkitest.ReadFile(t, filepath.Join(h.Identity, "host.pem"))) != string(before) {
		t.Error("the certificate was replaced before the receiver accepted the new one")
	}
	renewed, err := second.Install(chain)
	fixture.Must(t, err)
	fixture.Must(t, second.Close())
	fixture.Must(t, client.Reload())
	if !client.NotAfter().Equal(renewed.NotAfter) {
		t.Errorf("the certificate in use expires on %v, not on %v", client.NotAfter(), renewed.NotAfter)
	}
	j.NewCaller(client.TLSConfig()).WantAccess("lab-01 mtls")
	third := pkitest.OpenRenewal(t, client)
	defer third.Close()
	if keyOf(third) == key {
		t.Error("the next certificate has the same key")
	}
}

func TestCandidateMustBeUsableAndLastLonger(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	h := j.Join("lab-01", false, now.Add(-200*pkitest.Day))
	r := pkitest.OpenRenewal(t, pkitest.LoadJoined(t, h))
	defer r.Close()
	other := pkitest.OpenRenewal(t, pkitest.LoadJoined(t, j.Join("lab-01", false, now.Add(-200*pkitest.Day))))
	defer other.Close()
	for name, test := range map[string]struct {
		chain []byte
		want  string
	}{
		"good":        {j.Answer(r, "lab-01", now), ""},
		"other key":   {j.Answer(other, "lab-01", now), "another key"},
		"other host":  {j.Answer(r, "lab-02", now), "for host lab-02"},
		"future":      {j.Answer(r, "lab-01", now.Add(30*pkitest.Day)), "not valid before"},
		"expired":     {j.Answer(r, "lab-01", now.Add(-400*pkitest.Day)), "expired"},
		"not longer":  {j.Answer(r, "lab-01", now.Add(-201*pkitest.Day)), "not later"},
		"nothing":     {nil, "0 of 0"},
		"no PEM":      {[]byte("hello"), "0 of 0"},
		"half of it":  {j.Answer(r, "lab-01", now)[:300], "can be read"},
		"a key in it": {append(j.Answer(r, "lab-01", now), pkitest.ReadFile(t, filepath.Join(h.Identity, "host.pem"))...), "PRIVATE KEY"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Candidate(test.chain, now)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
