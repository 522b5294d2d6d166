package pkitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// Authority signs what a test needs, including what the programs never would.
type Authority struct {
	T    testing.TB
	Cert *x509.Certificate
	Key  *ecdsa.PrivateKey
}

// LoadAuthority loads a CA, or another certificate with its key, of a directory.
func LoadAuthority(t testing.TB, dir, name string) Authority {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return Authority{t, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)}
}

// NewAuthority creates a CA without name constraints.
func NewAuthority(t testing.TB) Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "plain CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	self := Authority{t, template, key}
	self.Cert = self.Sign(template, key).Leaf
	return self
}

// HostTemplate returns the content of a host's certificate, with the URIs byte for byte.
func HostTemplate(t testing.TB, uris ...string) *x509.Certificate {
	t.Helper()
	var names []asn1.RawValue
	for _, uri := range uris {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)})
	}
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(uris) > 0 {
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	return c
}

// Sign signs a certificate for a key, or for a new one if that is nil.
func (a Authority) Sign(template *x509.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	a.T.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			a.T.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.Key)
	if err != nil {
		a.T.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.T.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// SignServer returns a certificate of a receiver in DER, signed as if by a.
func (a Authority) SignServer(address string) []byte {
	c := HostTemplate(a.T)
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c.IPAddresses = []net.IP{net.ParseIP(address)}
	der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: a.Cert.Subject}, a.Key.Public(), a.Key)
	fixture.Must(a.T, err)
	return der
}
