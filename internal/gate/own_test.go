package gate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/pkitest"
)

func TestReceiverRenewsItsOwnCertificate(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	renewed := filepath.Join(j.Identity, "server.pem")
	for age, want := range map[time.Duration]bool{0: false, 180 * pkitest.Day: false, 210 * pkitest.Day: true, 400 * pkitest.Day: true} {
		j.IssueServer(ca.RenewOptions{Now: time.Now().Add(-age)})
		fixture.Must(t, j.Gate.Reload())
		before := j.Gate.Trust().NotAfter()
		if got := j.RenewOwn(); got != want {
			t.Errorf("%v old: renewed %v, want %v", age, got, want)
		}
		if !want {
			continue
		}
		if j.RenewOwn() {
			t.Error("it is renewed twice")
		}
		if info, err := os.Stat(renewed); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", renewed, info, err)
		}
		fixture.Must(t, j.Gate.Reload())
		if got := j.ReceiverCertificate(); got.NotAfter.Before(before.Add(200*pkitest.Day)) || got.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("hosts see a certificate until %v for %v", got.NotAfter, got.IPAddresses)
		}
	}
}

// What the operator installs wins over what renewal wrote, also if it was signed earlier.
func TestCertificateOfTheOperatorWins(t *testing.T) {
	for name, signed := range map[string]time.Time{"later": time.Now(), "earlier": time.Now().Add(-pkitest.Day)} {
		t.Run(name, func(t *testing.T) {
			j := pkitest.NewJoinLab(t)
			j.IssueServer(ca.RenewOptions{Now: time.Now().Add(-300 * pkitest.Day)})
			if !j.RenewOwn() {
				t.Fatal("it was not renewed")
			}
			j.IssueServer(ca.RenewOptions{Now: signed, Names: []string{"localhost"}})
			if j.RenewOwn() {
				t.Error("it is used before a reload")
			}
			fixture.Must(t, j.Gate.Reload())
			if got := j.Gate.Trust().Names(); len(got) != 1 {
				t.Errorf("the certificate in use is for %q", got)
			}
		})
	}
}

// What another CA signed, its owner renews.
func TestReceiverRenewsOnlyWhatItsIssuingCASigned(t *testing.T) {
	for name, change := range map[string]func(j *pkitest.JoinLab){
		"no issuing CA":      func(j *pkitest.JoinLab) { fixture.Must(t, os.Remove(filepath.Join(j.Identity, "server-issuing.pem"))) },
		"no identity":        func(j *pkitest.JoinLab) { j.Config.IdentityDir = "" },
		"signed by the root": func(j *pkitest.JoinLab) { fixture.Must(t, os.Remove(j.Path("ca-issuing.key"))) },
	} {
		t.Run(name, func(t *testing.T) {
			j := pkitest.NewJoinLab(t)
			change(j)
			j.IssueServer(ca.RenewOptions{Now: time.Now().Add(-300 * pkitest.Day)})
			if renewed, err := j.Config.RenewOwn(time.Now()); renewed || err != nil {
				t.Errorf("got %v, %v", renewed, err)
			}
			if _, renews := j.Config.RenewsOwnAt(time.Now()); renews {
				t.Error("it is said to renew itself")
			}
			if lacks := j.Config.LacksOwnIssuer(); lacks != (name == "no issuing CA") {
				t.Errorf("lacks the issuing CA: %v", lacks)
			}
		})
	}
}

// A clock that was wrong when the receiver renewed must not lock out all hosts when it is right again:
// neither while the configured certificate is valid, nor later.
func TestWrongClockLocksOutNoHost(t *testing.T) {
	for name, test := range map[string]struct{ age, wrong time.Duration }{
		"ahead, first year":  {0, 300 * pkitest.Day},
		"ahead, second year": {500 * pkitest.Day, 300 * pkitest.Day},
		"ahead, for ever":    {500 * pkitest.Day, 9 * 365 * pkitest.Day},
		"behind":             {500 * pkitest.Day, -100 * pkitest.Day},
		"of 1970":            {500 * pkitest.Day, -56 * 365 * pkitest.Day},
	} {
		t.Run(name, func(t *testing.T) {
			j := pkitest.NewJoinLab(t)
			j.IssueServer(ca.RenewOptions{Now: time.Now().Add(-test.age)})
			fixture.Must(t, j.Gate.Reload())
			j.RenewOwn()
			for _, clock := range []time.Duration{test.wrong, 0, test.wrong, 0} {
				j.Late.Store(int64(clock))
				j.RenewOwn()
			}
			now := time.Now()
			if trust := j.Gate.Trust(); now.Before(trust.NotBefore()) || now.After(trust.NotAfter()) {
				t.Errorf("the certificate in use is valid from %v to %v", trust.NotBefore(), trust.NotAfter())
			}
			j.ReceiverCertificate()
		})
	}
}

func TestDamagedRenewedCertificateIsNamed(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	path := filepath.Join(j.Identity, "server.pem")
	pkitest.WriteFile(t, path, []byte("damaged"))
	if err := j.Gate.Reload(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("got %v", err)
	}
}
