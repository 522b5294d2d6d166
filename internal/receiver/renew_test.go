package receiver_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/pki"
	"cis490/internal/revocation"
	"cis490/internal/rotation"
	"cis490/internal/wire"
)

// countIssued returns how many certificates are on record.
func (j *joinLab) countIssued() int {
	j.Helper()
	found, err := filepath.Glob(filepath.Join(pki.RecordsIn(j.identity), "*.crt"))
	fixture.Must(j, err)
	return len(found)
}

// serve serves the receiver until the test ends, or until it is stopped.
func (j *joinLab) serve() (addr string, stop func()) {
	j.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr, served := j.listen(ctx)
	stop = sync.OnceFunc(func() {
		cancel()
		fixture.Must(j, fixture.ReceiveWithin(j, time.Minute, served, "the end of the server"))
	})
	j.Cleanup(stop)
	return addr, stop
}

// joinedClient returns the client of a host with a certificate as joining gives it.
func (j *joinLab) joinedClient(addr string, host episode.Name) *wire.Client {
	j.Helper()
	issuer, err := gate.OpenIssuer(j.identity)
	fixture.Must(j, err)
	identity := filepath.Join(j.TempDir(), "identity")
	pending, err := credentials.OpenPending(identity, "x")
	fixture.Must(j, err)
	request, err := gate.ParseRequest(pending.Request)
	fixture.Must(j, err)
	issued, err := issuer.SignHost(request, host, time.Now())
	fixture.Must(j, err)
	chain, err := issuer.Chain(issued.Serial)
	fixture.Must(j, err)
	block, _ := pem.Decode([]byte(fixture.ReadFile(j, filepath.Join(j.pki, "ca.crt"))))
	root, err := x509.ParseCertificate(block.Bytes)
	fixture.Must(j, err)
	_, err = pending.Install(host, chain, root)
	fixture.Must(j, err)
	creds, err := credentials.Load(credentials.Config{IdentityDir: identity, Host: host})
	fixture.Must(j, err)
	return j.newClientWith(addr, host, creds)
}

// A lost answer is given again.
func TestHostGetsItsNextCertificate(t *testing.T) {
	j := newJoinLab(t)
	addr, stop := j.serve()
	client := j.joinedClient(addr, "lab-07")
	csr := j.newCSR()
	chain, err := client.Renew(t.Context(), csr)
	fixture.Must(t, err)
	if again, err := client.Renew(t.Context(), csr); err != nil || !bytes.Equal(again, chain) {
		t.Errorf("the lost answer: got %q, %v", again, err)
	}
	stop()
	list, err := revocation.ListIssued(j.pki, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	records, err := hostrecord.List(j.identity)
	fixture.Must(t, err)
	if len(list) != 2 || list[0].Host != "lab-07" || list[1].Host != "lab-07" || records["lab-07"].Renewed == nil {
		t.Errorf("got %+v and %+v", list, records)
	}
	if !strings.Contains(j.lines.String(), "host certificate renewed") {
		t.Errorf("the log has %q", j.lines.String())
	}
}

// A certificate that was issued by hand for a month is not one for a year.
func TestCertificateIssuedByHandIsNotExtended(t *testing.T) {
	j := newJoinLab(t)
	addr, _ := j.serve()
	client := j.newClient(addr, "lab-07")
	if chain, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, wire.Forbidden) {
		t.Errorf("got %q, %v; want Forbidden", chain, err)
	}
	if _, err := client.Ping(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
	if n := j.countIssued(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
}

// The list of all receivers may end certificates up to a time that is yet to come, because the clock of a
// receiver was ahead. A host gets none that the others would refuse, and keeps the one that it has.
func TestNoCertificateIsSignedThatTheListHasEnded(t *testing.T) {
	j := newJoinLab(t)
	addr, _ := j.serve()
	client := j.joinedClient(addr, "lab-07")
	issued, err := revocation.ListIssued(j.pki, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	for _, c := range []struct {
		ended time.Duration // from now
		want  error
	}{{time.Minute, wire.Busy}, {-pki.Backdate + time.Minute, wire.Busy}, {-pki.Backdate - time.Minute, nil}} {
		at := time.Now().Add(c.ended).UTC().Format(time.RFC3339)
		path := filepath.Join(j.Data, "disabled-hosts.json")
		fixture.WriteFile(t, path+".new", `{"schema_version":1,"disabled":[],"replaced":[{"host_id":"lab-07","not_before":"`+at+`","by":"`+issued[0].Serial+`"}]}`)
		fixture.Must(t, os.Chmod(path+".new", 0o640))
		fixture.Must(t, os.Rename(path+".new", path))
		if _, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, c.want) {
			t.Errorf("ended %s from now: got %v, want %v", c.ended, err, c.want)
		}
		if _, err := client.Ping(t.Context()); err != nil {
			t.Errorf("ended %s from now: the certificate by which it joined: %v", c.ended, err)
		}
	}
	if n := j.countIssued(); n != 2 {
		t.Errorf("%d certificates were issued, want 2", n)
	}
}

// A host cannot fill the disk of the receiver with certificates.
func TestNextCertificateForAnotherKeyMustWait(t *testing.T) {
	j := newJoinLab(t)
	addr, stop := j.serve()
	_, err := j.joinedClient(addr, "lab-07").Renew(t.Context(), j.newCSR())
	fixture.Must(t, err)
	before := j.countIssued()
	for range 2 {
		client := j.joinedClient(addr, "lab-07")
		before++
		if _, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, wire.Busy) {
			t.Errorf("got %v, want Busy", err)
		}
		if _, err := client.Renew(t.Context(), []byte("garbage")); !errors.Is(err, wire.BadRequest) {
			t.Errorf("garbage: got %v", err)
		}
		stop()
		j.restart(func() {}) // it is remembered
		addr, stop = j.serve()
	}
	if n := j.countIssued(); n != before {
		t.Errorf("%d certificates are on record, want %d", n, before)
	}
	if _, err := j.joinedClient(addr, "lab-08").Renew(t.Context(), j.newCSR()); err != nil {
		t.Errorf("another host: %v", err)
	}
}

func TestHostWithoutAccessGetsNoNextCertificate(t *testing.T) {
	j := newJoinLab(t)
	addr, _ := j.serve()
	client := j.joinedClient(addr, "lab-07")
	_, err := datadir.HostList{Dir: j.Data, Holder: "the test"}.Disable(t.Context(), []episode.Name{"lab-07"}, time.Now())
	fixture.Must(t, err)
	before := j.countIssued()
	if chain, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, wire.Forbidden) {
		t.Errorf("got %q, %v", chain, err)
	}
	if n := j.countIssued(); n != before {
		t.Errorf("%d certificates were issued", n-before)
	}
}

// What cannot be recorded is not handed out.
func TestNextCertificateIsOnRecordBeforeItIsHandedOut(t *testing.T) {
	for _, dir := range []string{"issued", "hosts"} {
		t.Run(dir, func(t *testing.T) {
			j := newJoinLab(t)
			addr, stop := j.serve()
			client := j.joinedClient(addr, "lab-07")
			path := filepath.Join(j.identity, dir)
			fixture.Must(t, os.RemoveAll(path))
			fixture.WriteFile(t, path, "not a directory")
			if chain, err := client.Renew(t.Context(), j.newCSR()); err == nil {
				t.Errorf("got %q", chain)
			}
			stop()
			fixture.Must(t, os.Remove(path))
		})
	}
}

func TestReceiverWithoutIssuingCARenewsNothing(t *testing.T) {
	l := newLab(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := l.listen(ctx)
	client := l.newClient(addr, "lab-07")
	if chain, err := client.Renew(t.Context(), []byte("x")); !errors.Is(err, wire.NotFound) {
		t.Errorf("got %q, %v", chain, err)
	}
	if _, err := client.Ping(t.Context()); err != nil {
		t.Errorf("the next request: %v", err)
	}
	cancel()
	fixture.Must(t, fixture.ReceiveWithin(t, time.Minute, served, "the end of the server"))
}

func TestReceiverUsesItsRenewedCertificate(t *testing.T) {
	j := newJoinLab(t)
	_, err := ca.RenewServer(j.pki, ca.RenewOptions{Now: time.Now().Add(-300 * 24 * time.Hour)})
	fixture.Must(t, err)
	fixture.Must(t, j.r.Reload())
	before := j.r.CertNotAfter()
	fixture.WriteFile(t, filepath.Join(j.pki, "hosts.crl"), "the operator is writing this") // no matter
	if renewed, err := j.r.RenewOwn(); !renewed || err != nil {
		t.Fatalf("got %v, %v", renewed, err)
	}
	if after := j.r.CertNotAfter(); after.Before(before.Add(200 * 24 * time.Hour)) {
		t.Errorf("the certificate in use ends on %v", after)
	}
	if renewed, err := j.r.RenewOwn(); renewed || err != nil {
		t.Errorf("once more: got %v, %v", renewed, err)
	}
}

// While the CAs are rotated a host renews at once, and once.
func TestHostIsAskedToRenewDuringARotation(t *testing.T) {
	j := newJoinLab(t)
	addr, _ := j.serve()
	client := j.joinedClient(addr, "lab-07")
	_, err := client.Renew(t.Context(), j.newCSR()) // a short time ago
	fixture.Must(t, err)
	before, err := client.Ping(t.Context())
	fixture.Must(t, err)
	_, err = rotation.Start(j.pki, rotation.Options{})
	fixture.Must(t, err)
	_, err = ca.ReplaceIssuing(j.pki, j.identity)
	fixture.Must(t, err)
	fixture.Must(t, j.r.Reload())
	during, err := client.Ping(t.Context())
	fixture.Must(t, err)
	if before.CAs.Renew || !during.CAs.Renew || len(before.CAs.Server) != 1 || len(during.CAs.Server) != 2 {
		t.Errorf("pings: before %+v, during %+v", before.CAs, during.CAs)
	}
	csr := j.newCSR()
	chain, err := client.Renew(t.Context(), csr)
	fixture.Must(t, err)
	if again, err := client.Renew(t.Context(), csr); err != nil || !bytes.Equal(again, chain) {
		t.Errorf("the lost answer: got %q, %v", again, err)
	}
	if _, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, wire.Busy) {
		t.Errorf("one more for another key: got %v, want Busy", err)
	}
	if _, err := rotation.Finish(j.pki, j.identity, time.Now()); err != nil {
		t.Fatal(err)
	}
	_, err = ca.ReplaceIssuing(j.pki, j.identity)
	fixture.Must(t, err)
	fixture.Must(t, j.r.Reload())
	if pong, err := client.Ping(t.Context()); err == nil {
		t.Errorf("the former certificate still gives access: %+v", pong)
	}
}
