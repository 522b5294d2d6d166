package gate_test

import (
	"encoding/base64"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/gate"
	"cis490/internal/pki"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
)

// issueAsText issues a host's certificate, and returns it as PEM.
func issueAsText(t *testing.T, l *pkitest.Lab) string {
	t.Helper()
	out := t.TempDir()
	if _, err := ca.IssueHost(l.Dir, "lab-01", out, ca.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	return string(pkitest.ReadFile(t, filepath.Join(out, "lab-01.crt")))
}

func TestProxyIsBelievedNothingButTheKey(t *testing.T) {
	l := pkitest.New(t, nil)
	pem := issueAsText(t, l)
	der := func(c []byte) string { return ":" + base64.StdEncoding.EncodeToString(c) + ":" }
	host := pkitest.LoadAuthority(t, l.Dir, "hosts-ca")
	good := host.Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil)
	foreign := pkitest.NewAuthority(t)
	for what, c := range map[string]struct {
		values []string
		want   string // host, or "" if it is refused
	}{
		"RFC 9440":        {[]string{der(good.Certificate[0])}, "lab-01"},
		"nginx":           {[]string{url.PathEscape(pem)}, "lab-01"},
		"none":            {nil, ""},
		"twice":           {[]string{der(good.Certificate[0]), der(good.Certificate[0])}, ""},
		"empty":           {[]string{""}, ""},
		"no end":          {[]string{strings.TrimSuffix(der(good.Certificate[0]), ":")}, ""},
		"no base64":       {[]string{":?:"}, ""},
		"no certificate":  {[]string{der([]byte("x"))}, ""},
		"bad escape":      {[]string{"%zz"}, ""},
		"two in one":      {[]string{url.PathEscape(pem + pem)}, ""},
		"a key":           {[]string{url.PathEscape(string(pkitest.ReadFile(t, l.Path("hosts-ca.key"))))}, ""},
		"of a foreign CA": {[]string{der(foreign.Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil).Certificate[0])}, ""},
		"a server's":      {[]string{url.PathEscape(string(pkitest.ReadFile(t, l.Path("server.crt"))))}, ""},
		"another domain":  {[]string{der(host.Sign(pkitest.HostTemplate(t, "spiffe://else.where/host/lab-01"), nil).Certificate[0])}, ""},
	} {
		caller, err := l.Gate.IdentifyForwarded(pkitest.ForwardedRequest(c.values...), "Client-Cert")
		if string(caller.Host) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: host %q, %v, want %q", what, caller.Host, err, c.want)
		}
		if err != nil && !errors.Is(err, gate.ErrIdentity) {
			t.Errorf("%s: %v, want an ErrIdentity", what, err)
		}
	}
}

func TestRevocationAndExpiryReachThroughAProxy(t *testing.T) {
	l := pkitest.New(t, nil)
	r := pkitest.ForwardedRequest(url.PathEscape(issueAsText(t, l)))
	if c, err := l.Gate.IdentifyForwarded(r, "Client-Cert"); err != nil || c.Method != "proxy" {
		t.Fatalf("got %+v, %v, want Method %q", c, err, "proxy")
	}
	l.Late.Store(int64(pki.DefaultLeafValid + time.Hour))
	if _, err := l.Gate.IdentifyForwarded(r, "Client-Cert"); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("expired: %v", err)
	}
	l.Late.Store(0)
	if _, err := revocation.RevokeHost(l.Dir, "lab-01", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Gate.IdentifyForwarded(r, "Client-Cert"); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("revoked: %v", err)
	}
}

// A field that a caller sends to the receiver's own port has no effect.
func TestDirectCallerCannotForward(t *testing.T) {
	l := pkitest.New(t, nil)
	if c, err := l.Gate.IdentifyCaller(pkitest.ForwardedRequest(url.PathEscape(issueAsText(t, l)))); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("got %+v, %v, want %v", c, err, gate.ErrIdentity)
	}
}
