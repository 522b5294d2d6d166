package revocation_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// The certificate that the root signed before its key went offline must not keep those that the
// issuing CA signed from being revoked, and what is not revoked is said.
func TestRevokingDoesWhatItCanWithoutTheRoot(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	old := l.Issue("lab-01", ca.IssueOptions{}) // by the root
	l.TakeOffline()
	h := l.Join("lab-01", false, time.Now())
	list, err := revocation.RevokeHost(l.Dir, "lab-01", time.Now(), pki.RecordsIn(l.Identity))
	if len(list) != 1 || list[0].Serial != h.Issued.Serial || list[0].State != pki.Revoked {
		t.Errorf("got %+v, want that of the issuing CA revoked", list)
	}
	if err == nil || !strings.Contains(err.Error(), "may hold a certificate that is not revoked") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that names the other", err)
	}
	fixture.Must(t, l.Gate.Reload())
	if r := h.Call(); r.Status == 200 {
		t.Error("the revoked certificate gives access")
	}
	old.WantAccess("lab-01 mtls")
}

func TestExpiredCertificateOfTheRootIsNotInTheWayOfARevocation(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	_, err := ca.IssueHost(l.Dir, "lab-01", t.TempDir(), ca.IssueOptions{Valid: time.Hour, Now: time.Now().Add(-2 * time.Hour)})
	fixture.Must(t, err)
	l.TakeOffline()
	h := l.Join("lab-01", false, time.Now())
	list, err := revocation.RevokeHost(l.Dir, "lab-01", time.Now(), pki.RecordsIn(l.Identity))
	if err != nil || len(list) != 1 || list[0].Serial != h.Issued.Serial {
		t.Errorf("got %+v, %v; want that of the issuing CA revoked", list, err)
	}
}

// Without a record it is not known which CA signed a certificate. If a list cannot be signed, revoking by
// serial number must not claim success, and must be possible later.
func TestRevokingASerialSaysWhichListIsMissing(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	out := t.TempDir()
	issued, err := ca.IssueHost(l.Dir, "lab-01", out, ca.IssueOptions{}) // by the root
	fixture.Must(t, err)
	fixture.Must(t, os.RemoveAll(l.Path("issued"))) // restored from an older backup
	serial, err := revocation.ParseSerial(issued.Serial)
	fixture.Must(t, err)
	key := pkitest.ReadFile(t, l.Path("hosts-ca.key"))
	l.TakeOffline()
	r, err := revocation.RevokeSerial(l.Dir, serial, time.Now())
	if r.Serial != issued.Serial || err == nil || !strings.Contains(err.Error(), "hosts-ca.crt signed the certificate, it still has access") {
		t.Errorf("got %+v, %v; want an error that names the list", r, err)
	}
	pkitest.WriteFile(t, l.Path("hosts-ca.key"), key)
	if r, err := revocation.RevokeSerial(l.Dir, serial, time.Now()); err != nil || r.Already {
		t.Errorf("with the key: got %+v, %v; want it revoked", r, err)
	}
	if r, err := revocation.RevokeSerial(l.Dir, serial, time.Now()); err != nil || !r.Already {
		t.Errorf("again: got %+v, %v", r, err)
	}
	path := filepath.Join(out, "lab-01.crt")
	if r, err := revocation.RevokeCertificate(l.Dir, path, time.Now()); err != nil || !r.Already {
		t.Errorf("by its file: got %+v, %v; want it in the list of the root", r, err)
	}
}

// The root can end its issuing CA, and with it each certificate of that CA.
func TestRevokedIssuingCAEndsItsCertificates(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	h := l.Join("lab-01", false, time.Now())
	h.WantAccess("lab-01 mtls")
	if _, err := revocation.RevokeCertificate(l.Dir, l.Path("hosts-ca-issuing.crt"), time.Now()); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.Gate.Reload())
	h.WantRefusedOnSameConnection(403)
	if r := l.Join("lab-02", false, time.Now()).Call(); r.Err == nil && r.Status == 200 {
		t.Error("a new certificate of the revoked CA gives access")
	}
	l.Issue("lab-03", ca.IssueOptions{}).WantAccess("lab-03 mtls") // by the root
}
