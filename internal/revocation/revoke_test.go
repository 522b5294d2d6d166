package revocation_test

import (
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

func readCRL(t testing.TB, dir string) *x509.RevocationList {
	t.Helper()
	block, _ := pem.Decode(pkitest.ReadFile(t, filepath.Join(dir, "hosts.crl")))
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRevokeKeepsEarlierEntriesAndCountsUp(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	pkitest.IssueCertificate(t, dir, "lab-02", ca.IssueOptions{})
	number := readCRL(t, dir).Number
	for _, step := range []struct {
		host    string
		entries int
	}{{"lab-01", 2}, {"lab-02", 3}, {"lab-01", 3}} {
		if _, err := revocation.RevokeHost(dir, pkitest.MustName(t, step.host), time.Now()); err != nil {
			t.Fatal(err)
		}
		list := readCRL(t, dir)
		if len(list.RevokedCertificateEntries) != step.entries {
			t.Errorf("after %s: got %d entries; want %d", step.host, len(list.RevokedCertificateEntries), step.entries)
		}
		if list.Number.Cmp(number) <= 0 {
			t.Errorf("after %s: got number %v; want more than %v", step.host, list.Number, number)
		}
		number = list.Number
	}
}

func TestRevokeOfUnknownHostChangesNothing(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	before := pkitest.ReadFile(t, filepath.Join(dir, "hosts.crl"))
	if _, err := revocation.RevokeHost(dir, "lab-99", time.Now()); err == nil || !strings.Contains(err.Error(), "lab-99") {
		t.Errorf("got %v; want an error that names the host", err)
	}
	if string(pkitest.ReadFile(t, filepath.Join(dir, "hosts.crl"))) != string(before) {
		t.Error("the list was written")
	}
}

// A new list in place of a broken one would let revoked hosts back in.
func TestRevokeDoesNotReplaceABrokenList(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	path := filepath.Join(dir, "hosts.crl")
	other := pkitest.CreateCAs(t)
	for name, data := range map[string][]byte{"garbage": []byte("x"), "foreign": pkitest.ReadFile(t, filepath.Join(other, "hosts.crl"))} {
		pkitest.WriteFile(t, path, data)
		if _, err := revocation.RevokeHost(dir, "lab-01", time.Now()); err == nil {
			t.Errorf("%s: the list was accepted", name)
		}
		if string(pkitest.ReadFile(t, path)) != string(data) {
			t.Errorf("%s: the list was replaced", name)
		}
	}
}

func TestBrokenRecordDoesNotHoldUpRevocation(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	pkitest.WriteFile(t, filepath.Join(dir, "issued", "broken.crt"), []byte("x"))
	if _, err := revocation.RevokeHost(dir, "lab-01", time.Now()); err == nil || !strings.Contains(err.Error(), "broken.crt") {
		t.Errorf("got %v; want an error that names the record", err)
	}
	if n := len(readCRL(t, dir).RevokedCertificateEntries); n != 1 {
		t.Errorf("got %d entries; want 1", n)
	}
}

func TestListTellsStates(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	now := time.Now()
	pkitest.IssueCertificate(t, dir, "lab-03", ca.IssueOptions{})
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{Valid: time.Hour})
	pkitest.IssueCertificate(t, dir, "lab-02", ca.IssueOptions{})
	pkitest.IssueCertificate(t, dir, "lab-04", ca.IssueOptions{Now: now.Add(3 * 24 * time.Hour)})
	if _, err := revocation.RevokeHost(dir, "lab-02", now); err != nil {
		t.Fatal(err)
	}
	list, err := revocation.ListIssued(dir, now.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list {
		got = append(got, string(i.Host)+" "+string(i.State))
	}
	want := "lab-01 expired, lab-02 revoked, lab-03 valid, lab-04 not yet valid"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %v; want %s", got, want)
	}
}

// What power loss leaves beside the records is not a record.
func TestListIgnoresUnfinishedRecords(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	pkitest.IssueCertificate(t, dir, "lab-01", ca.IssueOptions{})
	pkitest.WriteFile(t, filepath.Join(dir, "issued", ".0123.crt.ABC"), []byte("half"))
	if list, err := revocation.ListIssued(dir, time.Now()); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v; want one certificate", list, err)
	}
	if _, err := revocation.ListIssued(t.TempDir(), time.Now()); err == nil || !strings.Contains(err.Error(), "pki init") {
		t.Errorf("of a directory without a CA: got %v; want a hint", err)
	}
}
