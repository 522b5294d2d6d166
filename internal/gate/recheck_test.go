package gate_test

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

	"cis490/internal/ca"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/pkitest"
	"cis490/internal/revocation"
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
	root := pkitest.NewAuthority(t)
	issuing := root.Sign(&x509.Certificate{
		SerialNumber: root.Cert.SerialNumber, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * time.Minute),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}, root.Key)
	host := pkitest.Authority{T: t, Cert: issuing.Leaf, Key: root.Key}.Sign(pkitest.HostTemplate(t, "spiffe://"+pkitest.Domain+"/host/lab-01"), nil)
	l := pkitest.New(t, func(c *gate.Config) { c.CRLFile = "" })
	pkitest.WriteFile(t, l.Path("hosts-ca.crt"), pkitest.EncodeCertificate(root.Cert))
	if err := l.Gate.Reload(); err != nil {
		t.Fatal(err)
	}
	c, err := l.Gate.IdentifyCaller(requestWith("", host.Leaf, issuing.Leaf))
	if err != nil {
		t.Fatal(err)
	}
	if !c.AccessEnds.Equal(issuing.Leaf.NotAfter) || !c.NotAfter.Equal(host.Leaf.NotAfter) {
		t.Errorf("access ends at %v, the certificate at %v; want %v and %v", c.AccessEnds, c.NotAfter, issuing.Leaf.NotAfter, host.Leaf.NotAfter)
	}
	l.Late.Store(int64(29 * time.Minute))
	if c, err = l.Gate.RecheckCaller(c); err != nil || c.Host != "lab-01" {
		t.Errorf("before the end: %+v, %v", c, err)
	}
	l.Late.Store(int64(31 * time.Minute))
	if _, err := l.Gate.RecheckCaller(c); !errors.Is(err, gate.ErrIdentity) {
		t.Errorf("after the end: %v", err)
	}
}

func TestRecheckSeesWhatAReloadChanged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(l *pkitest.Lab, host episode.Name) error
		want   error
	}{
		"nothing": {func(*pkitest.Lab, episode.Name) error { return nil }, nil},
		"a revocation": {func(l *pkitest.Lab, host episode.Name) error {
			_, err := revocation.RevokeHost(l.Dir, host, time.Now())
			return err
		}, gate.ErrIdentity},
		"another token": {func(l *pkitest.Lab, host episode.Name) error {
			pkitest.WriteFile(l.T, l.Path("tokens"), fmt.Appendf(nil, "%s %x\n", host, sha256.Sum256([]byte("another"))))
			return nil
		}, gate.ErrToken},
		"no token": {func(l *pkitest.Lab, _ episode.Name) error {
			pkitest.WriteFile(l.T, l.Path("tokens"), nil)
			return nil
		}, gate.ErrToken},
		"another CA": {func(l *pkitest.Lab, _ episode.Name) error {
			other := l.T.TempDir()
			err := ca.Init(other, ca.InitOptions{Names: []string{"other"}})
			pkitest.WriteFile(l.T, l.Path("hosts-ca.crt"), pkitest.ReadFile(l.T, other+"/hosts-ca.crt"))
			pkitest.WriteFile(l.T, l.Path("hosts.crl"), pkitest.ReadFile(l.T, other+"/hosts.crl"))
			return err
		}, gate.ErrIdentity},
	} {
		t.Run(name, func(t *testing.T) {
			l := pkitest.New(t, func(c *gate.Config) {
				c.TokensFile = filepath.Join(filepath.Dir(c.CRLFile), "tokens")
				pkitest.WriteFile(t, c.TokensFile, fmt.Appendf(nil, "lab-01 %x\n", sha256.Sum256([]byte("secret"))))
			})
			out := t.TempDir()
			if _, err := ca.IssueHost(l.Dir, "lab-01", out, ca.IssueOptions{}); err != nil {
				t.Fatal(err)
			}
			leaf := pkitest.LoadAuthority(t, out, "lab-01").Cert
			c, err := l.Gate.IdentifyCaller(requestWith("secret", leaf))
			if err != nil {
				t.Fatal(err)
			}
			if err := test.change(l, "lab-01"); err != nil {
				t.Fatal(err)
			}
			if err := l.Gate.Reload(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Gate.RecheckCaller(c); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}
