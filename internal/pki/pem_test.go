package pki_test

import (
	"bytes"
	"encoding/pem"
	"path/filepath"
	"strings"
	"testing"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/pkitest"
)

// TestWrongFilesAreNamedForWhatTheyAre, each with the reason and advice.
func TestWrongFilesAreNamedForWhatTheyAre(t *testing.T) {
	out := t.TempDir()
	if _, err := ca.IssueHost(pkitest.CreateCAs(t), "lab-01", out, ca.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	good := credentials.Config{
		CAFile:   filepath.Join(out, "ca.crt"),
		CertFile: filepath.Join(out, "lab-01.crt"),
		KeyFile:  filepath.Join(out, "lab-01.key"),
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(t.TempDir(), name)
		pkitest.WriteFile(t, path, data)
		return path
	}
	der := func(path string) []byte {
		block, _ := pem.Decode(pkitest.ReadFile(t, path))
		return block.Bytes
	}
	old := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("x"), Headers: map[string]string{
		"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00",
	}})
	for name, c := range map[string]struct {
		change func(*credentials.Config)
		want   string
	}{
		"as issued": {func(*credentials.Config) {}, ""},
		"a byte order mark": {func(c *credentials.Config) {
			c.CertFile = file("f", append([]byte("\ufeff"), pkitest.ReadFile(t, c.CertFile)...))
		}, ""},
		"a mark in the CA file": {func(c *credentials.Config) {
			c.CAFile = file("f", append([]byte("\ufeff"), pkitest.ReadFile(t, c.CAFile)...))
		}, ""},
		"lines of Windows": {func(c *credentials.Config) {
			c.KeyFile = file("f", bytes.ReplaceAll(pkitest.ReadFile(t, c.KeyFile), []byte("\n"), []byte("\r\n")))
		}, ""},
		"an empty certificate": {func(c *credentials.Config) { c.CertFile = file("f", nil) }, "f is empty"},
		"an empty key":         {func(c *credentials.Config) { c.KeyFile = file("f", []byte("\n")) }, "f is empty"},
		"an empty CA":          {func(c *credentials.Config) { c.CAFile = file("f", nil) }, "f is empty"},
		"text":                 {func(c *credentials.Config) { c.CertFile = file("f", []byte("hello")) }, `f is not PEM: it has no line that begins with "-----BEGIN"`},
		"DER":                  {func(c *credentials.Config) { c.CertFile = file("f", der(c.CertFile)) }, "f is DER, not PEM: convert it with 'openssl x509 -inform der"},
		"a CA in DER":          {func(c *credentials.Config) { c.CAFile = file("f", der(c.CAFile)) }, "f is DER, not PEM: convert it with 'openssl x509 -inform der"},
		"a key in DER":         {func(c *credentials.Config) { c.KeyFile = file("f", der(c.KeyFile)) }, "f is DER, not PEM: convert it with 'openssl pkey -inform der"},
		"PKCS#12":              {func(c *credentials.Config) { c.CertFile = file("f", []byte("0\x82\x01\x02")) }, "f is binary, not PEM: if it is PKCS#12"},
		"a passphrase":         {func(c *credentials.Config) { c.KeyFile = file("f", encodePEM("ENCRYPTED PRIVATE KEY", []byte("x"))) }, "f is encrypted with a passphrase"},
		"an old passphrase":    {func(c *credentials.Config) { c.KeyFile = file("f", old) }, "f is encrypted with a passphrase"},
		"switched":             {func(c *credentials.Config) { c.CertFile, c.KeyFile = c.KeyFile, c.CertFile }, "may have been switched"},
	} {
		config := good
		c.change(&config)
		_, err := credentials.Load(config)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
