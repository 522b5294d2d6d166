package credentials_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
)

// issueFiles issues a certificate into a new directory.
func issueFiles(t testing.TB, dir, host string) credentials.Config {
	t.Helper()
	out := t.TempDir()
	if _, err := ca.IssueHost(dir, pkitest.MustName(t, host), out, ca.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	return credentials.Config{
		CAFile:   filepath.Join(out, "ca.crt"),
		CertFile: filepath.Join(out, host+".crt"), KeyFile: filepath.Join(out, host+".key"),
	}
}

func loadClient(t testing.TB, c credentials.Config) *credentials.Client {
	t.Helper()
	client, err := credentials.Load(c)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestClientTrustsItsOwnCAOnly(t *testing.T) {
	l := pkitest.New(t, nil)
	config := issueFiles(t, l.Dir, "lab-01")
	pkitest.WriteFile(t, config.CAFile, pkitest.ReadFile(t, filepath.Join(pkitest.CreateCAs(t), "ca.crt")))
	client := loadClient(t, config)
	for name, c := range map[string]*pkitest.Caller{"TLS": l.NewCaller(client.TLSConfig()), "DialTLS": l.NewShipperCaller(client)} {
		if r := c.Call(); r.Err == nil {
			t.Errorf("%s: got %d; want the receiver refused", name, r.Status)
		}
	}
	if n := l.Served.Load(); n != 0 {
		t.Errorf("%d requests were made; want 0", n)
	}
}

func TestClientChecksTheReceiversName(t *testing.T) {
	l := pkitest.New(t, nil)
	if _, err := ca.RenewServer(l.Dir, ca.RenewOptions{Names: []string{"localhost", "10.1.1.1"}}); err != nil {
		t.Fatal(err)
	}
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	client := loadClient(t, issueFiles(t, l.Dir, "lab-01"))
	for name, c := range map[string]*pkitest.Caller{"TLS": l.NewCaller(client.TLSConfig()), "DialTLS": l.NewShipperCaller(client)} {
		if r := c.Call(); r.Err == nil || !strings.Contains(r.Err.Error(), "127.0.0.1") {
			t.Errorf("%s: got %d, %v; want the name refused", name, r.Status, r.Err)
		}
	}
}

func TestClientReloadReachesALivingTransport(t *testing.T) {
	l := pkitest.New(t, nil)
	config := issueFiles(t, l.Dir, "lab-01")
	goodCA, otherCA := pkitest.ReadFile(t, config.CAFile), pkitest.ReadFile(t, filepath.Join(pkitest.CreateCAs(t), "ca.crt"))
	client := loadClient(t, config)
	c, plain := l.NewShipperCaller(client), l.NewCaller(client.TLSConfig())
	c.WantAccess("lab-01 mtls")

	next := issueFiles(t, l.Dir, "lab-02")
	pkitest.WriteFile(t, config.CertFile, pkitest.ReadFile(t, next.CertFile))
	if err := client.Reload(); err == nil {
		t.Error("a certificate with another's key was taken")
	}
	c.HangUp()
	c.WantAccess("lab-01 mtls")

	pkitest.WriteFile(t, config.KeyFile, pkitest.ReadFile(t, next.KeyFile))
	if err := client.Reload(); err != nil {
		t.Fatal(err)
	}
	c.HangUp()
	c.WantAccess("lab-02 mtls")
	plain.WantAccess("lab-02 mtls") // the certificate, though not the CAs, reaches this one too

	pkitest.WriteFile(t, config.CAFile, otherCA)
	if err := client.Reload(); err != nil {
		t.Fatal(err)
	}
	c.HangUp()
	if r := c.Call(); r.Err == nil {
		t.Error("a receiver of the CA before was trusted")
	}
	pkitest.WriteFile(t, config.CAFile, goodCA)
	if err := client.Reload(); err != nil {
		t.Fatal(err)
	}
	c.WantAccess("lab-02 mtls")
}

func TestClientShowsItsCertificateToAnyReceiver(t *testing.T) {
	l := pkitest.New(t, func(c *gate.Config) { c.CRLFile = "" })
	client := loadClient(t, issueFiles(t, l.Dir, "lab-01"))
	pkitest.WriteFile(t, l.Path("hosts-ca.crt"), pkitest.EncodeCertificate(pkitest.NewAuthority(t).Cert))
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	r := l.NewShipperCaller(client).Call()
	// "certificate required" would make operators look for a missing file.
	if r.Err == nil || strings.Contains(r.Err.Error(), "required") {
		t.Errorf("got %d, %v; want the certificate refused, not missed", r.Status, r.Err)
	}
}

func TestTokenFileHoldsOneWord(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	config := issueFiles(t, dir, "lab-01")
	if got := loadClient(t, config).Token(); got != "" {
		t.Errorf("without a file: got %q", got)
	}
	config.TokenFile = filepath.Join(t.TempDir(), "token")
	pkitest.WriteFile(t, config.TokenFile, []byte(" secret\r\n"))
	client := loadClient(t, config)
	if got := client.Token(); got != "secret" {
		t.Errorf("got %q; want it trimmed", got)
	}
	for _, bad := range []string{"", " \n", "two words", "a\nb", "a\x00", "h\u00e9", strings.Repeat("x", 5000)} {
		pkitest.WriteFile(t, config.TokenFile, []byte(bad))
		err := client.Reload()
		if err == nil || client.Token() != "secret" {
			t.Errorf("%.20q: got %v, token %q; want an error and the token before", bad, err, client.Token())
		}
		if err != nil && len(bad) > 2 && strings.Contains(err.Error(), bad) {
			t.Errorf("%.20q: the error tells the token", bad)
		}
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	dir := pkitest.CreateCAs(t)
	config := issueFiles(t, dir, "lab-01")
	client := loadClient(t, config)
	now := time.Now()
	for _, c := range []struct {
		name string
		host string
		now  time.Time
		want string
	}{
		{"right", "lab-01", now, ""},
		{"other host", "lab-02", now, "is for host lab-01"},
		{"expired", "lab-01", client.NotAfter().Add(time.Second), "expired"},
		{"not yet valid", "lab-01", now.Add(-2 * time.Hour), "check the clock"},
	} {
		err := client.CheckValidity(pkitest.MustName(t, c.host), c.now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want %q", c.name, err, c.want)
		}
	}
	if id, err := client.ID(); err != nil || id != (pki.ID{TrustDomain: pkitest.Domain, Host: "lab-01"}) {
		t.Errorf("got %+v, %v", id, err)
	}
	server := loadClient(t, credentials.Config{
		CAFile:   config.CAFile,
		CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"),
	})
	if err := server.CheckValidity("lab-01", now); err == nil {
		t.Error("the receiver's certificate passed for a host's")
	}
}

// TestRefreshReportsWhatIsNew: a refused client asks whether there are other credentials or
// CAs.
func TestRefreshReportsWhatIsNew(t *testing.T) {
	l := pkitest.New(t, nil)
	config := issueFiles(t, l.Dir, "lab-01")
	config.TokenFile = filepath.Join(t.TempDir(), "token")
	pkitest.WriteFile(t, config.TokenFile, []byte("one"))
	client := loadClient(t, config)
	refreshed := func(what string, want bool) {
		t.Helper()
		if changed, err := client.ReloadIfChanged(); changed != want || err != nil {
			t.Errorf("%s: %t, %v; want %t", what, changed, err, want)
		}
		if changed, err := client.ReloadIfChanged(); changed || err != nil {
			t.Errorf("%s, once more: %t, %v", what, changed, err)
		}
	}
	refreshed("nothing new", false)
	before := client.NotAfter()
	next := issueFiles(t, l.Dir, "lab-01")
	pkitest.WriteFile(t, config.CertFile, pkitest.ReadFile(t, next.CertFile))
	if changed, err := client.ReloadIfChanged(); changed || err == nil || !client.NotAfter().Equal(before) {
		t.Errorf("a certificate without its key: %t, %v", changed, err)
	}
	pkitest.WriteFile(t, config.KeyFile, pkitest.ReadFile(t, next.KeyFile))
	refreshed("another certificate", true)
	pkitest.WriteFile(t, config.TokenFile, []byte("two"))
	refreshed("another token", true)
	if got := client.Token(); got != "two" {
		t.Errorf("the token is %q", got)
	}
	pkitest.WriteFile(t, config.CAFile, append(pkitest.ReadFile(t, config.CAFile), pkitest.ReadFile(t, filepath.Join(pkitest.CreateCAs(t), "ca.crt"))...))
	refreshed("another CA", true)
}
