package gate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
)

// A receiver names a damaged file too, and does not start as if there were none.
func TestDamagedIssuingCAIsNamed(t *testing.T) {
	for _, file := range []string{"hosts-issuing.pem", "server-ca.crt"} {
		j := pkitest.NewJoinLab(t)
		pkitest.Cut(t, filepath.Join(j.Identity, file))
		if _, err := gate.OpenIssuer(j.Identity); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
		if _, err := gate.LoadTrust(j.Config); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v", file, err)
		}
	}
}

// nginx hands over the certificate alone, and a host may have lost its chain.
func TestCertificateWithoutItsChainIsAccepted(t *testing.T) {
	for name, change := range map[string]func(*pkitest.JoinLab){
		"by hosts-ca.crt": func(l *pkitest.JoinLab) { l.Config.IdentityDir = "" },
		"by the identity": func(l *pkitest.JoinLab) {
			root := pkitest.EncodeCertificate(pkitest.LoadAuthority(t, l.Dir, "hosts-ca").Cert) // as it was before issuing CAs
			pkitest.WriteFile(t, l.Path("hosts-ca.crt"), root)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := pkitest.NewJoinLab(t)
			change(l)
			l.Reopen()
			h := l.Join("lab-01", false, time.Now())
			if c, err := l.Identify(h); err != nil || c.Host != "lab-01" {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

// What a thief of the former issuing key signs ends with the rotation.
func TestOnlyCertificatesOnRecordFollowARotation(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	j.Rotate()
	c, err := j.Identify(h)
	fixture.Must(t, err)
	record := filepath.Join(pki.RecordsIn(j.Identity), h.Issued.Serial+".crt")
	fixture.Must(t, os.Rename(record, record+".gone"))
	if j.Issuer.HasSigned(c) {
		t.Error("a certificate that is not on record would be renewed")
	}
	fixture.Must(t, os.Rename(record+".gone", record))
	if !j.Issuer.HasSigned(c) {
		t.Error("the host cannot follow")
	}
}
