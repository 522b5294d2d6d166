package rotation_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/fixture"
	"cis490/internal/hostrecord"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
	"cis490/internal/rotation"
)

func TestBothCAsGiveAccessUntilTheRotationIsFinished(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	fixture.Must(t, os.Chmod(j.Dir, 0o750)) // as a package has it
	old := j.Join("lab-01", false, time.Now())
	byHand := j.Issue("lab-02", ca.IssueOptions{})
	j.Rotate()
	old.WantAccess("lab-01 mtls")
	byHand.WantAccess("lab-02 mtls")
	fresh := j.Join("lab-03", false, time.Now())
	fresh.WantAccess("lab-03 mtls")
	newByHand := j.Issue("lab-04", ca.IssueOptions{})
	newByHand.WantAccess("lab-04 mtls")
	for _, host := range []pkitest.Joined{old, fresh} {
		if err := j.Note(host); err != nil {
			t.Errorf("a leaf without its chain, as from a proxy: %v", err)
		}
		fixture.Must(t, j.Learn(host, j.Issuer.ServerCAs()))
	}
	c, err := j.Identify(old)
	fixture.Must(t, err)
	if !j.Issuer.HasSigned(c) || !j.Issuer.WillEnd(c) || !j.Issuer.WillEndSerial(old.Issued.Serial) {
		t.Error("the former certificate does not count as one to renew")
	}
	if c, err := j.Identify(fresh); err != nil || j.Issuer.WillEnd(c) || j.Issuer.WillEndSerial(fresh.Issued.Serial) {
		t.Errorf("the new certificate counts as one that ends (%v)", err)
	}
	before := pkitest.LoadCertificate(t, j.Path("server.crt"))

	j.Finish()
	if info, err := os.Stat(j.Dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the new directory: %v, %v", info.Mode(), err)
	}
	if pkitest.LoadCertificate(t, j.Path("server.crt")).Equal(before) {
		t.Error("the receiver has its former certificate")
	}
	reconnect(t, j, fresh).WantAccess("lab-03 mtls")
	newByHand.HangUp()
	newByHand.WantAccess("lab-04 mtls")
	if r := reconnect(t, j, old).Call(); r.Err == nil {
		t.Errorf("the former certificate still gives access: %+v", r)
	}
	if r := byHand.Call(); r.Err == nil && r.Status == 200 { // over its connection
		t.Errorf("the former certificate still gives access on an open connection: %+v", r)
	}
	list, err := revocation.ListIssued(j.Dir, time.Now(), pki.RecordsIn(j.Identity))
	fixture.Must(t, err)
	for _, i := range list {
		if want := map[string]pki.State{"lab-01": pki.Retired, "lab-03": pki.Valid, "lab-04": pki.Valid}[string(i.Host)]; i.State != want {
			t.Errorf("%s is %q, want %q", i.Host, i.State, want)
		}
	}
	fixture.Must(t, j.Learn(fresh, j.Issuer.ServerCAs()))
	if got := pkitest.LoadJoined(t, fresh).TrustedCAs(); !slices.Equal(got, j.Issuer.ServerCAHashes()) || len(got) != 1 {
		t.Errorf("after the rotation a host trusts %q", got)
	}
	j.Rotate() // and once more
	fixture.Must(t, j.Learn(fresh, j.Issuer.ServerCAs()))
	reconnect(t, j, fresh).WantAccess("lab-03 mtls")
}

// reconnect returns a host with the files that it has now.
func reconnect(t *testing.T, j *pkitest.JoinLab, h pkitest.Joined) *pkitest.Caller {
	t.Helper()
	return j.NewCaller(pkitest.LoadJoined(t, h).TLSConfig())
}

// What is revoked stays revoked, also if it was of a new CA and the revocation was interrupted.
func TestRevocationsOutlastTheRotation(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	old := j.Join("lab-01", false, time.Now())
	j.Rotate()
	// The interrupted one is the last: another revocation would complete it.
	for _, h := range []pkitest.Joined{old, j.Join("lab-02", false, time.Now()), j.Join("lab-03", false, time.Now())} {
		host := h.Issued.Host
		before := pkitest.ReadFile(t, j.Dir+"-next/hosts.crl")
		revoked, err := revocation.RevokeHost(j.Dir, h.Issued.Host, time.Now(), pki.RecordsIn(j.Identity))
		if err != nil || len(revoked) != 1 {
			t.Fatalf("%s: %v, %v", host, revoked, err)
		}
		fixture.Must(t, j.Gate.Reload())
		if _, err := j.Identify(h); err == nil {
			t.Errorf("%s has access", host)
		}
		if host == "lab-03" { // as if it was interrupted before the second list
			fixture.Must(t, os.WriteFile(j.Dir+"-next/hosts.crl", before, 0o644))
		}
	}
	j.Finish()
	list, err := revocation.ListIssued(j.Dir, time.Now(), pki.RecordsIn(j.Identity))
	fixture.Must(t, err)
	for _, i := range list {
		if want := map[string]pki.State{"lab-01": pki.Retired, "lab-02": pki.Revoked, "lab-03": pki.Revoked}[string(i.Host)]; i.State != want {
			t.Errorf("%s is %q, want %q", i.Host, i.State, want)
		}
	}
}

func TestRotationOfWhatCannotBeRotatedChangesNothing(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"the root is offline": {func(t *testing.T, dir string) { fixture.Must(t, os.Remove(filepath.Join(dir, "ca.key"))) }, "bring it back"},
		"a stranger beside it": {func(t *testing.T, dir string) {
			fixture.Must(t, ca.Init(dir+"-next", ca.InitOptions{Names: []string{"localhost"}}))
		}, "is in the way"},
		"a link": {func(t *testing.T, dir string) {
			fixture.Must(t, os.Rename(dir, dir+".real"))
			fixture.Must(t, os.Symlink(dir+".real", dir))
		}, "not a directory"},
		"a file of another": {func(t *testing.T, dir string) {
			fixture.Must(t, os.WriteFile(filepath.Join(dir, "tokens"), nil, 0o600))
		}, "tokens does not belong"},
		"nothing there": {func(t *testing.T, dir string) { fixture.Must(t, os.RemoveAll(dir)) }, "receiver pki init"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pki")
			fixture.Must(t, ca.Init(dir, ca.InitOptions{Names: []string{"localhost"}}))
			test.spoil(t, dir)
			before := listTree(t, filepath.Dir(dir))
			_, err := rotation.Start(dir, rotation.Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, err := rotation.Finish(dir, t.TempDir(), time.Now()); err == nil {
				t.Error("it can be finished")
			}
			if after := listTree(t, filepath.Dir(dir)); !slices.Equal(before, after) {
				t.Errorf("before %q, after %q", before, after)
			}
		})
	}
}

// listTree returns the paths below a directory.
func listTree(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	fixture.Must(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if filepath.Base(path) != ".pki.lock" {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

func TestOtherCommandsWorkDuringARotation(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	j.Rotate()
	if changed, err := ca.InstallIssuing(j.Dir, j.Identity); err != nil || changed {
		t.Errorf("setup again: %v, %v", changed, err)
	}
	_, err := ca.RenewServer(j.Dir, ca.RenewOptions{Names: []string{"localhost", "127.0.0.1"}})
	fixture.Must(t, err)
	status, err := hostrecord.ReadRotation(j.Identity)
	if err != nil || status == nil {
		t.Fatalf("ReadRotation: %v, %v", status, err)
	}
	j.Finish()
	if !slices.Contains(pkitest.LoadCertificate(t, j.Path("server.crt")).DNSNames, "localhost") {
		t.Error("the receiver lost its name")
	}
	if status, err := hostrecord.ReadRotation(j.Identity); err != nil || status != nil {
		t.Errorf("after it: %v, %v", status, err)
	}
	if changed, err := ca.InstallIssuing(j.Dir, j.Identity); err != nil || changed {
		t.Errorf("setup after it: %v, %v", changed, err)
	}
	h := j.Join("lab-01", false, time.Now())
	fixture.Must(t, j.Learn(h, j.Issuer.ServerCAs()))
}

// A rotation that was interrupted before the identity directory followed was announced to no host.
func TestRotationIsFinishedOnlyIfItWasAnnounced(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	_, err := rotation.Start(j.Dir, rotation.Options{})
	fixture.Must(t, err)
	if _, err := rotation.Finish(j.Dir, j.Identity, time.Now()); err == nil || !strings.Contains(err.Error(), "pki rotate' again") {
		t.Errorf("got %v", err)
	}
	j.Use()
	fixture.Must(t, os.Remove(filepath.Join(j.Identity, "next-hosts-ca.crt"))) // as in a backup
	if _, err := rotation.Finish(j.Dir, j.Identity, time.Now()); err == nil {
		t.Error("it is finished with the identity directory of before")
	}
	j.Use()
	j.Finish()
}

// Between the new directory and the files that name its CAs, the receiver trusts the former ones alone.
func TestRevocationAfterAnInterruptedRotationCanBeLoaded(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	before := pkitest.ReadFile(t, j.Path("hosts-ca.crt"))
	_, err := rotation.Start(j.Dir, rotation.Options{})
	fixture.Must(t, err)
	pkitest.WriteFile(t, j.Path("hosts-ca.crt"), before)
	_, err = revocation.RevokeHost(j.Dir, "lab-01", time.Now(), pki.RecordsIn(j.Identity))
	fixture.Must(t, err)
	fixture.Must(t, j.Gate.Reload())
	if _, err := j.Identify(h); err == nil {
		t.Error("it has access")
	}
	j.Rotate()
	j.Finish()
}

// The CAs of an abandoned rotation are former ones of the next: its hosts follow, its revocations hold,
// and no host learns its root.
func TestRotationAfterAnAbandonedOne(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	j.Rotate()
	followed, revoked := j.Join("lab-02", false, time.Now()), j.Join("lab-03", false, time.Now())
	fixture.Must(t, j.Learn(followed, j.Issuer.ServerCAs()))
	_, err := revocation.RevokeHost(j.Dir, "lab-03", time.Now(), pki.RecordsIn(j.Identity))
	fixture.Must(t, err)
	abandoned := pkitest.FirstBlock(pkitest.ReadFile(t, j.Dir+"-next/ca.crt"))
	fixture.Must(t, os.RemoveAll(j.Dir+"-next"))
	j.Rotate()
	if bytes.Contains(pkitest.ReadFile(t, j.Path("ca.crt")), abandoned) {
		t.Error("the abandoned root is announced")
	}
	for _, host := range []pkitest.Joined{h, followed} {
		c, err := j.Identify(host)
		fixture.Must(t, err)
		if !j.Issuer.WillEnd(c) || !j.Issuer.HasSigned(c) {
			t.Errorf("%s cannot follow", c.Host)
		}
		fixture.Must(t, j.Learn(host, j.Issuer.ServerCAs()))
	}
	if _, err := j.Identify(revoked); err == nil {
		t.Error("what was revoked has access")
	}
	_, err = revocation.RevokeHost(j.Dir, "lab-01", time.Now(), pki.RecordsIn(j.Identity))
	fixture.Must(t, err)
	fixture.Must(t, j.Gate.Reload())
	j.Finish()
	if _, err := j.Identify(followed); err == nil {
		t.Error("a certificate of the abandoned rotation has access in the end")
	}
}

// Keys that were moved offline after they were installed stay where they are used.
func TestRotationWithIssuingKeysOffline(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	for _, suffix := range []string{".key", ".crt"} {
		fixture.Must(t, os.Remove(j.Path("ca-issuing"+suffix)))
	}
	j.Rotate()
	for _, suffix := range []string{".key", ".crt"} {
		fixture.Must(t, os.Remove(j.Dir+"-next/hosts-ca-issuing"+suffix))
	}
	j.Finish()
	h := j.Join("lab-01", false, time.Now())
	fixture.Must(t, j.Learn(h, j.Issuer.ServerCAs()))
	reconnect(t, j, h).WantAccess("lab-01 mtls")
}

// The directory may be named by another path.
func TestRotationIsFoundByAnyPath(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	j.Rotate()
	h := j.Issue("lab-01", ca.IssueOptions{})
	other := filepath.Join(t.TempDir(), "link")
	fixture.Must(t, os.Symlink(j.Dir, other))
	t.Chdir(j.Dir)
	for _, dir := range []string{".", other, other + "/"} {
		if revoked, err := revocation.RevokeHost(dir, "lab-01", time.Now()); err != nil || len(revoked) != 1 {
			t.Errorf("%s: %v, %v", dir, revoked, err)
		}
	}
	fixture.Must(t, j.Gate.Reload())
	if r := h.Call(); r.Err == nil && r.Status == 200 {
		t.Error("it has access")
	}
}
