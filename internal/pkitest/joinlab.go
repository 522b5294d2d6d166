package pkitest

import (
	"crypto/tls"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/hostrecord"
	"cis490/internal/pki"
)

// JoinProtocol is the ALPN name of joining: see package wire, which this one does not import.
const JoinProtocol = "cis490-join/1"

// Day is a day of 24 hours.
const Day = 24 * time.Hour

// JoinLab is a lab whose receiver lets hosts join while Open is true.
type JoinLab struct {
	*Lab
	Identity string
	Issuer   *gate.Issuer
	Records  *hostrecord.Records
	Open     atomic.Bool
}

// NewJoinLab starts a receiver whose identity directory has the issuing CAs.
func NewJoinLab(t testing.TB) *JoinLab {
	t.Helper()
	j := &JoinLab{Identity: filepath.Join(t.TempDir(), "identity")}
	j.Lab = New(t, func(c *gate.Config) {
		fixture.Must(t, pki.CreateIdentityDir(j.Identity))
		if changed, err := ca.InstallIssuing(filepath.Dir(c.CertFile), j.Identity); err != nil || !changed {
			t.Fatalf("InstallIssuing: %v, %v", changed, err)
		}
		c.IdentityDir = j.Identity
	})
	var err error
	j.Issuer, err = gate.OpenIssuer(j.Identity)
	fixture.Must(t, err)
	j.Reopen()
	return j
}

// Reopen starts the receiver again.
func (j *JoinLab) Reopen() {
	j.T.Helper()
	var err error
	j.Records, err = hostrecord.Open(j.Identity, slog.New(slog.DiscardHandler))
	fixture.Must(j.T, err)
	j.T.Cleanup(func() { j.Records.Close() })
	j.Gate, err = gate.Open(j.Config)
	fixture.Must(j.T, err)
	j.Gate.UseRecords(j.Records)
	j.Gate.ServeJoin(gate.JoinDoor{Protocol: JoinProtocol, IsOpen: j.Open.Load})
	j.serve()
}

// Dial opens a connection to join.
func (j *JoinLab) Dial(now time.Time) (net.Conn, error) {
	conn, _, err := credentials.DialJoin(j.T.Context(), (&net.Dialer{}).DialContext, j.Addr, JoinProtocol, j.Issuer.RootHash(), now)
	return conn, err
}

// Joined is a host with a certificate by joining.
type Joined struct {
	*Caller
	Identity string
	Issued   pki.Issued
}

// Join lets a host join at a time.
func (j *JoinLab) Join(host episode.Name, again bool, now time.Time) Joined {
	j.T.Helper()
	h := Joined{Identity: filepath.Join(j.T.TempDir(), "identity")}
	pending, err := credentials.OpenPending(h.Identity, "invitation")
	fixture.Must(j.T, err)
	request, err := gate.ParseRequest(pending.Request)
	fixture.Must(j.T, err)
	h.Issued, err = j.Issuer.SignHost(request, host, now)
	fixture.Must(j.T, err)
	fixture.Must(j.T, j.Records.SetJoined(h.Issued, again))
	chain, err := j.Issuer.Chain(h.Issued.Serial)
	fixture.Must(j.T, err)
	_, err = pending.Install(host, chain, LoadCertificate(j.T, j.Path("ca.crt")))
	fixture.Must(j.T, err)
	client, err := credentials.Load(credentials.Config{IdentityDir: h.Identity, Host: host})
	fixture.Must(j.T, err)
	h.Caller = j.NewCaller(client.TLSConfig())
	return h
}

// LoadJoined returns the client of a host that has joined.
func LoadJoined(t testing.TB, h Joined) *credentials.Client {
	t.Helper()
	client, err := credentials.Load(credentials.Config{IdentityDir: h.Identity, Host: h.Issued.Host})
	fixture.Must(t, err)
	return client
}

// Note makes a request as the receiver serves it: admitted, and then noted.
func (j *JoinLab) Note(h Joined) error {
	j.T.Helper()
	c, err := j.Identify(h)
	if err == nil {
		_ = j.Records.NoteContact(c.Host, c.Certificate(), j.Gate.Now()) // it counts also if it cannot be written
	}
	return err
}

// Identify asks the gate about a request of a host, without noting it.
func (j *JoinLab) Identify(h Joined) (gate.Caller, error) {
	j.T.Helper()
	path := filepath.Join(h.Identity, "host.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	fixture.Must(j.T, err)
	return j.Gate.IdentifyForwarded(ForwardedRequest(":"+base64.StdEncoding.EncodeToString(pair.Leaf.Raw)+":"), "Client-Cert")
}

// Handshake offers protocols without a certificate, and returns the one that was chosen. TLS 1.3
// tells a client of a refused certificate with the first bytes that it reads.
func (j *JoinLab) Handshake(protocols ...string) (string, error) {
	j.T.Helper()
	config := j.ClientTLS(nil)
	config.NextProtos = protocols
	conn, err := tls.Dial("tcp", j.Addr, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, err = conn.Read(make([]byte, 1))
	return conn.ConnectionState().NegotiatedProtocol, err
}

// ParsePending returns the request of a new host.
func ParsePending(t *testing.T) gate.Request {
	t.Helper()
	pending, err := credentials.OpenPending(filepath.Join(t.TempDir(), "identity"), "x")
	fixture.Must(t, err)
	request, err := gate.ParseRequest(pending.Request)
	fixture.Must(t, err)
	return request
}
