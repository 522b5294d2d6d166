package revocation_test

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// newRestoredCA returns a CA directory, and a certificate that was issued from it after the
// backup from which it was restored.
func newRestoredCA(t *testing.T) (dir, file string, issued pki.Issued) {
	t.Helper()
	dir, out := pkitest.CreateCAs(t), t.TempDir()
	issued, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{})
	if err == nil {
		err = os.RemoveAll(filepath.Join(dir, "issued"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(out, "lab-01.crt"), issued
}

func TestCertificateWithoutRecordCanBeRevoked(t *testing.T) {
	for name, revoke := range map[string]func(dir, file string, issued pki.Issued) (revocation.Result, error){
		"by serial": func(dir, _ string, issued pki.Issued) (revocation.Result, error) {
			serial, err := revocation.ParseSerial(issued.Serial)
			if err != nil {
				return revocation.Result{}, err
			}
			return revocation.RevokeSerial(dir, serial, time.Now())
		},
		"by file": func(dir, file string, _ pki.Issued) (revocation.Result, error) {
			return revocation.RevokeCertificate(dir, file, time.Now())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, file, issued := newRestoredCA(t)
			if _, err := revocation.RevokeHost(dir, "lab-01", time.Now()); err == nil {
				t.Fatal("the directory has a record")
			}
			r, err := revoke(dir, file, issued)
			if err != nil || r.Already || r.Serial != issued.Serial {
				t.Fatalf("%+v, %v", r, err)
			}
			list := readCRL(t, dir)
			if n := len(list.RevokedCertificateEntries); n != 1 || list.RevokedCertificateEntries[0].SerialNumber.Text(16) != strings.TrimLeft(issued.Serial, "0") {
				t.Fatalf("the list has %+v", list.RevokedCertificateEntries)
			}
			if r, err = revoke(dir, file, issued); err != nil || !r.Already {
				t.Errorf("again: %+v, %v", r, err)
			}
			if again := readCRL(t, dir); again.Number.Cmp(list.Number) != 0 {
				t.Errorf("the second time wrote the list %v after %v", again.Number, list.Number)
			}
		})
	}
}

func TestRevokedWithoutRecordIsRefused(t *testing.T) {
	l := pkitest.New(t, nil)
	c := l.Issue("lab-01", ca.IssueOptions{})
	c.WantAccess("lab-01 mtls")
	list, err := revocation.ListIssued(l.Dir, time.Now())
	if err == nil {
		err = os.RemoveAll(l.Path("issued"))
	}
	if err != nil {
		t.Fatal(err)
	}
	serial, err := revocation.ParseSerial(list[0].Serial)
	if err == nil {
		_, err = revocation.RevokeSerial(l.Dir, serial, time.Now())
	}
	if err == nil {
		err = l.Gate.Reload()
	}
	if err != nil {
		t.Fatal(err)
	}
	c.WantRefusedOnSameConnection(403)
}

func TestOnlyOwnCertificatesAreRevokedByFile(t *testing.T) {
	dir, file, _ := newRestoredCA(t)
	other, foreign, _ := newRestoredCA(t)
	garbage := filepath.Join(t.TempDir(), "garbage.crt")
	pkitest.WriteFile(t, garbage, []byte("garbage"))
	key := strings.TrimSuffix(file, ".crt") + ".key"
	before := pkitest.ReadFile(t, filepath.Join(dir, "hosts.crl"))
	for path, want := range map[string]string{
		foreign:                              "was not signed by",
		filepath.Join(dir, "server.crt"):     "was not signed by",
		filepath.Join(other, "ca.crt"):       "was not signed by",
		filepath.Join(dir, "hosts-ca.crt"):   "the hosts' CA itself",
		key:                                  "PRIVATE KEY",
		garbage:                              "PEM blocks",
		filepath.Join(t.TempDir(), "absent"): "no such file",
	} {
		if r, err := revocation.RevokeCertificate(dir, path, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v; want an error that says %q", path, r, err, want)
		}
	}
	if string(pkitest.ReadFile(t, filepath.Join(dir, "hosts.crl"))) != string(before) {
		t.Error("the list was written")
	}
}

func TestSerialsAreReadAsProgramsPrintThem(t *testing.T) {
	want := big.NewInt(0x0abc12)
	for _, text := range []string{"abc12", "0abc12", "0ABC12", "0x0abc12", "0X0ABC12", "0a:bc:12", "0A:BC:12", "00000000000000000000000000000000000000000abc12"} {
		if got, err := revocation.ParseSerial(text); err != nil || got.Cmp(want) != 0 {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if got, err := revocation.ParseSerial(strings.Repeat("ff", 20)); err != nil || got.BitLen() != 160 {
		t.Errorf("20 bytes: %v, %v", got, err)
	}
	for _, text := range []string{
		"", "0", "00", "0x", "x", "lab-01", "-1", "+1", " 1", "a:bc:12", "0a::12", ":", "0a:bc:", "0x0x1", "1_0", strings.Repeat("ff", 21), "\x1b[31m",
	} {
		got, err := revocation.ParseSerial(text)
		if err == nil || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzParseSerial(f *testing.F) {
	for _, seed := range []string{"0a:bc:12", "0xff", "", "00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := revocation.ParseSerial(text)
		if err != nil {
			return
		}
		if n.Sign() <= 0 || n.BitLen() > 160 {
			t.Fatalf("%q: %v", text, n)
		}
		if again, err := revocation.ParseSerial(n.Text(16)); err != nil || again.Cmp(n) != 0 {
			t.Fatalf("%q: %v, then %v, %v", text, n, again, err)
		}
	})
}
