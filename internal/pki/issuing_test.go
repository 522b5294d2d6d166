package pki_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// takeOffline removes the keys of the roots, as an operator does.
func (l *lab) takeOffline() {
	l.t.Helper()
	fixture.Must(l.t, os.Remove(l.path("ca.key")))
	fixture.Must(l.t, os.Remove(l.path("hosts-ca.key")))
}

// Whoever takes over the receiver has the key of the hosts' issuing CA. It signs hosts of this trust
// domain, and nothing else.
func TestIssuingCAOfHostsVouchesForHostsOnly(t *testing.T) {
	l := newJoinLab(t)
	issuing := loadAuthority(t, l.dir, "hosts-ca-issuing")
	good := "spiffe://" + domain + "/host/lab-01"
	for name, test := range map[string]struct {
		uri    string
		change func(*x509.Certificate)
		want   bool
	}{
		"host":            {good, nil, true},
		"other domain":    {"spiffe://other.lab/host/lab-01", nil, false},
		"subdomain":       {"spiffe://x." + domain + "/host/lab-01", nil, false},
		"for servers":     {good, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, false},
		"with a DNS name": {good, func(c *x509.Certificate) { addNames(t, c, good, "DNS:receiver.lab") }, false},
		"with an address": {good, func(c *x509.Certificate) { addNames(t, c, good, "IP") }, false},
		"with a mail":     {good, func(c *x509.Certificate) { addNames(t, c, good, "mail") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := template(t, test.uri)
			if test.change != nil {
				test.change(c)
			}
			pair := issuing.signCertificate(c, nil)
			pair.Certificate = append(pair.Certificate, issuing.cert.Raw)
			r := l.newCaller(l.clientTLS(&pair)).call()
			if got := r.err == nil && r.status == 200; got != test.want {
				t.Errorf("got %+v, want access: %v", r, test.want)
			}
		})
	}
	// Path length 0: no CA below it is believed.
	below := template(t)
	below.IsCA, below.BasicConstraintsValid, below.KeyUsage = true, true, x509.KeyUsageCertSign
	below.Subject = pkix.Name{CommonName: "below"}
	sub := issuing.signCertificate(below, nil)
	leaf := authority{t, sub.Leaf, sub.PrivateKey.(ecdsaKey)}.signCertificate(template(t, good), nil)
	leaf.Certificate = append(leaf.Certificate, sub.Leaf.Raw, issuing.cert.Raw)
	if r := l.newCaller(l.clientTLS(&leaf)).call(); r.err == nil && r.status == 200 {
		t.Error("a CA below the issuing one is believed")
	}
}

// Neither side vouches for the other.
func TestIssuingCAsVouchForOneSideAlone(t *testing.T) {
	l := newJoinLab(t)
	good := "spiffe://" + domain + "/host/lab-01"
	for _, name := range []string{"ca", "ca-issuing"} {
		by := loadAuthority(t, l.dir, name)
		pair := by.signCertificate(template(t, good), nil)
		pair.Certificate = append(pair.Certificate, by.cert.Raw)
		if r := l.newCaller(l.clientTLS(&pair)).call(); r.err == nil && r.status == 200 {
			t.Errorf("%s vouches for a host", name)
		}
	}
	for _, name := range []string{"hosts-ca", "hosts-ca-issuing"} {
		by := loadAuthority(t, l.dir, name)
		c := template(t)
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		pair := by.signCertificate(c, nil)
		if err := verifyServer(t, l.dir, pair.Leaf, "localhost", by.cert); err == nil {
			t.Errorf("%s vouches for a receiver", name)
		}
	}
}

// verifyServer verifies a receiver's certificate as a host does.
func verifyServer(t testing.TB, dir string, leaf *x509.Certificate, name string, chain ...*x509.Certificate) error {
	t.Helper()
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(readFile(t, filepath.Join(dir, "ca.crt")))
	for _, c := range chain {
		others.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return err
}

// The key of the receiver's issuing CA signs for no other server.
func TestIssuingCAOfTheReceiverSignsItsNamesOnly(t *testing.T) {
	for _, test := range []struct {
		names []string
		asked string
		want  bool
	}{
		{[]string{"receiver.lab", "10.0.0.1"}, "receiver.lab", true},
		{[]string{"receiver.lab", "10.0.0.1"}, "10.0.0.1", true},
		{[]string{"receiver.lab", "10.0.0.1"}, "bank.example", false},
		{[]string{"receiver.lab", "10.0.0.1"}, "10.0.0.2", false},
		{[]string{"receiver.lab"}, "10.0.0.1", false},
		{[]string{"receiver.lab"}, "fd00::1", false},
		{[]string{"10.0.0.1"}, "receiver.lab", false},
		{[]string{"fd00::1"}, "fd00::1", true},
		{[]string{"fd00::1"}, "fd00::2", false},
	} {
		dir := t.TempDir()
		fixture.Must(t, pki.InitCA(dir, pki.InitOptions{Names: test.names}))
		issuing := loadAuthority(t, dir, "ca-issuing")
		c := template(t)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(test.asked); ip != nil {
			c.IPAddresses = []net.IP{ip}
		} else {
			c.DNSNames = []string{test.asked}
		}
		leaf := issuing.signCertificate(c, nil).Leaf
		if err := verifyServer(t, dir, leaf, test.asked, issuing.cert); (err == nil) != test.want {
			t.Errorf("%v signs for %s: %v, want %v", test.names, test.asked, err, test.want)
		}
	}
}

// Others verify our chains too, such as nginx and curl.
func TestOpenSSLAcceptsChainsOfIssuingCAs(t *testing.T) {
	openssl := fixture.RequireTool(t, "openssl")
	l := newJoinLab(t)
	l.takeOffline()
	verify := func(root, issuing, leaf string, args ...string) string {
		args = append([]string{"verify", "-x509_strict", "-CAfile", l.path(root), "-untrusted", l.path(issuing)}, append(args, leaf)...)
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}
	if said := verify("ca.crt", "ca-issuing.crt", l.path("server.crt"), "-purpose", "sslserver", "-verify_hostname", "localhost"); said != "" {
		t.Error(said)
	}
	// OpenSSL takes a common name for a DNS name if it looks like one, and those are excluded.
	for _, host := range []episode.Name{"lab-07", "lab-07.example.org", "10.0.0.1", "a.b", "A_b-1.x"} {
		h := l.join(host, false, time.Now())
		if said := verify("hosts-ca.crt", "hosts-ca-issuing.crt", filepath.Join(h.identity, "host.pem"), "-purpose", "sslclient"); said != "" {
			t.Errorf("%s: %s", host, said)
		}
	}
}

func TestRootsMayBeOffline(t *testing.T) {
	l := newJoinLab(t)
	l.takeOffline()
	if _, err := pki.RenewServer(l.dir, pki.RenewOptions{}); err != nil {
		t.Errorf("renew: %v", err)
	}
	fixture.Must(t, l.gate.Reload())
	h := l.join("lab-02", false, time.Now())
	h.wantAccess("lab-02 mtls")
	list, err := pki.RevokeHost(l.dir, "lab-02", time.Now(), pki.RecordsIn(l.identity))
	if err != nil || len(list) != 1 || list[0].State != pki.Revoked {
		t.Errorf("revoke: %+v, %v", list, err)
	}
	fixture.Must(t, l.gate.Reload())
	h.wantRefusedOnSameConnection(403)
	if _, err := pki.RenewServer(l.dir, pki.RenewOptions{Names: []string{"other.lab"}}); err == nil || !strings.Contains(err.Error(), "key of the root is needed") {
		t.Errorf("renew for another name: %v", err)
	}
}

// The certificate that the root signed before its key went offline must not keep those that the
// issuing CA signed from being revoked, and what is not revoked is said.
func TestRevokingDoesWhatItCanWithoutTheRoot(t *testing.T) {
	l := newJoinLab(t)
	old := l.issue("lab-01", pki.IssueOptions{}) // by the root
	l.takeOffline()
	h := l.join("lab-01", false, time.Now())
	list, err := pki.RevokeHost(l.dir, "lab-01", time.Now(), pki.RecordsIn(l.identity))
	if len(list) != 1 || list[0].Serial != h.issued.Serial || list[0].State != pki.Revoked {
		t.Errorf("got %+v, want that of the issuing CA revoked", list)
	}
	if err == nil || !strings.Contains(err.Error(), "may hold a certificate that is not revoked") || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that names the other", err)
	}
	fixture.Must(t, l.gate.Reload())
	if r := h.call(); r.status == 200 {
		t.Error("the revoked certificate gives access")
	}
	old.wantAccess("lab-01 mtls")
}

func TestExpiredCertificateOfTheRootIsNotInTheWayOfARevocation(t *testing.T) {
	l := newJoinLab(t)
	_, err := pki.IssueHost(l.dir, "lab-01", t.TempDir(), pki.IssueOptions{Valid: time.Hour, Now: time.Now().Add(-2 * time.Hour)})
	fixture.Must(t, err)
	l.takeOffline()
	h := l.join("lab-01", false, time.Now())
	list, err := pki.RevokeHost(l.dir, "lab-01", time.Now(), pki.RecordsIn(l.identity))
	if err != nil || len(list) != 1 || list[0].Serial != h.issued.Serial {
		t.Errorf("got %+v, %v; want that of the issuing CA revoked", list, err)
	}
}

// Without a record it is not known which CA signed a certificate. If a list cannot be signed, revoking by
// serial number must not claim success, and must be possible later.
func TestRevokingASerialSaysWhichListIsMissing(t *testing.T) {
	l := newJoinLab(t)
	out := t.TempDir()
	issued, err := pki.IssueHost(l.dir, "lab-01", out, pki.IssueOptions{}) // by the root
	fixture.Must(t, err)
	fixture.Must(t, os.RemoveAll(l.path("issued"))) // restored from an older backup
	serial, err := pki.ParseSerial(issued.Serial)
	fixture.Must(t, err)
	key := readFile(t, l.path("hosts-ca.key"))
	l.takeOffline()
	r, err := pki.RevokeSerial(l.dir, serial, time.Now())
	if r.Serial != issued.Serial || err == nil || !strings.Contains(err.Error(), "hosts-ca.crt signed the certificate, it still has access") {
		t.Errorf("got %+v, %v; want an error that names the list", r, err)
	}
	writeFile(t, l.path("hosts-ca.key"), key)
	if r, err := pki.RevokeSerial(l.dir, serial, time.Now()); err != nil || r.Already {
		t.Errorf("with the key: got %+v, %v; want it revoked", r, err)
	}
	if r, err := pki.RevokeSerial(l.dir, serial, time.Now()); err != nil || !r.Already {
		t.Errorf("again: got %+v, %v", r, err)
	}
	path := filepath.Join(out, "lab-01.crt")
	if r, err := pki.RevokeCertificate(l.dir, path, time.Now()); err != nil || !r.Already {
		t.Errorf("by its file: got %+v, %v; want it in the list of the root", r, err)
	}
}

// The root can end its issuing CA, and with it each certificate of that CA.
func TestRevokedIssuingCAEndsItsCertificates(t *testing.T) {
	l := newJoinLab(t)
	h := l.join("lab-01", false, time.Now())
	h.wantAccess("lab-01 mtls")
	if _, err := pki.RevokeCertificate(l.dir, l.path("hosts-ca-issuing.crt"), time.Now()); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.gate.Reload())
	h.wantRefusedOnSameConnection(403)
	if r := l.join("lab-02", false, time.Now()).call(); r.err == nil && r.status == 200 {
		t.Error("a new certificate of the revoked CA gives access")
	}
	l.issue("lab-03", pki.IssueOptions{}).wantAccess("lab-03 mtls") // by the root
}

// nginx hands over the certificate alone, and a host may have lost its chain.
func TestCertificateWithoutItsChainIsAccepted(t *testing.T) {
	for name, change := range map[string]func(*joinLab){
		"by hosts-ca.crt": func(l *joinLab) { l.config.IdentityDir = "" },
		"by the identity": func(l *joinLab) {
			root := encodeCertificate(loadAuthority(t, l.dir, "hosts-ca").cert) // as it was before issuing CAs
			writeFile(t, l.path("hosts-ca.crt"), root)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newJoinLab(t)
			change(l)
			l.reopen()
			h := l.join("lab-01", false, time.Now())
			if c, err := l.identify(h); err != nil || c.Host != "lab-01" {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

func TestOfflinePKIHasNoIssuingCA(t *testing.T) {
	dir, identity := t.TempDir(), filepath.Join(t.TempDir(), "identity")
	fixture.Must(t, pki.InitCA(dir, pki.InitOptions{Names: []string{"localhost"}, Offline: true}))
	if found, _ := filepath.Glob(filepath.Join(dir, "*issuing*")); len(found) > 0 {
		t.Errorf("got %v", found)
	}
	fixture.Must(t, pki.CreateIdentityDir(identity))
	if _, err := pki.InstallIssuing(dir, identity); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("got %v, want %v", err, pki.ErrNoIssuing)
	}
	if _, err := pki.OpenIssuer(identity); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("got %v, want %v", err, pki.ErrNoIssuing)
	}
	for _, do := range []func() error{
		func() error { _, err := pki.RenewServer(dir, pki.RenewOptions{}); return err },
		func() error { _, err := pki.IssueHost(dir, "lab-01", t.TempDir(), pki.IssueOptions{}); return err },
		func() error { _, err := pki.RevokeHost(dir, "lab-01", time.Now()); return err },
	} {
		fixture.Must(t, do())
	}
}

// Hosts have certificates of the one that is there.
func TestIssuingCAIsNeverReplaced(t *testing.T) {
	l := newJoinLab(t)
	if changed, err := pki.InstallIssuing(l.dir, l.identity); err != nil || changed {
		t.Errorf("the same one: %v, %v", changed, err)
	}
	other := t.TempDir()
	fixture.Must(t, pki.InitCA(other, pki.InitOptions{Names: []string{"localhost"}}))
	before := readFile(t, filepath.Join(l.identity, "hosts-issuing.pem"))
	if _, err := pki.InstallIssuing(other, l.identity); err == nil {
		t.Error("another one: no error")
	}
	if string(readFile(t, filepath.Join(l.identity, "hosts-issuing.pem"))) != string(before) {
		t.Error("it was replaced")
	}
}
