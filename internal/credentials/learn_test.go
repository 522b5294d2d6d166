package credentials_test

import (
	"crypto/x509"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pkitest"
)

// Who controls a receiver, but not the key of its root, cannot make hosts trust another root.
func TestNewRootNeedsTheSignatureOfATrustedOne(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now())
	j.Rotate()
	root, next := pkitest.ReadFile(t, j.Path("ca.crt")), pkitest.ReadFile(t, j.Dir+"-next/ca.crt")
	oldRoot, newRoot := pkitest.FirstBlock(root), pkitest.FirstBlock(next)
	link := pkitest.ReadFile(t, j.Dir+"-next/ca-link.crt")
	foreign := pkitest.NewAuthority(t)
	foreignRoot := pkitest.EncodeCertificate(foreign.Cert)
	byIssuing := pkitest.EncodeCertificate(pkitest.LoadAuthority(t, j.Dir, "ca-issuing").Sign(foreign.Cert, foreign.Key).Leaf)
	// A root of the same name with the key of the issuing CA, which is on the receiver.
	issuing := pkitest.LoadAuthority(t, j.Dir, "ca-issuing")
	self := pkitest.Authority{T: t, Cert: &x509.Certificate{
		SerialNumber: big.NewInt(7), RawSubject: issuing.Cert.RawSubject, NotBefore: time.Now().Add(-pkitest.Day), NotAfter: time.Now().Add(100 * pkitest.Day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, Key: issuing.Key}
	forged := self.Sign(self.Cert, self.Key).Leaf
	otherName := pkitest.LoadAuthority(t, j.Dir, "ca").Sign(&x509.Certificate{ // by the root, and of another one
		SerialNumber: big.NewInt(8), RawSubject: forged.RawSubject, NotBefore: time.Now().Add(-pkitest.Day), NotAfter: time.Now().Add(100 * pkitest.Day),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, URIs: []*url.URL{{Scheme: "cis490-root", Opaque: "sha256:00"}},
	}, self.Key).Leaf
	for name, test := range map[string]struct {
		bundle []byte
		want   string // "" accepts it
	}{
		"as the receiver sends it":     {j.Issuer.ServerCAs(), ""},
		"the present one":              {oldRoot, ""},
		"the new one alone":            {slices.Concat(newRoot, link), ""},
		"no link":                      {slices.Concat(oldRoot, newRoot), "vouches"},
		"the link alone":               {link, "0 roots"},
		"a foreign one":                {slices.Concat(oldRoot, foreignRoot), "vouches"},
		"a foreign one with that link": {slices.Concat(oldRoot, foreignRoot, link), "vouches"},
		"linked by an issuing CA":      {slices.Concat(oldRoot, foreignRoot, byIssuing), "vouches"},
		"the issuing CA as link":       {slices.Concat(pkitest.EncodeCertificate(forged), pkitest.EncodeCertificate(issuing.Cert)), "vouches"},
		"the link of another":          {slices.Concat(pkitest.EncodeCertificate(forged), pkitest.EncodeCertificate(otherName)), "vouches"},
		"one of hosts":                 {pkitest.FirstBlock(pkitest.ReadFile(t, j.Path("hosts-ca.crt"))), "not for receivers"},
		"no CA":                        {pkitest.ReadFile(t, j.Path("server.crt")), "not a CA"},
		"nothing":                      {nil, "0 of 0"},
		"text":                         {[]byte("x"), "0 of 0"},
		"cut":                          {newRoot[:len(newRoot)-40], "0 of 1"},
		"a key":                        {pkitest.ReadFile(t, j.Path("ca.key")), "PRIVATE KEY"},
		"too many":                     {[]byte(strings.Repeat(string(oldRoot), 17)), "17 certificates"},
	} {
		before := pkitest.ReadFile(t, filepath.Join(h.Identity, "host-ca.crt"))
		err := j.Learn(h, test.bundle)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if test.want != "" && string(pkitest.ReadFile(t, filepath.Join(h.Identity, "host-ca.crt"))) != string(before) {
			t.Errorf("%s: the trusted CAs changed", name)
		}
		fixture.Must(t, os.WriteFile(filepath.Join(h.Identity, "host-ca.crt"), oldRoot, 0o600))
	}
	late := time.Now().Add(11 * 365 * pkitest.Day)
	if _, err := pkitest.LoadJoined(t, h).OpenCAUpdate(t.Context(), j.Issuer.ServerCAs(), late); err == nil {
		t.Error("an expired link is accepted")
	}
}

// FuzzServerCAs: no answer of a receiver makes a host trust what its root has not signed.
func FuzzServerCAs(f *testing.F) {
	j := pkitest.NewJoinLab(f)
	h := j.Join("lab-01", false, time.Now())
	root := pkitest.ReadFile(f, filepath.Join(h.Identity, "host-ca.crt"))
	j.Rotate()
	known := j.Issuer.ServerCAHashes()
	f.Add(j.Issuer.ServerCAs())
	f.Add(root)
	f.Add(pkitest.ReadFile(f, j.Path("hosts-ca.crt")))
	client := pkitest.LoadJoined(f, h)
	f.Fuzz(func(t *testing.T, bundle []byte) {
		update, err := client.OpenCAUpdate(t.Context(), bundle, time.Now())
		if err != nil {
			return
		}
		defer update.Close()
		fixture.Must(t, update.Install())
		for _, hash := range pkitest.LoadJoined(t, h).TrustedCAs() {
			if !slices.Contains(known, hash) {
				t.Errorf("it trusts %s", hash)
			}
		}
		pkitest.WriteFile(t, filepath.Join(h.Identity, "host-ca.crt"), root)
	})
}

// What a candidate trusts is not installed: the receiver must not count on it.
func TestCandidateDoesNotSayWhatItTrusts(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	h := j.Join("lab-01", false, time.Now().Add(-200*pkitest.Day))
	client := pkitest.LoadJoined(t, h)
	renewal := pkitest.OpenRenewal(t, client)
	candidate, err := renewal.Candidate(j.Answer(renewal, "lab-01", time.Now()), time.Now())
	fixture.Must(t, err)
	fixture.Must(t, renewal.Close())
	update, err := client.OpenCAUpdate(t.Context(), j.Issuer.ServerCAs(), time.Now())
	fixture.Must(t, err)
	defer update.Close()
	if a, b := candidate.TrustedCAs(), update.Candidate().TrustedCAs(); a != nil || b != nil || client.TrustedCAs() == nil {
		t.Errorf("they say %q and %q", a, b)
	}
}
