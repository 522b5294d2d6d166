package gate_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
)

// requests returns requests of all kinds, and whether each is good.
func requests(t testing.TB) map[string]struct {
	der  []byte
	good bool
} {
	t.Helper()
	all := make(map[string]struct {
		der  []byte
		good bool
	})
	add := func(name string, good bool, key any, template x509.CertificateRequest) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
		fixture.Must(t, err)
		all[name] = struct {
			der  []byte
			good bool
		}{der, good}
		return der
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	fixture.Must(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	fixture.Must(t, err)
	r1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil { // Go refuses to make one: this is one of openssl
		r1024 = nil
	}
	r2048, err := rsa.GenerateKey(rand.Reader, 2048)
	fixture.Must(t, err)
	good := add("P-256", true, p256, x509.CertificateRequest{})
	add("Ed25519", true, ed, x509.CertificateRequest{})
	add("RSA 2048", true, r2048, x509.CertificateRequest{})
	add("other names", true, p256, x509.CertificateRequest{ // which are not used
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"receiver.lab"},
	})
	add("P-224", false, p224, x509.CertificateRequest{})
	if r1024 != nil {
		add("RSA 1024", false, r1024, x509.CertificateRequest{})
	}
	for name, der := range map[string][]byte{
		"nothing": nil, "garbage": []byte("x"), "cut": good[:len(good)-1], "more": append(bytes.Clone(good), 0),
		"altered signature": flip(good, len(good)-5), "altered key": flip(good, bytes.Index(good, p256.X.Bytes())+3),
	} {
		all[name] = struct {
			der  []byte
			good bool
		}{der, false}
	}
	return all
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestRequestCountsOnlyByItsKey(t *testing.T) {
	j := pkitest.NewJoinLab(t)
	for name, test := range requests(t) {
		request, err := gate.ParseRequest(test.der)
		if (err == nil) != test.good {
			t.Errorf("%s: got %v, want it good: %v", name, err, test.good)
		}
		if err != nil {
			continue
		}
		issued, err := j.Issuer.SignHost(request, "lab-01", time.Now())
		fixture.Must(t, err)
		cert := pkitest.LoadCertificate(t, filepath.Join(pki.RecordsIn(j.Identity), issued.Serial+".crt"))
		if cert.Subject.CommonName != "lab-01" || len(cert.DNSNames) > 0 || cert.IsCA || cert.NotAfter.Before(time.Now().Add(364*24*time.Hour)) {
			t.Errorf("%s: got a certificate for %v, %v, CA %v, until %v", name, cert.Subject, cert.DNSNames, cert.IsCA, cert.NotAfter)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, r := range requests(f) {
		f.Add(r.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		request, err := gate.ParseRequest(der)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not printable: %q", err)
			}
			return
		}
		if sum, err := hex.DecodeString(request.KeySHA256); err != nil || len(sum) != 32 {
			t.Errorf("got key %q", request.KeySHA256)
		}
	})
}
