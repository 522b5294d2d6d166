package pki_test

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// credentials issues a certificate into a new directory.
func credentials(t testing.TB, dir, host string) pki.ClientConfig {
	t.Helper()
	out := t.TempDir()
	if _, err := pki.IssueHost(dir, mustName(t, host), out, pki.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	return pki.ClientConfig{
		CAFile:   filepath.Join(out, "ca.crt"),
		CertFile: filepath.Join(out, host+".crt"), KeyFile: filepath.Join(out, host+".key"),
	}
}

func loadClient(t testing.TB, c pki.ClientConfig) *pki.Client {
	t.Helper()
	client, err := pki.LoadClient(c)
	fixture.Must(t, err)
	return client
}

// newShipperCaller returns a caller that dials as a shipper does.
func (l *lab) newShipperCaller(client *pki.Client) *caller {
	var dialer net.Dialer
	return l.newCallerBy(client.DialTLS(dialer.DialContext))
}

func TestClientTrustsItsOwnCAOnly(t *testing.T) {
	l := newLab(t, nil)
	config := credentials(t, l.dir, "lab-01")
	writeFile(t, config.CAFile, readFile(t, filepath.Join(createCAs(t), "ca.crt")))
	client := loadClient(t, config)
	for name, c := range map[string]*caller{"TLS": l.newCaller(client.TLSConfig()), "DialTLS": l.newShipperCaller(client)} {
		if r := c.call(); r.err == nil {
			t.Errorf("%s: got %d; want the receiver refused", name, r.status)
		}
	}
	if n := l.served.Load(); n != 0 {
		t.Errorf("%d requests were made; want 0", n)
	}
}

func TestClientChecksTheReceiversName(t *testing.T) {
	l := newLab(t, nil)
	if _, err := pki.RenewServer(l.dir, pki.RenewOptions{Names: []string{"localhost", "10.1.1.1"}}); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.gate.Reload())
	client := loadClient(t, credentials(t, l.dir, "lab-01"))
	for name, c := range map[string]*caller{"TLS": l.newCaller(client.TLSConfig()), "DialTLS": l.newShipperCaller(client)} {
		if r := c.call(); r.err == nil || !strings.Contains(r.err.Error(), "127.0.0.1") {
			t.Errorf("%s: got %d, %v; want the name refused", name, r.status, r.err)
		}
	}
}

func TestClientReloadReachesALivingTransport(t *testing.T) {
	l := newLab(t, nil)
	config := credentials(t, l.dir, "lab-01")
	goodCA, otherCA := readFile(t, config.CAFile), readFile(t, filepath.Join(createCAs(t), "ca.crt"))
	client := loadClient(t, config)
	c, plain := l.newShipperCaller(client), l.newCaller(client.TLSConfig())
	c.wantAccess("lab-01 mtls")

	next := credentials(t, l.dir, "lab-02")
	writeFile(t, config.CertFile, readFile(t, next.CertFile))
	if err := client.Reload(); err == nil {
		t.Error("a certificate with another's key was taken")
	}
	c.hangUp()
	c.wantAccess("lab-01 mtls")

	writeFile(t, config.KeyFile, readFile(t, next.KeyFile))
	fixture.Must(t, client.Reload())
	c.hangUp()
	c.wantAccess("lab-02 mtls")
	plain.wantAccess("lab-02 mtls") // the certificate, though not the CAs, reaches this one too

	writeFile(t, config.CAFile, otherCA)
	fixture.Must(t, client.Reload())
	c.hangUp()
	if r := c.call(); r.err == nil {
		t.Error("a receiver of the CA before was trusted")
	}
	writeFile(t, config.CAFile, goodCA)
	fixture.Must(t, client.Reload())
	c.wantAccess("lab-02 mtls")
}

func TestClientShowsItsCertificateToAnyReceiver(t *testing.T) {
	l := newLab(t, func(c *pki.Config) { c.CRLFile = "" })
	client := loadClient(t, credentials(t, l.dir, "lab-01"))
	writeFile(t, l.path("hosts-ca.crt"), encodeCertificate(newAuthority(t).cert))
	fixture.Must(t, l.gate.Reload())
	r := l.newShipperCaller(client).call()
	// "certificate required" would send a person looking for a missing file.
	if r.err == nil || strings.Contains(r.err.Error(), "required") {
		t.Errorf("got %d, %v; want the certificate refused, not missed", r.status, r.err)
	}
}

func TestTokenFileHoldsOneWord(t *testing.T) {
	dir := createCAs(t)
	config := credentials(t, dir, "lab-01")
	if got := loadClient(t, config).Token(); got != "" {
		t.Errorf("without a file: got %q", got)
	}
	config.TokenFile = filepath.Join(t.TempDir(), "token")
	writeFile(t, config.TokenFile, []byte(" secret\r\n"))
	client := loadClient(t, config)
	if got := client.Token(); got != "secret" {
		t.Errorf("got %q; want it trimmed", got)
	}
	for _, bad := range []string{"", " \n", "two words", "a\nb", "a\x00", "h\u00e9", strings.Repeat("x", 5000)} {
		writeFile(t, config.TokenFile, []byte(bad))
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
	dir := createCAs(t)
	config := credentials(t, dir, "lab-01")
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
		err := client.CheckValidity(mustName(t, c.host), c.now)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want %q", c.name, err, c.want)
		}
	}
	if id, err := client.ID(); err != nil || id != (pki.ID{TrustDomain: domain, Host: "lab-01"}) {
		t.Errorf("got %+v, %v", id, err)
	}
	server := loadClient(t, pki.ClientConfig{
		CAFile:   config.CAFile,
		CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key"),
	})
	if err := server.CheckValidity("lab-01", now); err == nil {
		t.Error("the receiver's certificate passed for a host's")
	}
}

// TestRefreshReportsWhatIsNew: who was refused asks whether there is anything else to show
// or to trust.
func TestRefreshReportsWhatIsNew(t *testing.T) {
	l := newLab(t, nil)
	config := credentials(t, l.dir, "lab-01")
	config.TokenFile = filepath.Join(t.TempDir(), "token")
	writeFile(t, config.TokenFile, []byte("one"))
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
	next := credentials(t, l.dir, "lab-01")
	writeFile(t, config.CertFile, readFile(t, next.CertFile))
	if changed, err := client.ReloadIfChanged(); changed || err == nil || !client.NotAfter().Equal(before) {
		t.Errorf("a certificate without its key: %t, %v", changed, err)
	}
	writeFile(t, config.KeyFile, readFile(t, next.KeyFile))
	refreshed("another certificate", true)
	writeFile(t, config.TokenFile, []byte("two"))
	refreshed("another token", true)
	if got := client.Token(); got != "two" {
		t.Errorf("the token is %q", got)
	}
	writeFile(t, config.CAFile, append(readFile(t, config.CAFile), readFile(t, filepath.Join(createCAs(t), "ca.crt"))...))
	refreshed("another CA", true)
}
