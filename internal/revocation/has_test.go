package revocation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// testCA is a CA with a revocation list that has serial number 5.
func testCA(t *testing.T) (revocationCA, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fixture.Must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	ca = sign(t, ca, ca, key)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: time.Now()}},
	}, ca, key)
	fixture.Must(t, err)
	list, err := x509.ParseRevocationList(der)
	fixture.Must(t, err)
	return revocationCA{cert: ca, list: list}, key
}

// sign returns a certificate with the public key of the signer: no test uses its own.
func sign(t *testing.T, template, ca *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), key)
	fixture.Must(t, err)
	cert, err := x509.ParseCertificate(der)
	fixture.Must(t, err)
	return cert
}

// TestListHasOnlyCertificatesOfItsCA: two CAs may have given the same serial number.
func TestListHasOnlyCertificatesOfItsCA(t *testing.T) {
	this, key := testCA(t)
	other, otherKey := testCA(t)
	other.list = nil
	r := revocations{cas: []revocationCA{other, this}}
	host := &x509.Certificate{SerialNumber: big.NewInt(5)}
	if !r.has(sign(t, host, this.cert, key)) {
		t.Error("the certificate on the list does not count as revoked")
	}
	if r.has(sign(t, host, other.cert, otherKey)) {
		t.Error("a certificate of another CA counts as revoked")
	}
}
