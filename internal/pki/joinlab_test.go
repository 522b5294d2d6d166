package pki_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/pki"
)

// joinProtocol is the ALPN name of joining: see package wire, which this one does not import.
const joinProtocol = "cis490-join/1"

// joinLab is a lab whose receiver lets hosts join while open is true.
type joinLab struct {
	*lab
	identity string
	issuer   *pki.Issuer
	records  *pki.HostRecords
	open     atomic.Bool
}

func newJoinLab(t testing.TB) *joinLab {
	t.Helper()
	j := &joinLab{identity: filepath.Join(t.TempDir(), "identity")}
	j.lab = newLab(t, func(c *pki.Config) {
		fixture.Must(t, pki.CreateIdentityDir(j.identity))
		if changed, err := pki.InstallIssuing(filepath.Dir(c.CertFile), j.identity); err != nil || !changed {
			t.Fatalf("InstallIssuing: %v, %v", changed, err)
		}
		c.IdentityDir = j.identity
	})
	var err error
	j.issuer, err = pki.OpenIssuer(j.identity)
	fixture.Must(t, err)
	j.reopen()
	return j
}

// reopen starts the receiver again.
func (j *joinLab) reopen() {
	j.t.Helper()
	var err error
	j.records, err = pki.OpenHostRecords(j.identity, slog.New(slog.DiscardHandler))
	fixture.Must(j.t, err)
	j.t.Cleanup(func() { j.records.Close() })
	j.gate, err = pki.Open(j.config)
	fixture.Must(j.t, err)
	j.gate.UseRecords(j.records)
	j.gate.ServeJoin(pki.JoinDoor{Protocol: joinProtocol, IsOpen: j.open.Load})
	j.serve()
}

// dial opens a connection to join.
func (j *joinLab) dial(now time.Time) (net.Conn, error) {
	conn, _, err := pki.DialJoin(j.t.Context(), (&net.Dialer{}).DialContext, j.addr, joinProtocol, j.issuer.RootHash(), now)
	return conn, err
}

// joined is a host with a certificate by joining.
type joined struct {
	*caller
	identity string
	issued   pki.Issued
}

// join lets a host join at a time.
func (j *joinLab) join(host episode.Name, again bool, now time.Time) joined {
	j.t.Helper()
	h := joined{identity: filepath.Join(j.t.TempDir(), "identity")}
	pending, err := pki.OpenPending(h.identity, "invitation")
	fixture.Must(j.t, err)
	request, err := pki.ParseRequest(pending.Request)
	fixture.Must(j.t, err)
	h.issued, err = j.issuer.SignHost(request, host, now)
	fixture.Must(j.t, err)
	fixture.Must(j.t, j.records.SetJoined(h.issued, again))
	chain, err := j.issuer.Chain(h.issued.Serial)
	fixture.Must(j.t, err)
	_, err = pending.Install(host, chain, loadCertificate(j.t, j.path("ca.crt")))
	fixture.Must(j.t, err)
	client, err := pki.LoadClient(pki.ClientConfig{IdentityDir: h.identity, Host: host})
	fixture.Must(j.t, err)
	h.caller = j.newCaller(client.TLSConfig())
	return h
}

// note makes a request as the receiver serves it: admitted, and then noted.
func (j *joinLab) note(h joined) error {
	j.t.Helper()
	c, err := j.identify(h)
	if err == nil {
		_ = j.records.NoteContact(c.Host, c.Certificate(), j.gate.Now()) // it counts also if it cannot be written
	}
	return err
}

// identify asks the gate about a request of a host, without noting it.
func (j *joinLab) identify(h joined) (pki.Caller, error) {
	j.t.Helper()
	path := filepath.Join(h.identity, "host.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	fixture.Must(j.t, err)
	return j.gate.IdentifyForwarded(forwardedRequest(":"+base64.StdEncoding.EncodeToString(pair.Leaf.Raw)+":"), "Client-Cert")
}

func loadCertificate(t testing.TB, path string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(readFile(t, path))
	cert, err := x509.ParseCertificate(block.Bytes)
	fixture.Must(t, err)
	return cert
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
