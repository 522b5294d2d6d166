package pki_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// forwardedRequest returns a request that a proxy forwarded, with values of Client-Cert.
func forwardedRequest(values ...string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	for _, v := range values {
		r.Header.Add("Client-Cert", v)
	}
	return r
}

// issueAsText issues a host's certificate, and returns it as PEM.
func issueAsText(t *testing.T, l *lab) string {
	t.Helper()
	out := t.TempDir()
	if _, err := pki.IssueHost(l.dir, "lab-01", out, pki.IssueOptions{}); err != nil {
		t.Fatal(err)
	}
	return string(readFile(t, filepath.Join(out, "lab-01.crt")))
}

func TestProxyIsBelievedNothingButTheKey(t *testing.T) {
	l := newLab(t, nil)
	pem := issueAsText(t, l)
	der := func(c []byte) string { return ":" + base64.StdEncoding.EncodeToString(c) + ":" }
	host := loadAuthority(t, l.dir, "hosts-ca")
	good := host.signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil)
	foreign := newAuthority(t)
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
		"a key":           {[]string{url.PathEscape(string(readFile(t, l.path("hosts-ca.key"))))}, ""},
		"of a foreign CA": {[]string{der(foreign.signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil).Certificate[0])}, ""},
		"a server's":      {[]string{url.PathEscape(string(readFile(t, l.path("server.crt"))))}, ""},
		"another domain":  {[]string{der(host.signCertificate(template(t, "spiffe://else.where/host/lab-01"), nil).Certificate[0])}, ""},
	} {
		caller, err := l.gate.IdentifyForwarded(forwardedRequest(c.values...), "Client-Cert")
		if string(caller.Host) != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: host %q, %v, want %q", what, caller.Host, err, c.want)
		}
		if err != nil && !errors.Is(err, pki.ErrIdentity) {
			t.Errorf("%s: %v, want an ErrIdentity", what, err)
		}
	}
}

func TestRevocationAndExpiryReachThroughAProxy(t *testing.T) {
	l := newLab(t, nil)
	r := forwardedRequest(url.PathEscape(issueAsText(t, l)))
	if c, err := l.gate.IdentifyForwarded(r, "Client-Cert"); err != nil || c.Method != "proxy" {
		t.Fatalf("got %+v, %v, want Method %q", c, err, "proxy")
	}
	l.late.Store(int64(pki.DefaultLeafValid + time.Hour))
	if _, err := l.gate.IdentifyForwarded(r, "Client-Cert"); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("expired: %v", err)
	}
	l.late.Store(0)
	if _, err := pki.RevokeHost(l.dir, "lab-01", time.Now()); err != nil {
		t.Fatal(err)
	}
	fixture.Must(t, l.gate.Reload())
	if _, err := l.gate.IdentifyForwarded(r, "Client-Cert"); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("revoked: %v", err)
	}
}

// A field that the caller sends to the receiver's own port says nothing.
func TestDirectCallerCannotForward(t *testing.T) {
	l := newLab(t, nil)
	if c, err := l.gate.IdentifyCaller(forwardedRequest(url.PathEscape(issueAsText(t, l)))); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("got %+v, %v, want %v", c, err, pki.ErrIdentity)
	}
}
