package pki_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/credentials"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// Power loss may leave a temporary file of any of them.
func TestLeftoversInAnIdentityAreNotInTheWay(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	for dir, names := range map[string][]string{
		h.Identity: {".host.pem.tmp", ".host-ca.crt.tmp", ".host-request.pem.tmp"},
		j.Identity: {"hosts/.lab-01.json.tmp", "issued/." + h.Issued.Serial + ".crt.tmp", ".hosts-issuing.pem.tmp"},
	} {
		for _, name := range names {
			pkitest.WriteFile(t, filepath.Join(dir, name), []byte("half"))
		}
	}
	j.Reopen()
	fixture.Must(t, j.Note(h))
	if records, err := hostrecord.List(j.Identity); err != nil || len(records) != 1 {
		t.Errorf("got %+v, %v", records, err)
	}
	if list, err := revocation.ListIssued(j.Dir, time.Now(), pki.RecordsIn(j.Identity)); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	_, err := credentials.OpenPending(h.Identity, "next")
	fixture.Must(t, err)
}

// An empty identity_dir must not become the working directory.
func TestEmptyIdentityDirIsNoDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := pki.CreateIdentityDir(""); err == nil {
		t.Error("CreateIdentityDir: got no error")
	}
	if _, err := credentials.OpenPending("", "a"); err == nil {
		t.Error("OpenPending: got no error")
	}
	if _, err := gate.OpenIssuer(""); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("OpenIssuer: got %v, want ErrNoIssuing", err)
	}
	if records, err := hostrecord.List(""); records != nil || err != nil {
		t.Errorf("ListHostRecords: got %v, %v", records, err)
	}
	if left, err := filepath.Glob("*"); err != nil || len(left) > 0 {
		t.Errorf("written to the working directory: %q, %v", left, err)
	}
}
