package receiver_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
	"cis490/internal/wire"
)

// countIssued returns how many certificates are on record.
func (j *joinLab) countIssued() int {
	j.Helper()
	found, err := filepath.Glob(filepath.Join(pki.RecordsIn(j.identity), "*.crt"))
	fixture.Must(j, err)
	return len(found)
}

// A request reaches the receiver over an ordinary connection. The certificate is for the host that
// presents one, and a lost answer is given again.
func TestHostGetsItsNextCertificate(t *testing.T) {
	j := newJoinLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := j.listen(ctx)
	client := j.newClient(addr, "lab-07")
	csr := j.newCSR()
	chain, err := client.Renew(t.Context(), csr)
	fixture.Must(t, err)
	if again, err := client.Renew(t.Context(), csr); err != nil || !bytes.Equal(again, chain) {
		t.Errorf("the lost answer: got %q, %v", again, err)
	}
	list, err := pki.ListIssued(j.pki, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	records, err := pki.ListHostRecords(j.identity)
	fixture.Must(t, err)
	renewed := records["lab-07"].Renewed
	if len(list) != 2 || renewed == nil || j.countIssued() != 1 {
		t.Fatalf("got %+v and %+v", list, records)
	}
	for _, i := range list {
		if i.Host != "lab-07" {
			t.Errorf("a certificate was issued to %s", i.Host)
		}
	}
	cancel()
	fixture.Must(t, receiveWithin(t, time.Minute, served, "the end of the server"))
	if !strings.Contains(j.lines.String(), "certificate of host renewed") {
		t.Errorf("the log has %q", j.lines.String())
	}
}

// A host cannot fill the disk of the receiver with certificates.
func TestNextCertificateForAnotherKeyMustWait(t *testing.T) {
	j := newJoinLab(t)
	_, err := j.r.Renew(t.Context(), "lab-07", j.newCSR())
	fixture.Must(t, err)
	for range 3 {
		_, err := j.r.Renew(t.Context(), "lab-07", j.newCSR())
		if p, ok := errors.AsType[*wire.Problem](err); !ok || p.Code != wire.Busy || p.RetryAfter < 24*time.Hour {
			t.Errorf("got %v", err)
		}
		j.restart(func() {}) // it is remembered
	}
	if _, err := j.r.Renew(t.Context(), "lab-08", j.newCSR()); err != nil {
		t.Errorf("another host: %v", err)
	}
	if n := j.countIssued(); n != 2 {
		t.Errorf("%d certificates are on record, want 2", n)
	}
	if _, err := j.r.Renew(t.Context(), "lab-07", []byte("garbage")); !errors.Is(err, wire.BadRequest) {
		t.Errorf("garbage: got %v", err)
	}
}

func TestHostWithoutAccessGetsNoNextCertificate(t *testing.T) {
	j := newJoinLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	addr, served := j.listen(ctx)
	client := j.newClient(addr, "lab-07")
	_, err := datadir.DisableHosts(t.Context(), j.data, []episode.Name{"lab-07"}, "the test", time.Now())
	fixture.Must(t, err)
	if chain, err := client.Renew(t.Context(), j.newCSR()); !errors.Is(err, wire.Forbidden) {
		t.Errorf("got %q, %v", chain, err)
	}
	if n := j.countIssued(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	cancel()
	fixture.Must(t, receiveWithin(t, time.Minute, served, "the end of the server"))
}

// What cannot be recorded is not handed out.
func TestNextCertificateIsOnRecordBeforeItIsHandedOut(t *testing.T) {
	for _, dir := range []string{"issued", "hosts"} {
		t.Run(dir, func(t *testing.T) {
			j := newJoinLab(t)
			path := filepath.Join(j.identity, dir)
			fixture.Must(t, os.RemoveAll(path))
			fixture.WriteFile(t, path, "not a directory")
			if chain, err := j.r.Renew(t.Context(), "lab-07", j.newCSR()); err == nil {
				t.Errorf("got %q", chain)
			}
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
	fixture.Must(t, receiveWithin(t, time.Minute, served, "the end of the server"))
}

func TestReceiverUsesItsRenewedCertificate(t *testing.T) {
	j := newJoinLab(t)
	_, err := pki.RenewServer(j.pki, pki.RenewOptions{Now: time.Now().Add(-300 * 24 * time.Hour)})
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
