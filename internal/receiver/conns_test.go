package receiver_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// A host that opens connections without end must leave some for another.
func TestAHostHasABoundedNumberOfConnections(t *testing.T) {
	l := newLab(t, nil)
	addr, _ := l.listen(t.Context())
	papers := l.issueCredentials("h")
	refused, most := 0, 2*l.cfg.Limits.UploadsPerHost+48
	for range most + 26 {
		conn, err := tls.Dial("tcp", addr, papers.TLSConfig())
		fixture.Must(t, err)
		t.Cleanup(func() { conn.Close() })
		fixture.Must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = conn.Write([]byte("POST /v1/ping HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n"))
		fixture.Must(t, err)
		status := make([]byte, len("HTTP/1.1 200"))
		if _, err := conn.Read(status); err != nil || string(status) != "HTTP/1.1 200" {
			refused++
		}
	}
	if refused != 26 {
		t.Errorf("of %d connections of one host %d were refused, want 26", most+26, refused)
	}
	if _, err := l.newClient(addr, "other").Ping(t.Context()); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// dialFrom dials addr from one of this machine's own addresses.
func dialFrom(t *testing.T, ip, addr string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	conn, err := d.Dial("tcp", addr)
	fixture.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A client with a certificate that never completes a request is not a host yet: its address is
// bounded, and others are served.
func TestHalfRequestsOfAnAddressAreBounded(t *testing.T) {
	l := newLab(t, nil)
	l.r.SetHeaderTimeout(time.Hour) // none of them ends before the last one is dialed
	addr, _ := l.listen(t.Context())
	config := l.issueCredentials("h").TLSConfig().Clone()
	config.ServerName = "127.0.0.1"
	const dialed, maxOpen = 300, 256
	var conns []net.Conn
	for range dialed { // all of them before the first handshake, none of which may time out first
		conns = append(conns, dialFrom(t, "127.0.0.2", addr))
	}
	open := 0
	for _, c := range conns {
		conn := tls.Client(c, config)
		fixture.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		if conn.Handshake() == nil {
			open++
		}
		conn.Write([]byte("POST /v1/ping HTTP/1.1\r\nX: "))
	}
	if open == 0 || open > maxOpen {
		t.Errorf("%d of %d connections of one address were admitted, want at most %d", open, dialed, maxOpen)
	}
	if _, err := l.newClient(addr, "other").Ping(t.Context()); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// Silent connections are bounded in total, and per address.
func TestSilentConnectionsAreBounded(t *testing.T) {
	l := newLab(t, nil)
	l.r.SetHeaderTimeout(time.Hour) // none of them ends before the last one is dialed
	addr, _ := l.listen(t.Context())
	const most, each = 2*64 + 1024, 256
	for i := range most {
		dialFrom(t, fmt.Sprintf("127.0.1.%d", 1+i/each), addr)
	}
	conn := dialFrom(t, "127.0.2.1", addr)
	fixture.Must(t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many is served")
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("one connection too many is kept open")
	}
}
