package ca_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

func parseCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(pkitest.ReadFile(t, path))
	if block == nil {
		t.Fatalf("%s is not PEM", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestInitMakesBothCAsAndTheReceiver(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	for _, name := range []string{"ca.key", "hosts-ca.key", "server.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v; want 0600", name, info.Mode().Perm())
		}
		if !strings.HasPrefix(string(pkitest.ReadFile(t, filepath.Join(dir, name))), "-----BEGIN PRIVATE KEY-----") {
			t.Errorf("%s is not PKCS#8", name)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(parseCertificate(t, filepath.Join(dir, "ca.crt")))
	leaf := parseCertificate(t, filepath.Join(dir, "server.crt"))
	issuing := x509.NewCertPool()
	issuing.AppendCertsFromPEM(pkitest.ReadFile(t, filepath.Join(dir, "server.crt")))
	for _, name := range []string{"receiver.lab", "10.0.0.1", "fd00::1"} {
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: issuing, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".pki.lock" {
			t.Errorf("%s was left behind", entry.Name())
		}
	}
}

func TestInitNeverReplacesACA(t *testing.T) {
	for _, left := range []string{"ca.key", "ca.crt", "hosts-ca.key", "hosts-ca.crt", "server.key", "server.crt", "hosts.crl", "issued"} {
		dir := t.TempDir()
		path := filepath.Join(dir, left)
		pkitest.WriteFile(t, path, []byte("precious"))
		err := ca.Init(dir, ca.InitOptions{Names: []string{"x"}})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v; want an error that names it", left, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 || string(pkitest.ReadFile(t, path)) != "precious" {
			t.Errorf("%s: the directory was changed", left)
		}
	}
}

func TestBadNamesAreRefusedBeforeAnythingIsMade(t *testing.T) {
	for _, o := range []ca.InitOptions{
		{},
		{Names: []string{""}},
		{Names: []string{"receiver.lab:8443"}},
		{Names: []string{"https://receiver.lab"}},
		{Names: []string{"*.lab"}},
		{Names: []string{"receiver.lab."}},
		{Names: []string{"fe80::1%eth0"}},
		{Names: []string{"a\nb"}},
		{Names: []string{"x"}, TrustDomain: "Upper.lab"},
		{Names: []string{"x"}, TrustDomain: ".lab"},
		{Names: []string{"x"}, TrustDomain: "10.0.0.1"},
		{Names: []string{"x"}, TrustDomain: "a/b"},
		{Names: []string{"x"}, TrustDomain: "a/host/b"},
	} {
		dir := filepath.Join(t.TempDir(), "new")
		if err := ca.Init(dir, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: the directory was made", o)
		}
	}
}

func TestIssueWritesWhatAHostNeeds(t *testing.T) {
	dir, out := pkitest.CreateCAs(t), filepath.Join(t.TempDir(), "for", "lab-01")
	now := time.Now()
	got, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{"ca.crt", "lab-01.crt", "lab-01.key"}; !slices.Equal(names, want) {
		t.Errorf("got %q; want %q", names, want)
	}
	if info, _ := os.Stat(filepath.Join(out, "lab-01.key")); info.Mode().Perm() != 0o600 {
		t.Errorf("key: got mode %v; want 0600", info.Mode().Perm())
	}
	cert := parseCertificate(t, filepath.Join(out, "lab-01.crt"))
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://cis490.lab/host/lab-01" {
		t.Errorf("got URIs %v", cert.URIs)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || cert.IsCA {
		t.Errorf("got usage %v, CA %v; want clientAuth only", cert.ExtKeyUsage, cert.IsCA)
	}
	if cert.SerialNumber.BitLen() < 64 || cert.SerialNumber.BitLen() > 128 {
		t.Errorf("got a serial of %d bits; want 128 random ones", cert.SerialNumber.BitLen())
	}
	if cert.NotBefore.After(now.Add(-59*time.Minute)) || cert.NotAfter.Before(now.Add(364*24*time.Hour)) {
		t.Errorf("good from %v to %v; want from an hour ago for a year", cert.NotBefore, cert.NotAfter)
	}
	if got.Host != "lab-01" || got.State != pki.Valid || !got.NotAfter.Equal(cert.NotAfter) {
		t.Errorf("got %+v", got)
	}
}

func TestIssueNeverReplacesSilently(t *testing.T) {
	dir, out := pkitest.CreateCAs(t), t.TempDir()
	first, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	key := pkitest.ReadFile(t, filepath.Join(out, "lab-01.key"))
	if _, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("got %v; want a hint at --force", err)
	}
	if string(pkitest.ReadFile(t, filepath.Join(out, "lab-01.key"))) != string(key) {
		t.Error("the key was replaced")
	}
	if _, err := ca.IssueHost(pkitest.CreateCAs(t), "lab-02", out, ca.IssueOptions{}); err == nil {
		t.Error("ca.crt of another CA was replaced")
	}
	if _, err := ca.IssueHost(dir, "lab-02", out, ca.IssueOptions{}); err != nil {
		t.Errorf("a second host beside the first: %v", err)
	}
	again, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{Force: true})
	if err != nil || again.Serial == first.Serial {
		t.Errorf("with force: got serial %s, %v; want another than %s", again.Serial, err, first.Serial)
	}
	if string(pkitest.ReadFile(t, filepath.Join(out, "lab-01.key"))) == string(key) {
		t.Error("with force, the key was kept")
	}
}

func TestHostCannotBeNamedAsAFileOfTheCA(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	key := pkitest.ReadFile(t, filepath.Join(dir, "ca.key"))
	for _, host := range []episode.Name{"ca", "hosts-ca", "server"} {
		if _, err := ca.IssueHost(dir, host, dir, ca.IssueOptions{Force: true}); err == nil {
			t.Errorf("%s was accepted", host)
		}
	}
	if string(pkitest.ReadFile(t, filepath.Join(dir, "ca.key"))) != string(key) {
		t.Error("the CA's key was replaced")
	}
}

func TestCertificateDoesNotOutlastItsCA(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	if err := ca.Init(dir, ca.InitOptions{Names: []string{"x"}, CAValid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	got, err := ca.IssueHost(dir, "lab-01", t.TempDir(), ca.IssueOptions{})
	if err != nil || got.NotAfter.After(now.Add(time.Hour+time.Minute)) {
		t.Errorf("got %v, %v; want an hour", got.NotAfter, err)
	}
	if _, err := ca.IssueHost(dir, "lab-01", t.TempDir(), ca.IssueOptions{Now: now.Add(2 * time.Hour)}); err == nil {
		t.Error("an ended CA signed")
	}
}

// Every certificate in use is known to a revocation.
func TestCertificateIsOnRecordBeforeItIsHandedOut(t *testing.T) {
	dir, out := pkitest.CreateCAs(t), t.TempDir()
	if err := os.Mkdir(filepath.Join(out, "lab-01.key"), 0o755); err != nil { // in the way of the key
		t.Fatal(err)
	}
	if _, err := ca.IssueHost(dir, "lab-01", out, ca.IssueOptions{Force: true}); err == nil {
		t.Fatal("the key was written over a directory")
	}
	if list, err := revocation.ListIssued(dir, time.Now()); err != nil || len(list) != 1 {
		t.Errorf("got %+v, %v; want the one certificate", list, err)
	}
	if _, err := os.Stat(filepath.Join(out, "lab-01.crt")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a certificate without its key: %v", err)
	}
}

func TestOpenSSLAccepts(t *testing.T) {
	openssl := fixture.RequireTool(t, "openssl")
	dir, out := pkitest.CreateCAs(t), t.TempDir()
	host := episode.Name("h" + strings.Repeat("x", episode.MaxName-1))
	if _, err := ca.IssueHost(dir, host, out, ca.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	leaf := filepath.Join(out, string(host)+".crt")
	run := func(args ...string) (string, error) {
		output, err := exec.Command(openssl, args...).CombinedOutput()
		return string(output), err
	}
	verify := []string{
		"verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", filepath.Join(dir, "hosts-ca.crt"),
		"-CRLfile", filepath.Join(dir, "hosts.crl"), "-crl_check", leaf,
	}
	if output, err := run(verify...); err != nil {
		t.Errorf("host: %v: %s", err, output)
	}
	if output, err := run("verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "receiver.lab",
		"-CAfile", filepath.Join(dir, "ca.crt"), filepath.Join(dir, "server.crt")); err != nil {
		t.Errorf("receiver: %v: %s", err, output)
	}
	if _, err := revocation.RevokeHost(dir, host, time.Now()); err != nil {
		t.Fatal(err)
	}
	if output, err := run(verify...); err == nil || !strings.Contains(output, "revoked") {
		t.Errorf("revoked: got %v: %s", err, output)
	}
}

// An interrupted init is continued, and its directory is not used before.
func TestInitContinuesAfterAnInterruption(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	if _, err := os.Stat(filepath.Join(dir, ".incomplete")); err == nil {
		t.Error("a complete directory is marked")
	}
	if err := os.Rename(filepath.Join(dir, "server.crt"), filepath.Join(dir, ".incomplete")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.IssueHost(dir, "lab-01", t.TempDir(), ca.IssueOptions{}); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("a certificate of an incomplete CA: %v", err)
	}
	// Nothing of the former attempt is left.
	if err := ca.Init(dir, ca.InitOptions{Names: []string{"localhost"}, Offline: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.IssueHost(dir, "lab-01", t.TempDir(), ca.IssueOptions{}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{".incomplete", "hosts-ca-issuing.crt", "hosts-ca-issuing.key"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is left", name)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "server.crt")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("server.crt: %v, %v", info, err)
	}
}
