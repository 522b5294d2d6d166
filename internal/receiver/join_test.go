package receiver_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/config"
	"cis490/internal/credentials"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/hostrecord"
	"cis490/internal/invite"
	"cis490/internal/pki"
	"cis490/internal/receiver"
	"cis490/internal/revocation"
	"cis490/internal/wire"
)

// joinLab is a lab whose receiver lets hosts join.
type joinLab struct {
	*lab
	identity string
	lines    strings.Builder
	book     *invite.Book // another process
}

func newJoinLab(t *testing.T) *joinLab {
	t.Helper()
	j := &joinLab{identity: fixture.MemoryDir(t)}
	j.lab = newLab(t, func(c *receiver.Config) {
		_, err := ca.InstallIssuing(filepath.Dir(string(c.TLS.CertFile)), j.identity)
		fixture.Must(t, err)
		c.IdentityDir = config.Path(j.identity)
	})
	j.restart(func() { j.log = slog.NewTextHandler(&j.lines, nil) })
	var err error
	j.book, err = invite.OpenBook(j.identity, "the test")
	fixture.Must(t, err)
	t.Cleanup(func() { j.book.Close() })
	return j
}

func (j *joinLab) invite(host episode.Name) wire.JoinRequest {
	j.Helper()
	return j.inviteWith(host, invite.CreateOptions{})
}

func (j *joinLab) inviteWith(host episode.Name, o invite.CreateOptions) wire.JoinRequest {
	j.Helper()
	i, secret, err := j.book.Create(j.Context(), host, o, time.Now())
	fixture.Must(j, err)
	return wire.JoinRequest{Invitation: i.ID, Secret: secret, CSR: j.newCSR()}
}

// newCSR returns a request for a new key.
func (j *joinLab) newCSR() []byte {
	j.Helper()
	p, err := credentials.OpenPending(filepath.Join(j.TempDir(), "identity"), "x")
	fixture.Must(j, err)
	return p.Request
}

func (j *joinLab) wantRefused(r wire.JoinRequest, want wire.Code) {
	j.Helper()
	if chain, err := j.r.Join(j.Context(), r); !errors.Is(err, want) || chain != nil {
		j.Errorf("got %q, %v; want %v", chain, err, want)
	}
}

// Any machine may ask while an invitation is open.
func TestRefusedRequestsNeitherBlockAHostNorFillTheLog(t *testing.T) {
	j := newJoinLab(t)
	good := j.invite("lab-07")
	csr := j.newCSR()
	busy := 0
	for n := range 300 {
		r := wire.JoinRequest{Invitation: fmt.Sprintf("aaaaaaaaaaaaaa%02d", n%100)[:16], Secret: "x", CSR: csr}
		if n%2 == 0 {
			r.CSR = []byte("garbage")
		}
		chain, err := j.r.Join(t.Context(), r)
		if err == nil {
			t.Fatalf("a stranger got %q", chain)
		}
		if errors.Is(err, wire.Busy) {
			busy++
		}
	}
	if busy < 200 {
		t.Errorf("%d of 300 refusals were explained", 300-busy)
	}
	if _, err := j.r.Join(t.Context(), good); err != nil {
		t.Errorf("the invited host: %v", err)
	}
	if found, _ := filepath.Glob(filepath.Join(j.identity, "invitations", "*")); len(found) != 1 {
		t.Errorf("strangers left %q", found)
	}
}

func TestCertificateIsOnRecordBeforeItIsHandedOut(t *testing.T) {
	j := newJoinLab(t)
	_, err := j.r.Join(t.Context(), j.invite("lab-07"))
	fixture.Must(t, err)
	list, err := revocation.ListIssued(j.pki, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	records, err := hostrecord.List(j.identity)
	fixture.Must(t, err)
	if len(list) != 1 || records["lab-07"].Joined == nil || records["lab-07"].Joined.Serial != list[0].Serial {
		t.Errorf("got %+v and %+v", list, records)
	}
	// What cannot be recorded is not handed out.
	for _, dir := range []string{"issued", "hosts"} {
		r := j.invite("lab-08")
		path := filepath.Join(j.identity, dir)
		fixture.Must(t, os.RemoveAll(path))
		fixture.WriteFile(t, path, "not a directory")
		if chain, err := j.r.Join(t.Context(), r); err == nil {
			t.Errorf("%s is not writable: got %q", dir, chain)
		}
		fixture.Must(t, os.Remove(path))
	}
}

func TestDisabledHostGetsNoCertificate(t *testing.T) {
	j := newJoinLab(t)
	used, open := j.invite("lab-07"), j.invite("lab-08")
	_, err := j.r.Join(t.Context(), used)
	fixture.Must(t, err)
	_, err = datadir.HostList{Dir: j.Data, Holder: "the test"}.Disable(t.Context(), []episode.Name{"lab-07", "lab-08"}, time.Now())
	fixture.Must(t, err)
	j.wantRefused(used, wire.Forbidden)
	j.wantRefused(open, wire.Forbidden)
	_, err = datadir.HostList{Dir: j.Data, Holder: "the test"}.Enable(t.Context(), []episode.Name{"lab-08"})
	fixture.Must(t, err)
	if _, err := j.r.Join(t.Context(), open); err != nil {
		t.Errorf("it is enabled again: %v", err)
	}
}

// A removed host is served again when it joins, and its former certificate ends at once: it may be the
// reason for the removal.
func TestRemovedHostIsServedWithItsNewCertificateAlone(t *testing.T) {
	j := newJoinLab(t)
	_, err := j.r.Join(t.Context(), j.invite("lab-07"))
	fixture.Must(t, err)
	list, err := revocation.ListIssued(j.pki, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	_, err = datadir.HostList{Dir: j.Data, Holder: "the test"}.Remove(t.Context(), []episode.Name{"lab-07"}, time.Now())
	fixture.Must(t, err)
	j.wantRefused(j.invite("lab-07"), wire.Forbidden)
	_, err = datadir.HostList{Dir: j.Data, Holder: "the test"}.Enable(t.Context(), []episode.Name{"lab-07"})
	fixture.Must(t, err)
	j.wantRefused(j.invite("lab-07"), wire.Forbidden)

	if _, err := j.r.Join(t.Context(), j.inviteWith("lab-07", invite.CreateOptions{Again: true})); err != nil {
		t.Fatalf("invited again: %v", err)
	}
	records, err := hostrecord.List(j.identity)
	fixture.Must(t, err)
	if former := list[0]; !records["lab-07"].HasReplaced(former.Serial, former.NotBefore) {
		t.Errorf("its former certificate is valid until the new one is used: %+v", records["lab-07"])
	}
	if n, err := datadir.CountDisabled(j.Data); err != nil || n != 0 {
		t.Errorf("%d hosts are disabled, %v; want none", n, err)
	}
}

// Machines with one token do not both win.
func TestJoinsAtTheSameTimeGiveOneCertificate(t *testing.T) {
	j := newJoinLab(t)
	r := j.invite("lab-07")
	results := make(chan error)
	for range 8 {
		own := r
		own.CSR = j.newCSR()
		go func() {
			_, err := j.r.Join(t.Context(), own)
			results <- err
		}()
	}
	won := 0
	for range 8 {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, wire.TokenRefused) && !errors.Is(err, wire.Busy):
			t.Error(err)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(pki.RecordsIn(j.identity), "*.crt")); won != 1 || len(found) != 1 {
		t.Errorf("%d machines got a certificate, and %d were issued; want 1", won, len(found))
	}
}
