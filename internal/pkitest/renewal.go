package pkitest

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"cis490/internal/ca"
	"cis490/internal/credentials"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/gate"
	"cis490/internal/rotation"
	"cis490/internal/serviceuser"
)

// OpenRenewal opens the request for the next certificate of a client.
func OpenRenewal(t *testing.T, c *credentials.Client) *credentials.Renewal {
	t.Helper()
	r, err := c.OpenRenewal(t.Context())
	fixture.Must(t, err)
	return r
}

// Answer signs a request for renewal as the receiver does.
func (j *JoinLab) Answer(r *credentials.Renewal, host episode.Name, now time.Time) []byte {
	j.T.Helper()
	request, err := gate.ParseRequest(r.Request)
	fixture.Must(j.T, err)
	issued, err := j.Issuer.SignHost(request, host, now)
	fixture.Must(j.T, err)
	fixture.Must(j.T, j.Records.SetRenewed(issued, request.KeySHA256))
	chain, err := j.Issuer.Chain(issued.Serial)
	fixture.Must(j.T, err)
	return chain
}

// ReceiverCertificate returns the certificate that a host which trusts the root gets.
func (j *JoinLab) ReceiverCertificate() *x509.Certificate {
	j.T.Helper()
	config := LoadJoined(j.T, j.Join("lab-01", false, time.Now())).TLSConfig()
	config.ServerName = "localhost"
	conn, err := tls.Dial("tcp", j.Addr, config)
	fixture.Must(j.T, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// IssueServer replaces the configured certificate of the receiver.
func (j *JoinLab) IssueServer(o ca.RenewOptions) {
	j.T.Helper()
	_, err := ca.RenewServer(j.Dir, o)
	fixture.Must(j.T, err)
}

// RenewOwn does what the receiver does each hour.
func (j *JoinLab) RenewOwn() (changed bool) {
	j.T.Helper()
	_, err := j.Config.RenewOwn(j.Gate.Now())
	fixture.Must(j.T, err)
	changed, err = j.Gate.UseRenewed()
	fixture.Must(j.T, err)
	return changed
}

// Rotate begins or continues the rotation of a lab, and reloads.
func (j *JoinLab) Rotate() {
	j.T.Helper()
	_, err := rotation.Start(j.Dir, rotation.Options{Service: serviceuser.State{Dir: j.Dir}})
	fixture.Must(j.T, err)
	j.Use()
}

// Finish finishes the rotation of a lab, and reloads.
func (j *JoinLab) Finish() {
	j.T.Helper()
	_, err := rotation.Finish(j.Dir, j.Identity, time.Now())
	fixture.Must(j.T, err)
	j.Use()
}

// Use installs the CAs in the identity directory, and reloads.
func (j *JoinLab) Use() {
	j.T.Helper()
	_, err := ca.ReplaceIssuing(j.Dir, j.Identity)
	fixture.Must(j.T, err)
	fixture.Must(j.T, j.Gate.Reload())
	j.Issuer = j.Gate.Trust().Issuer()
}

// Learn has a host follow the receiver's CAs.
func (j *JoinLab) Learn(h Joined, bundle []byte) error {
	j.T.Helper()
	update, err := LoadJoined(j.T, h).OpenCAUpdate(j.T.Context(), bundle, time.Now())
	if err != nil {
		return err
	}
	defer update.Close()
	return update.Install()
}
