package pkitest

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"cis490/internal/fixture"
)

// ReadFile returns the content of a file.
func ReadFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// WriteFile writes a file that only its owner can read.
func WriteFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// LoadCertificate returns the first certificate of a file.
func LoadCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(ReadFile(t, path))
	cert, err := x509.ParseCertificate(block.Bytes)
	fixture.Must(t, err)
	return cert
}

// EncodeCertificate returns a certificate in PEM.
func EncodeCertificate(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// FirstBlock returns the first PEM block of data.
func FirstBlock(data []byte) []byte {
	block, _ := pem.Decode(data)
	return pem.EncodeToMemory(block)
}

// Cut removes the end of a file.
func Cut(t *testing.T, path string) {
	t.Helper()
	data := ReadFile(t, path)
	WriteFile(t, path, data[:len(data)-30])
}
