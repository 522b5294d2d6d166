package hostrecord_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/pkitest"
)

// An old certificate ends with a request by the new one, not with a handshake that the host did not
// hear of, and not before.
func TestCertificateEndsWithTheFirstUseOfItsSuccessor(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	old := j.Join("lab-01", false, now.Add(-2*time.Hour))
	fixture.Must(t, j.Note(old))
	other := j.Join("lab-02", false, now.Add(-2*time.Hour))
	again := j.Join("lab-01", true, now.Add(-2*time.Hour)) // in the same second
	fixture.Must(t, j.Note(old))
	again.WantAccess("lab-01 mtls") // a handshake, and a request that the receiver did not note
	old.WantAccess("lab-01 mtls")

	fixture.Must(t, j.Note(again))
	old.WantRefusedOnSameConnection(403)
	for range 2 {
		if err := j.Note(old); !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("got %v, want %v", err, gate.ErrIdentity)
		}
		fixture.Must(t, j.Note(again))
		fixture.Must(t, j.Note(other))
		j.Reopen() // it is durable
	}
	// One installed by hand afterwards is newer.
	j.Issue("lab-01", ca.IssueOptions{}).WantAccess("lab-01 mtls")
}

// A host that joined without --again keeps what it had.
func TestFirstJoinEndsNoOtherCertificate(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	old := j.Issue("lab-01", ca.IssueOptions{Now: time.Now().Add(-2 * time.Hour)})
	fixture.Must(t, j.Note(j.Join("lab-01", false, time.Now())))
	old.WantAccess("lab-01 mtls")
}

// What ended stays ended: an invitation that is answered later must not bring it back.
func TestEndedCertificateStaysEndedWhenTheHostJoinsOnceMore(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	stolen := j.Join("lab-01", false, now.Add(-3*time.Hour))
	second := j.Join("lab-01", true, now.Add(-2*time.Hour))
	fixture.Must(t, j.Note(second))
	for _, again := range []bool{true, false} {
		third := j.Join("lab-01", again, now.Add(-time.Hour))
		if err := j.Note(stolen); !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("again %v, before the new one is used: got %v, want %v", again, err, gate.ErrIdentity)
		}
		fixture.Must(t, j.Note(third))
		if err := j.Note(stolen); !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("again %v, after: got %v, want %v", again, err, gate.ErrIdentity)
		}
		j.Reopen()
	}
}

// A receiver whose clock was ahead must not lock out a host that joins after that was corrected.
func TestHostJoinsAfterTheClockWasSetBack(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	j.Late.Store(int64(1000 * time.Hour))
	fixture.Must(t, j.Note(j.Join("lab-01", true, j.Gate.Now())))
	j.Late.Store(0)
	fixture.Must(t, j.Note(j.Join("lab-01", true, j.Gate.Now())))
}

// What a former machine got while the clock was ahead ends for good, and not until the host joins once more.
func TestCertificateOfTheFutureStaysEnded(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	ahead := 100 * pkitest.Day
	stolen := j.Join("lab-01", false, now.Add(-200*pkitest.Day))
	r := pkitest.OpenRenewal(t, pkitest.LoadJoined(t, stolen))
	_, err := r.Install(j.Answer(r, "lab-01", now.Add(ahead)))
	fixture.Must(t, errors.Join(err, r.Close()))
	for i := range 2 {
		fixture.Must(t, j.Note(j.Join("lab-01", true, now)))
		j.Late.Store(int64(ahead + pkitest.Day))
		if err := j.Note(stolen); !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("after the host has joined %d times: got %v, want %v", i+1, err, gate.ErrIdentity)
		}
		j.Late.Store(0)
	}
}

func TestFullDiskDoesNotKeepAnOldCertificateAlive(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	old := j.Join("lab-01", false, time.Now().Add(-2*time.Hour))
	again := j.Join("lab-01", true, time.Now())
	fixture.Must(t, os.RemoveAll(filepath.Join(j.Identity, "hosts"))) // no record can be written
	fixture.Must(t, j.Note(again))
	if err := j.Note(old); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("got %v, want %v", err, gate.ErrIdentity)
	}
	request := pkitest.ParsePending(t)
	issued, err := j.Issuer.SignHost(request, "lab-02", time.Now())
	fixture.Must(t, err)
	if err := j.Records.SetJoined(issued, false); err == nil {
		t.Error("a certificate that is not on record is handed out")
	}
}

// A machine that was replaced must not get around that by renewing between the two.
func TestRenewalDoesNotOutliveJoiningAgain(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	now := time.Now()
	stolen := j.Join("lab-01", false, now.Add(-200*pkitest.Day))
	renew := func(h pkitest.Joined, now time.Time) {
		t.Helper()
		r := pkitest.OpenRenewal(t, pkitest.LoadJoined(t, h))
		defer r.Close()
		_, err := r.Install(j.Answer(r, "lab-01", now))
		fixture.Must(t, err)
	}
	again := j.Join("lab-01", true, now.Add(-3*time.Hour))
	renew(stolen, now.Add(-2*time.Hour))
	fixture.Must(t, j.Note(stolen)) // the new machine has not been seen
	fixture.Must(t, j.Note(again))
	for range 2 {
		if err := j.Note(stolen); !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("got %v, want %v", err, gate.ErrIdentity)
		}
		j.Reopen()
	}
	// The new machine's own renewals have access, also after a clock was set back.
	for _, at := range []time.Duration{-6 * time.Hour, -5 * time.Hour, -4 * time.Hour, 0} {
		r := pkitest.OpenRenewal(t, pkitest.LoadJoined(t, again))
		chain := j.Answer(r, "lab-01", now.Add(at))
		fixture.Must(t, j.Note(again)) // it still uses the one before
		_, err := r.Install(chain)
		fixture.Must(t, errors.Join(err, r.Close()))
		fixture.Must(t, j.Note(again))
	}
}

// A damaged record may be the one that ends a stolen certificate: its host is refused, no other, and
// the file stays as it is.
func TestHostWhoseRecordIsDamagedIsRefused(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	old := j.Join("lab-01", false, time.Now().Add(-2*time.Second))
	h := j.Join("lab-01", true, time.Now())
	fixture.Must(t, j.Note(h))
	other := j.Join("lab-02", false, time.Now())
	path := filepath.Join(j.Identity, "hosts", "lab-01.json")
	for _, text := range []string{"", "{", `{"schema_version": 2, "host_id": "lab-01"}`, `{"schema_version": 1, "host_id": "lab-03"}`} {
		pkitest.WriteFile(t, path, []byte(text))
		j.Reopen()
		for name, c := range map[string]pkitest.Joined{"ended": old, "new": h} {
			if r := c.Call(); r.Status == 200 {
				t.Errorf("%q: the %s certificate gives access", text, name)
			}
		}
		other.WantAccess("lab-02 mtls")
		fixture.Must(t, j.Note(other))
		if err := j.Records.SetJoined(h.Issued, true); err == nil {
			t.Errorf("%q: the host may join", text)
		}
		if got := fixture.ReadFile(t, path); got != text {
			t.Errorf("the record %q was replaced by %q", text, got)
		}
	}
}

// A host cannot wear out the disk by naming other CAs in each ping.
func TestWhatAHostTrustsIsWrittenSeldom(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	fixture.Must(t, j.Note(h))
	c, err := j.Identify(h)
	fixture.Must(t, err)
	record := filepath.Join(j.Identity, "hosts", "lab-01.json")
	writes, last, now := 0, string(pkitest.ReadFile(t, record)), time.Now()
	note := func(cas ...string) {
		t.Helper()
		fixture.Must(t, j.Records.NoteTrustedCAs(c.Host, c.Certificate(), cas, now))
		if text := string(pkitest.ReadFile(t, record)); text != last {
			writes, last = writes+1, text
		}
	}
	for range 50 {
		note("a")
		note("a", "b")
	}
	if writes != 8 {
		t.Errorf("%d writes, want 8", writes)
	}
	now = now.Add(time.Hour)
	note("c")
	if records, err := hostrecord.List(j.Identity); err != nil || !slices.Equal(records["lab-01"].TrustedCAs, []string{"c"}) {
		t.Errorf("an hour later: %+v, %v", records, err)
	}
}
