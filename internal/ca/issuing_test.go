package ca_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// Whoever takes over the receiver has the key of the hosts' issuing CA. It signs hosts of this trust
// domain, and nothing else.
func TestIssuingCAOfHostsVouchesForHostsOnly(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	issuing := pkitest.LoadAuthority(t, l.Dir, "hosts-ca-issuing")
	good := "spiffe://" + pkitest.Domain + "/host/lab-01"
	for name, test := range map[string]struct {
		uri    string
		change func(*x509.Certificate)
		want   bool
	}{
		"host":            {good, nil, true},
		"other domain":    {"spiffe://other.lab/host/lab-01", nil, false},
		"subdomain":       {"spiffe://x." + pkitest.Domain + "/host/lab-01", nil, false},
		"for servers":     {good, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, false},
		"with a DNS name": {good, func(c *x509.Certificate) { addNames(t, c, good, "DNS:receiver.lab") }, false},
		"with an address": {good, func(c *x509.Certificate) { addNames(t, c, good, "IP") }, false},
		"with a mail":     {good, func(c *x509.Certificate) { addNames(t, c, good, "mail") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := pkitest.HostTemplate(t, test.uri)
			if test.change != nil {
				test.change(c)
			}
			pair := issuing.Sign(c, nil)
			pair.Certificate = append(pair.Certificate, issuing.Cert.Raw)
			r := l.NewCaller(l.ClientTLS(&pair)).Call()
			if got := r.Err == nil && r.Status == 200; got != test.want {
				t.Errorf("got %+v, want access: %v", r, test.want)
			}
		})
	}
	// Path length 0: no CA below it is believed.
	below := pkitest.HostTemplate(t)
	below.IsCA, below.BasicConstraintsValid, below.KeyUsage = true, true, x509.KeyUsageCertSign
	below.Subject = pkix.Name{CommonName: "below"}
	sub := issuing.Sign(below, nil)
	leaf := pkitest.Authority{T: t, Cert: sub.Leaf, Key: sub.PrivateKey.(ecdsaKey)}.Sign(pkitest.HostTemplate(t, good), nil)
	leaf.Certificate = append(leaf.Certificate, sub.Leaf.Raw, issuing.Cert.Raw)
	if r := l.NewCaller(l.ClientTLS(&leaf)).Call(); r.Err == nil && r.Status == 200 {
		t.Error("a CA below the issuing one is believed")
	}
}

type ecdsaKey = *ecdsa.PrivateKey

// addNames gives a certificate another alternative name beside its URI.
func addNames(t testing.TB, c *x509.Certificate, uri, kind string) {
	t.Helper()
	parsed, err := url.Parse(uri)
	fixture.Must(t, err)
	c.ExtraExtensions, c.URIs = nil, []*url.URL{parsed}
	switch kind {
	case "IP":
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	case "mail":
		c.EmailAddresses = []string{"root@receiver.lab"}
	default:
		c.DNSNames = []string{"receiver.lab"}
	}
}

// Neither side vouches for the other.
func TestIssuingCAsVouchForOneSideAlone(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	good := "spiffe://" + pkitest.Domain + "/host/lab-01"
	for _, name := range []string{"ca", "ca-issuing"} {
		by := pkitest.LoadAuthority(t, l.Dir, name)
		pair := by.Sign(pkitest.HostTemplate(t, good), nil)
		pair.Certificate = append(pair.Certificate, by.Cert.Raw)
		if r := l.NewCaller(l.ClientTLS(&pair)).Call(); r.Err == nil && r.Status == 200 {
			t.Errorf("%s vouches for a host", name)
		}
	}
	for _, name := range []string{"hosts-ca", "hosts-ca-issuing"} {
		by := pkitest.LoadAuthority(t, l.Dir, name)
		c := pkitest.HostTemplate(t)
		c.DNSNames, c.IPAddresses = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		pair := by.Sign(c, nil)
		if err := verifyServer(t, l.Dir, pair.Leaf, "localhost", by.Cert); err == nil {
			t.Errorf("%s vouches for a receiver", name)
		}
	}
}

// verifyServer verifies a receiver's certificate as a host does.
func verifyServer(t testing.TB, dir string, leaf *x509.Certificate, name string, chain ...*x509.Certificate) error {
	t.Helper()
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(pkitest.ReadFile(t, filepath.Join(dir, "ca.crt")))
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
		fixture.Must(t, ca.Init(dir, ca.InitOptions{Names: test.names}))
		issuing := pkitest.LoadAuthority(t, dir, "ca-issuing")
		c := pkitest.HostTemplate(t)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(test.asked); ip != nil {
			c.IPAddresses = []net.IP{ip}
		} else {
			c.DNSNames = []string{test.asked}
		}
		leaf := issuing.Sign(c, nil).Leaf
		if err := verifyServer(t, dir, leaf, test.asked, issuing.Cert); (err == nil) != test.want {
			t.Errorf("%v signs for %s: %v, want %v", test.names, test.asked, err, test.want)
		}
	}
}

// Others verify our chains too, such as nginx and curl.
func TestOpenSSLAcceptsChainsOfIssuingCAs(t *testing.T) {
	openssl := fixture.RequireTool(t, "openssl")
	l := pkitest.NewJoinLab(t)
	l.TakeOffline()
	verify := func(root, issuing, leaf string, args ...string) string {
		args = append([]string{"verify", "-x509_strict", "-CAfile", l.Path(root), "-untrusted", l.Path(issuing)}, append(args, leaf)...)
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err == nil {
			return ""
		}
		return string(out)
	}
	if said := verify("ca.crt", "ca-issuing.crt", l.Path("server.crt"), "-purpose", "sslserver", "-verify_hostname", "localhost"); said != "" {
		t.Error(said)
	}
	// OpenSSL takes a common name for a DNS name if it looks like one, and those are excluded.
	for _, host := range []episode.Name{"lab-07", "lab-07.example.org", "10.0.0.1", "a.b", "A_b-1.x"} {
		h := l.Join(host, false, time.Now())
		if said := verify("hosts-ca.crt", "hosts-ca-issuing.crt", filepath.Join(h.Identity, "host.pem"), "-purpose", "sslclient"); said != "" {
			t.Errorf("%s: %s", host, said)
		}
	}
}

func TestRootsMayBeOffline(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	l.TakeOffline()
	if _, err := ca.RenewServer(l.Dir, ca.RenewOptions{}); err != nil {
		t.Errorf("renew: %v", err)
	}
	fixture.Must(t, l.Gate.Reload())
	h := l.Join("lab-02", false, time.Now())
	h.WantAccess("lab-02 mtls")
	list, err := revocation.RevokeHost(l.Dir, "lab-02", time.Now(), pki.RecordsIn(l.Identity))
	if err != nil || len(list) != 1 || list[0].State != pki.Revoked {
		t.Errorf("revoke: %+v, %v", list, err)
	}
	fixture.Must(t, l.Gate.Reload())
	h.WantRefusedOnSameConnection(403)
	if _, err := ca.RenewServer(l.Dir, ca.RenewOptions{Names: []string{"other.lab"}}); err == nil || !strings.Contains(err.Error(), "key of the root is needed") {
		t.Errorf("renew for another name: %v", err)
	}
}

func TestOfflinePKIHasNoIssuingCA(t *testing.T) {
	dir, identity := t.TempDir(), filepath.Join(t.TempDir(), "identity")
	fixture.Must(t, ca.Init(dir, ca.InitOptions{Names: []string{"localhost"}, Offline: true}))
	if found, _ := filepath.Glob(filepath.Join(dir, "*issuing*")); len(found) > 0 {
		t.Errorf("got %v", found)
	}
	fixture.Must(t, pki.CreateIdentityDir(identity))
	if _, err := ca.InstallIssuing(dir, identity); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("got %v, want %v", err, pki.ErrNoIssuing)
	}
	if _, err := gate.OpenIssuer(identity); !errors.Is(err, pki.ErrNoIssuing) {
		t.Errorf("got %v, want %v", err, pki.ErrNoIssuing)
	}
	for _, do := range []func() error{
		func() error { _, err := ca.RenewServer(dir, ca.RenewOptions{}); return err },
		func() error { _, err := ca.IssueHost(dir, "lab-01", t.TempDir(), ca.IssueOptions{}); return err },
		func() error { _, err := revocation.RevokeHost(dir, "lab-01", time.Now()); return err },
	} {
		fixture.Must(t, do())
	}
}

// Hosts have certificates of the one that is there.
func TestIssuingCAIsNeverReplaced(t *testing.T) {
	l := pkitest.NewJoinLab(t)
	if changed, err := ca.InstallIssuing(l.Dir, l.Identity); err != nil || changed {
		t.Errorf("the same one: %v, %v", changed, err)
	}
	other := t.TempDir()
	fixture.Must(t, ca.Init(other, ca.InitOptions{Names: []string{"localhost"}}))
	before := pkitest.ReadFile(t, filepath.Join(l.Identity, "hosts-issuing.pem"))
	if _, err := ca.InstallIssuing(other, l.Identity); err == nil {
		t.Error("another one: no error")
	}
	if string(pkitest.ReadFile(t, filepath.Join(l.Identity, "hosts-issuing.pem"))) != string(before) {
		t.Error("it was replaced")
	}
}
