package receiver_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"
)

// One host that opens connections without end must leave room for another.
func TestAHostHasABoundedNumberOfConnections(t *testing.T) {
	l := newLab(t, nil)
	addr, _ := l.listen(t.Context())
	papers := l.papers("h")
	refused := 0
	for range 90 {
		conn, err := tls.Dial("tcp", addr, papers.TLS())
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = conn.Write([]byte("POST /v1/ping HTTP/1.1\r\nHost: r\r\nContent-Length: 0\r\n\r\n"))
		must(t, err)
		status := make([]byte, len("HTTP/1.1 200"))
		if _, err := conn.Read(status); err != nil || string(status) != "HTTP/1.1 200" {
			refused++
		}
	}
	if refused != 90-64 { // twice its uploads, and 48
		t.Errorf("%d of 90 connections of one host were refused, want 26", refused)
	}
	if _, err := l.client(addr, "other").Ping(t.Context()); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// Connections that say nothing are bounded in all.
func TestSilentConnectionsAreBounded(t *testing.T) {
	l := newLab(t, nil)
	addr, _ := l.listen(t.Context())
	const most = 2*64 + 64
	for range most {
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("one connection too many is served")
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("one connection too many is kept open")
	}
}
