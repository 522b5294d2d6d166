package pki_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
	"cis490/internal/serviceuser"
)

// rotate begins or continues the rotation of a lab, and reloads.
func (j *joinLab) rotate() {
	j.t.Helper()
	_, err := pki.Rotate(j.dir, pki.RotateOptions{Service: serviceuser.State{Dir: j.dir}})
	fixture.Must(j.t, err)
	j.use()
}

// finish finishes the rotation of a lab, and reloads.
func (j *joinLab) finish() {
	j.t.Helper()
	_, err := pki.FinishRotation(j.dir, j.identity, time.Now())
	fixture.Must(j.t, err)
	j.use()
}

func (j *joinLab) use() {
	j.t.Helper()
	_, err := pki.ReplaceIssuing(j.dir, j.identity)
	fixture.Must(j.t, err)
	fixture.Must(j.t, j.gate.Reload())
	j.issuer = j.gate.Trust().Issuer()
}

// learn has a host follow the receiver's CAs.
func (j *joinLab) learn(h joined, bundle []byte) error {
	j.t.Helper()
	update, err := loadJoined(j.t, h).OpenCAUpdate(j.t.Context(), bundle, time.Now())
	if err != nil {
		return err
	}
	defer update.Close()
	return update.Install()
}

func TestBothCAsGiveAccessUntilTheRotationIsFinished(t *testing.T) {
	j := newJoinLab(t)
	fixture.Must(t, os.Chmod(j.dir, 0o750)) // as a package has it
	old := j.join("lab-01", false, time.Now())
	byHand := j.issue("lab-02", pki.IssueOptions{})
	j.rotate()
	old.wantAccess("lab-01 mtls")
	byHand.wantAccess("lab-02 mtls")
	fresh := j.join("lab-03", false, time.Now())
	fresh.wantAccess("lab-03 mtls")
	newByHand := j.issue("lab-04", pki.IssueOptions{})
	newByHand.wantAccess("lab-04 mtls")
	for _, host := range []joined{old, fresh} {
		if err := j.note(host); err != nil {
			t.Errorf("a leaf without its chain, as from a proxy: %v", err)
		}
		fixture.Must(t, j.learn(host, j.issuer.ServerCAs()))
	}
	c, err := j.identify(old)
	fixture.Must(t, err)
	if !j.issuer.HasSigned(c) || !j.issuer.WillEnd(c) || !j.issuer.WillEndSerial(old.issued.Serial) {
		t.Error("the former certificate does not count as one to renew")
	}
	if c, err := j.identify(fresh); err != nil || j.issuer.WillEnd(c) || j.issuer.WillEndSerial(fresh.issued.Serial) {
		t.Errorf("the new certificate counts as one that ends (%v)", err)
	}
	before := loadCertificate(t, j.path("server.crt"))

	j.finish()
	if info, err := os.Stat(j.dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the new directory: %v, %v", info.Mode(), err)
	}
	if loadCertificate(t, j.path("server.crt")).Equal(before) {
		t.Error("the receiver has its former certificate")
	}
	reconnect(t, j, fresh).wantAccess("lab-03 mtls")
	newByHand.hangUp()
	newByHand.wantAccess("lab-04 mtls")
	if r := reconnect(t, j, old).call(); r.err == nil {
		t.Errorf("the former certificate still gives access: %+v", r)
	}
	if r := byHand.call(); r.err == nil && r.status == 200 { // over its connection
		t.Errorf("the former certificate still gives access on an open connection: %+v", r)
	}
	list, err := pki.ListIssued(j.dir, time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	for _, i := range list {
		if want := map[string]pki.State{"lab-01": pki.Retired, "lab-03": pki.Valid, "lab-04": pki.Valid}[string(i.Host)]; i.State != want {
			t.Errorf("%s is %q, want %q", i.Host, i.State, want)
		}
	}
	fixture.Must(t, j.learn(fresh, j.issuer.ServerCAs()))
	if got := loadJoined(t, fresh).TrustedCAs(); !slices.Equal(got, j.issuer.ServerCAHashes()) || len(got) != 1 {
		t.Errorf("after the rotation a host trusts %q", got)
	}
	j.rotate() // and once more
	fixture.Must(t, j.learn(fresh, j.issuer.ServerCAs()))
	reconnect(t, j, fresh).wantAccess("lab-03 mtls")
}

// reconnect returns a host with the files that it has now.
func reconnect(t *testing.T, j *joinLab, h joined) *caller {
	t.Helper()
	return j.newCaller(loadJoined(t, h).TLSConfig())
}

// Who controls a receiver, but not the key of its root, cannot make hosts trust another root.
func TestNewRootNeedsTheSignatureOfATrustedOne(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	j.rotate()
	root, next := readFile(t, j.path("ca.crt")), readFile(t, j.dir+"-next/ca.crt")
	oldRoot, newRoot := firstBlock(root), firstBlock(next)
	link := readFile(t, j.dir+"-next/ca-link.crt")
	foreign := newAuthority(t)
	foreignRoot := encodeCertificate(foreign.cert)
	byIssuing := encodeCertificate(loadAuthority(t, j.dir, "ca-issuing").signCertificate(foreign.cert, foreign.key).Leaf)
	// A root of the same name with the key of the issuing CA, which is on the receiver.
	issuing := loadAuthority(t, j.dir, "ca-issuing")
	self := authority{t, &x509.Certificate{
		SerialNumber: big.NewInt(7), RawSubject: issuing.cert.RawSubject, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(100 * day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, issuing.key}
	forged := self.signCertificate(self.cert, self.key).Leaf
	otherName := loadAuthority(t, j.dir, "ca").signCertificate(&x509.Certificate{ // by the root, and of another one
		SerialNumber: big.NewInt(8), RawSubject: forged.RawSubject, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(100 * day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, URIs: []*url.URL{{Scheme: "cis490-root", Opaque: "sha256:00"}},
	}, self.key).Leaf
	for name, test := range map[string]struct {
		bundle []byte
		want   string // "" accepts it
	}{
		"as the receiver sends it":     {j.issuer.ServerCAs(), ""},
		"the present one":              {oldRoot, ""},
		"the new one alone":            {slices.Concat(newRoot, link), ""},
		"no link":                      {slices.Concat(oldRoot, newRoot), "vouches"},
		"the link alone":               {link, "0 roots"},
		"a foreign one":                {slices.Concat(oldRoot, foreignRoot), "vouches"},
		"a foreign one with that link": {slices.Concat(oldRoot, foreignRoot, link), "vouches"},
		"linked by an issuing CA":      {slices.Concat(oldRoot, foreignRoot, byIssuing), "vouches"},
		"the issuing CA as link":       {slices.Concat(encodeCertificate(forged), encodeCertificate(issuing.cert)), "vouches"},
		"the link of another":          {slices.Concat(encodeCertificate(forged), encodeCertificate(otherName)), "vouches"},
		"one of hosts":                 {firstBlock(readFile(t, j.path("hosts-ca.crt"))), "not for receivers"},
		"no CA":                        {readFile(t, j.path("server.crt")), "not a CA"},
		"nothing":                      {nil, "0 of 0"},
		"text":                         {[]byte("x"), "0 of 0"},
		"cut":                          {newRoot[:len(newRoot)-40], "0 of 1"},
		"a key":                        {readFile(t, j.path("ca.key")), "PRIVATE KEY"},
		"too many":                     {[]byte(strings.Repeat(string(oldRoot), 17)), "17 certificates"},
	} {
		before := readFile(t, filepath.Join(h.identity, "host-ca.crt"))
		err := j.learn(h, test.bundle)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if test.want != "" && string(readFile(t, filepath.Join(h.identity, "host-ca.crt"))) != string(before) {
			t.Errorf("%s: the trusted CAs changed", name)
		}
		fixture.Must(t, os.WriteFile(filepath.Join(h.identity, "host-ca.crt"), oldRoot, 0o600))
	}
	late := time.Now().Add(11 * 365 * day)
	if _, err := loadJoined(t, h).OpenCAUpdate(t.Context(), j.issuer.ServerCAs(), late); err == nil {
		t.Error("an expired link is accepted")
	}
}

func firstBlock(data []byte) []byte {
	block, _ := pem.Decode(data)
	return pem.EncodeToMemory(block)
}

// What is revoked stays revoked, also if it was of a new CA and the revocation was interrupted.
func TestRevocationsOutlastTheRotation(t *testing.T) {
	j := newJoinLab(t)
	old := j.join("lab-01", false, time.Now())
	j.rotate()
	for host, h := range map[string]joined{"lab-01": old, "lab-02": j.join("lab-02", false, time.Now()), "lab-03": j.join("lab-03", false, time.Now())} {
		before := readFile(t, j.dir+"-next/hosts.crl")
		revoked, err := pki.RevokeHost(j.dir, h.issued.Host, time.Now(), pki.RecordsIn(j.identity))
		if err != nil || len(revoked) != 1 {
			t.Fatalf("%s: %v, %v", host, revoked, err)
		}
		fixture.Must(t, j.gate.Reload())
		if _, err := j.identify(h); err == nil {
			t.Errorf("%s has access", host)
		}
		if host == "lab-03" { // as if it was interrupted before the second list
			fixture.Must(t, os.WriteFile(j.dir+"-next/hosts.crl", before, 0o644))
		}
	}
	j.finish()
	list, err := pki.ListIssued(j.dir, time.Now(), pki.RecordsIn(j.identity))
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
			fixture.Must(t, pki.InitCA(dir+"-next", pki.InitOptions{Names: []string{"localhost"}}))
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
			fixture.Must(t, pki.InitCA(dir, pki.InitOptions{Names: []string{"localhost"}}))
			test.spoil(t, dir)
			before := listTree(t, filepath.Dir(dir))
			_, err := pki.Rotate(dir, pki.RotateOptions{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, err := pki.FinishRotation(dir, t.TempDir(), time.Now()); err == nil {
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
	j := newJoinLab(t)
	j.rotate()
	if changed, err := pki.InstallIssuing(j.dir, j.identity); err != nil || changed {
		t.Errorf("setup again: %v, %v", changed, err)
	}
	_, err := pki.RenewServer(j.dir, pki.RenewOptions{Names: []string{"localhost", "127.0.0.1"}})
	fixture.Must(t, err)
	status, err := pki.ReadRotation(j.identity)
	if err != nil || status == nil {
		t.Fatalf("ReadRotation: %v, %v", status, err)
	}
	j.finish()
	if !slices.Contains(loadCertificate(t, j.path("server.crt")).DNSNames, "localhost") {
		t.Error("the receiver lost its name")
	}
	if status, err := pki.ReadRotation(j.identity); err != nil || status != nil {
		t.Errorf("after it: %v, %v", status, err)
	}
	if changed, err := pki.InstallIssuing(j.dir, j.identity); err != nil || changed {
		t.Errorf("setup after it: %v, %v", changed, err)
	}
	h := j.join("lab-01", false, time.Now())
	fixture.Must(t, j.learn(h, j.issuer.ServerCAs()))
}

// FuzzServerCAs: no answer of a receiver makes a host trust what its root has not signed.
func FuzzServerCAs(f *testing.F) {
	j := newJoinLab(f)
	h := j.join("lab-01", false, time.Now())
	root := readFile(f, filepath.Join(h.identity, "host-ca.crt"))
	j.rotate()
	known := j.issuer.ServerCAHashes()
	f.Add(j.issuer.ServerCAs())
	f.Add(root)
	f.Add(readFile(f, j.path("hosts-ca.crt")))
	client := loadJoined(f, h)
	f.Fuzz(func(t *testing.T, bundle []byte) {
		update, err := client.OpenCAUpdate(t.Context(), bundle, time.Now())
		if err != nil {
			return
		}
		defer update.Close()
		fixture.Must(t, update.Install())
		for _, hash := range loadJoined(t, h).TrustedCAs() {
			if !slices.Contains(known, hash) {
				t.Errorf("it trusts %s", hash)
			}
		}
		writeFile(t, filepath.Join(h.identity, "host-ca.crt"), root)
	})
}

// A rotation that was interrupted before the identity directory followed was announced to no host.
func TestRotationIsFinishedOnlyIfItWasAnnounced(t *testing.T) {
	j := newJoinLab(t)
	_, err := pki.Rotate(j.dir, pki.RotateOptions{})
	fixture.Must(t, err)
	if _, err := pki.FinishRotation(j.dir, j.identity, time.Now()); err == nil || !strings.Contains(err.Error(), "pki rotate' again") {
		t.Errorf("got %v", err)
	}
	j.use()
	fixture.Must(t, os.Remove(filepath.Join(j.identity, "next-hosts-ca.crt"))) // as in a backup
	if _, err := pki.FinishRotation(j.dir, j.identity, time.Now()); err == nil {
		t.Error("it is finished with the identity directory of before")
	}
	j.use()
	j.finish()
}

// Between the new directory and the files that name its CAs, the receiver trusts the former ones alone.
func TestRevocationAfterAnInterruptedRotationCanBeLoaded(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	before := readFile(t, j.path("hosts-ca.crt"))
	_, err := pki.Rotate(j.dir, pki.RotateOptions{})
	fixture.Must(t, err)
	writeFile(t, j.path("hosts-ca.crt"), before)
	_, err = pki.RevokeHost(j.dir, "lab-01", time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	fixture.Must(t, j.gate.Reload())
	if _, err := j.identify(h); err == nil {
		t.Error("it has access")
	}
	j.rotate()
	j.finish()
}

// What a thief of the former issuing key signs ends with the rotation.
func TestOnlyCertificatesOnRecordFollowARotation(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	j.rotate()
	c, err := j.identify(h)
	fixture.Must(t, err)
	record := filepath.Join(pki.RecordsIn(j.identity), h.issued.Serial+".crt")
	fixture.Must(t, os.Rename(record, record+".gone"))
	if j.issuer.HasSigned(c) {
		t.Error("a certificate that is not on record would be renewed")
	}
	fixture.Must(t, os.Rename(record+".gone", record))
	if !j.issuer.HasSigned(c) {
		t.Error("the host cannot follow")
	}
}

// The CAs of an abandoned rotation are former ones of the next: its hosts follow, its revocations hold,
// and no host learns its root.
func TestRotationAfterAnAbandonedOne(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	j.rotate()
	followed, revoked := j.join("lab-02", false, time.Now()), j.join("lab-03", false, time.Now())
	fixture.Must(t, j.learn(followed, j.issuer.ServerCAs()))
	_, err := pki.RevokeHost(j.dir, "lab-03", time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	abandoned := firstBlock(readFile(t, j.dir+"-next/ca.crt"))
	fixture.Must(t, os.RemoveAll(j.dir+"-next"))
	j.rotate()
	if bytes.Contains(readFile(t, j.path("ca.crt")), abandoned) {
		t.Error("the abandoned root is announced")
	}
	for _, host := range []joined{h, followed} {
		c, err := j.identify(host)
		fixture.Must(t, err)
		if !j.issuer.WillEnd(c) || !j.issuer.HasSigned(c) {
			t.Errorf("%s cannot follow", c.Host)
		}
		fixture.Must(t, j.learn(host, j.issuer.ServerCAs()))
	}
	if _, err := j.identify(revoked); err == nil {
		t.Error("what was revoked has access")
	}
	_, err = pki.RevokeHost(j.dir, "lab-01", time.Now(), pki.RecordsIn(j.identity))
	fixture.Must(t, err)
	fixture.Must(t, j.gate.Reload())
	j.finish()
	if _, err := j.identify(followed); err == nil {
		t.Error("a certificate of the abandoned rotation has access in the end")
	}
}

// Keys that were moved offline after they were installed stay where they are used.
func TestRotationWithIssuingKeysOffline(t *testing.T) {
	j := newJoinLab(t)
	for _, suffix := range []string{".key", ".crt"} {
		fixture.Must(t, os.Remove(j.path("ca-issuing"+suffix)))
	}
	j.rotate()
	for _, suffix := range []string{".key", ".crt"} {
		fixture.Must(t, os.Remove(j.dir+"-next/hosts-ca-issuing"+suffix))
	}
	j.finish()
	h := j.join("lab-01", false, time.Now())
	fixture.Must(t, j.learn(h, j.issuer.ServerCAs()))
	reconnect(t, j, h).wantAccess("lab-01 mtls")
}

// The directory may be named by another path.
func TestRotationIsFoundByAnyPath(t *testing.T) {
	j := newJoinLab(t)
	j.rotate()
	h := j.issue("lab-01", pki.IssueOptions{})
	other := filepath.Join(t.TempDir(), "link")
	fixture.Must(t, os.Symlink(j.dir, other))
	t.Chdir(j.dir)
	for _, dir := range []string{".", other, other + "/"} {
		if revoked, err := pki.RevokeHost(dir, "lab-01", time.Now()); err != nil || len(revoked) != 1 {
			t.Errorf("%s: %v, %v", dir, revoked, err)
		}
	}
	fixture.Must(t, j.gate.Reload())
	if r := h.call(); r.err == nil && r.status == 200 {
		t.Error("it has access")
	}
}

// A host cannot wear out the disk by naming other CAs in each ping.
func TestWhatAHostTrustsIsWrittenSeldom(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now())
	fixture.Must(t, j.note(h))
	c, err := j.identify(h)
	fixture.Must(t, err)
	record := filepath.Join(j.identity, "hosts", "lab-01.json")
	writes, last, now := 0, string(readFile(t, record)), time.Now()
	note := func(cas ...string) {
		t.Helper()
		fixture.Must(t, j.records.NoteTrustedCAs(c.Host, c.Certificate(), cas, now))
		if text := string(readFile(t, record)); text != last {
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
	if records, err := pki.ListHostRecords(j.identity); err != nil || !slices.Equal(records["lab-01"].TrustedCAs, []string{"c"}) {
		t.Errorf("an hour later: %+v, %v", records, err)
	}
}

// What a candidate trusts is not installed: the receiver must not count on it.
func TestCandidateDoesNotSayWhatItTrusts(t *testing.T) {
	j := newJoinLab(t)
	h := j.join("lab-01", false, time.Now().Add(-200*day))
	client := loadJoined(t, h)
	renewal := openRenewal(t, client)
	candidate, err := renewal.Candidate(j.answer(renewal, "lab-01", time.Now()), time.Now())
	fixture.Must(t, err)
	fixture.Must(t, renewal.Close())
	update, err := client.OpenCAUpdate(t.Context(), j.issuer.ServerCAs(), time.Now())
	fixture.Must(t, err)
	defer update.Close()
	if a, b := candidate.TrustedCAs(), update.Candidate().TrustedCAs(); a != nil || b != nil || client.TrustedCAs() == nil {
		t.Errorf("they say %q and %q", a, b)
	}
}
