package labtest_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"cis490/internal/fixture"
	"cis490/internal/labtest"
)

// TestRefusedHandshakeSaysWhatToDo: the receiver's own certificate instead of a host's, one of
// another lab, none.
func TestRefusedHandshakeSaysWhatToDo(t *testing.T) {
	t.Parallel()
	l, _ := newLab(t)
	other := labtest.New(t, labtest.Unstarted())
	foreign := other.Host("lab-01")
	for _, c := range []struct{ name, cert, want string }{
		{"the receiver's own", l.Path("pki", "server"), "the receiver's own certificate is no host's"},
		{"another lab's", foreign.Path("pki", "lab-01"), "its certificate is not of a CA in tls.client_ca_file"},
		{"none", "", "it showed no certificate"},
	} {
		config := &tls.Config{InsecureSkipVerify: true}
		if c.cert != "" {
			pair, err := tls.LoadX509KeyPair(c.cert+".crt", c.cert+".key")
			fixture.Must(t, err)
			// Independent of the CAs that the receiver accepts.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(l.URL(""), "https://"))
		fixture.Must(t, err)
		tlsConn := tls.Client(conn, config)
		tlsConn.Handshake()
		tlsConn.Read(make([]byte, 1)) // until the receiver has refused it
		conn.Close()
		line := l.Process().WaitLine(t, c.want)
		mustContain(t, c.name, line, "refused a connection", "hint=")
	}
}
