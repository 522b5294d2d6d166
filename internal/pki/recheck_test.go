package pki_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// requestWith returns a request of a caller with a token and certificates.
func requestWith(token string, certs ...*x509.Certificate) *http.Request {
	r := &http.Request{TLS: &tls.ConnectionState{PeerCertificates: certs}, Header: http.Header{}}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r
}

func TestRecheckSeesTheEndOfAnIssuingCA(t *testing.T) {
	root := newAuthority(t)
	issuing := root.signCertificate(&x509.Certificate{
		SerialNumber: root.cert.SerialNumber, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * time.Minute),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, root.key)
	host := authority{t, issuing.Leaf, root.key}.signCertificate(template(t, "spiffe://"+domain+"/host/lab-01"), nil)
	l := newLab(t, func(c *pki.Config) { c.CRLFile = "" })
	writeFile(t, l.path("hosts-ca.crt"), encodeCertificate(root.cert))
	fixture.Must(t, l.gate.Reload())
	c, err := l.gate.IdentifyCaller(requestWith("", host.Leaf, issuing.Leaf))
	fixture.Must(t, err)
	if !c.AccessEnds.Equal(issuing.Leaf.NotAfter) || !c.NotAfter.Equal(host.Leaf.NotAfter) {
		t.Errorf("access ends at %v, the certificate at %v; want %v and %v", c.AccessEnds, c.NotAfter, issuing.Leaf.NotAfter, host.Leaf.NotAfter)
	}
	l.late.Store(int64(29 * time.Minute))
	if c, err = l.gate.RecheckCaller(c); err != nil || c.Host != "lab-01" {
		t.Errorf("before the end: %+v, %v", c, err)
	}
	l.late.Store(int64(31 * time.Minute))
	if _, err := l.gate.RecheckCaller(c); !errors.Is(err, pki.ErrIdentity) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRecheckSeesWhatAReloadChanged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(l *lab, host episode.Name) error
		want   error
	}{
		"nothing": {func(*lab, episode.Name) error { return nil }, nil},
		"a revocation": {func(l *lab, host episode.Name) error {
			_, err := pki.RevokeHost(l.dir, host, time.Now())
			return err
		}, pki.ErrIdentity},
		"another token": {func(l *lab, host episode.Name) error {
			writeFile(l.t, l.path("tokens"), fmt.Appendf(nil, "%s %x\n", host, sha256.Sum256([]byte("another"))))
			return nil
		}, pki.ErrToken},
		"no token": {func(l *lab, _ episode.Name) error {
			writeFile(l.t, l.path("tokens"), nil)
			return nil
		}, pki.ErrToken},
		"another CA": {func(l *lab, _ episode.Name) error {
			other := l.t.TempDir()
			err := pki.InitCA(other, pki.InitOptions{Names: []string{"other"}})
			writeFile(l.t, l.path("hosts-ca.crt"), readFile(l.t, other+"/hosts-ca.crt"))
			writeFile(l.t, l.path("hosts.crl"), readFile(l.t, other+"/hosts.crl"))
			return err
		}, pki.ErrIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, func(c *pki.Config) {
				c.TokensFile = filepath.Join(filepath.Dir(c.CRLFile), "tokens")
				writeFile(t, c.TokensFile, fmt.Appendf(nil, "lab-01 %x\n", sha256.Sum256([]byte("secret"))))
			})
			out := t.TempDir()
			if _, err := pki.IssueHost(l.dir, "lab-01", out, pki.IssueOptions{}); err != nil {
				t.Fatal(err)
			}
			leaf := loadAuthority(t, out, "lab-01").cert
			c, err := l.gate.IdentifyCaller(requestWith("secret", leaf))
			fixture.Must(t, err)
			fixture.Must(t, test.change(l, "lab-01"))
			fixture.Must(t, l.gate.Reload())
			if _, err := l.gate.RecheckCaller(c); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
