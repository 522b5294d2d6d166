package receiver_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"cis490/internal/config"
	"cis490/internal/episode"
	"cis490/internal/fixture"
	"cis490/internal/receiver"
)

// listener is where requests arrive: the TLS port, or the socket of a proxy.
type listener struct {
	name string
	host episode.Name // one that has sent nothing yet
	dial func(host episode.Name) (conn net.Conn, header string)
}

// serveListeners serves the receiver on every listener. Its configuration must name a socket.
func (l *lab) serveListeners() []listener {
	l.Helper()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(l, err)
	socket, err := l.r.ListenProxy()
	fixture.Must(l, err)
	go l.r.Serve(l.Context(), port, socket)
	certificates := map[episode.Name]*tls.Config{}
	of := func(host episode.Name) *tls.Config {
		if certificates[host] == nil {
			certificates[host] = l.issueCredentials(host).TLSConfig().Clone()
			certificates[host].ServerName = "127.0.0.1"
		}
		return certificates[host]
	}
	return []listener{
		{"port", "h1", func(host episode.Name) (net.Conn, string) {
			conn, err := tls.Dial("tcp", port.Addr().String(), of(host))
			fixture.Must(l, err)
			return conn, ""
		}},
		{"proxy", "h2", func(host episode.Name) (net.Conn, string) {
			conn, err := net.Dial("unix", socket.Addr().String())
			fixture.Must(l, err)
			cert, err := of(host).GetClientCertificate(&tls.CertificateRequestInfo{})
			fixture.Must(l, err)
			return conn, "Client-Cert: :" + base64.StdEncoding.EncodeToString(cert.Certificate[0]) + ":\r\n"
		}},
	}
}

// withProxy names a socket for a proxy.
func withProxy(t *testing.T, change func(*receiver.Config)) func(*receiver.Config) {
	socket := filepath.Join(t.TempDir(), "proxy.sock")
	return func(c *receiver.Config) {
		c.Proxy.Socket = config.Path(socket)
		if change != nil {
			change(c)
		}
	}
}

// ask sends the head of a request on a connection of its own.
func (d listener) ask(t *testing.T, host episode.Name, line, fields string) net.Conn {
	t.Helper()
	conn, header := d.dial(host)
	t.Cleanup(func() { conn.Close() })
	fixture.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: r\r\n%s%s\r\n", line, header, fields)
	fixture.Must(t, err)
	return conn
}

// readStatus returns the status of the next answer on a connection.
func readStatus(t *testing.T, conn net.Conn) int {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fixture.Must(t, err)
	resp.Body.Close()
	return resp.StatusCode
}

// countStatuses counts the first answers on connections.
func countStatuses(t *testing.T, conns []net.Conn) map[int]int {
	t.Helper()
	count := map[int]int{}
	for _, conn := range conns {
		count[readStatus(t, conn)]++
	}
	return count
}

// A request that waits must not have its body in memory, on either listener.
func TestInventoriesOfAHostAreBoundedAtEveryDoor(t *testing.T) {
	l := newLab(t, withProxy(t, func(c *receiver.Config) { c.Limits.UploadsPerHost = 2 }))
	l.b.Uploads().MaxWait = 0
	for _, d := range l.serveListeners() {
		var conns []net.Conn
		for range 10 {
			conn := d.ask(t, d.host, "POST /v1/inventory", "Content-Length: 1000000\r\nExpect: 100-continue\r\n")
			conns = append(conns, conn)
		}
		if got := countStatuses(t, conns); got[http.StatusContinue] != 2 || got[http.StatusTooManyRequests] != 8 {
			t.Errorf("%s: the answers to 10 inventories are %v, want 2 of 100 and 8 of 429", d.name, got)
		}
		other := d.ask(t, "other-"+d.host, "POST /v1/inventory", "Content-Length: 1000000\r\nExpect: 100-continue\r\n")
		if got := readStatus(t, other); got != http.StatusContinue {
			t.Errorf("%s: another host gets %d, want 100", d.name, got)
		}
	}
}

// Requests that hold no slot are bounded too, at the port by their connections: a refused
// upload waits for the rest of its body.
func TestRequestsOfAHostAreBoundedAtEveryDoor(t *testing.T) {
	l := newLab(t, withProxy(t, func(c *receiver.Config) {
		c.Limits.IdleTimeout = config.Duration(time.Hour) // none of them ends before the last one is sent
	}))
	const over = 20
	most := 2*l.cfg.Limits.UploadsPerHost + 48
	for _, d := range l.serveListeners() {
		answers := make(chan int, most+over)
		var conns []net.Conn
		for range most + over {
			conn := d.ask(t, d.host, "PUT /v1/episodes/other/x", "Content-Length: 10\r\n")
			conns = append(conns, conn)
			go func() {
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					answers <- 0
					return
				}
				resp.Body.Close()
				answers <- resp.StatusCode
			}()
		}
		for range over {
			if got := fixture.ReceiveWithin(t, time.Minute, answers, d.name+": the refusals"); got != http.StatusTooManyRequests {
				t.Errorf("%s: a request over the bound is answered with %d, want 429", d.name, got)
			}
		}
		other := d.ask(t, "other", "POST /v1/ping", "Content-Length: 0\r\n")
		if got := readStatus(t, other); got != http.StatusOK {
			t.Errorf("%s: another host gets %d, want 200", d.name, got)
		}
		for _, conn := range conns {
			conn.Write([]byte("0123456789")) // the refused ones are closed
		}
		for range most {
			if got := fixture.ReceiveWithin(t, time.Minute, answers, d.name+": the answers"); got != http.StatusForbidden {
				t.Errorf("%s: a request within the bound is answered with %d, want 403", d.name, got)
			}
		}
		for _, conn := range conns {
			conn.Close()
		}
	}
}

// Silent connections are bounded at the socket of a proxy too.
func TestConnectionsOfTheProxyAreBounded(t *testing.T) {
	l := newLab(t, withProxy(t, nil))
	l.r.SetHeaderTimeout(time.Hour) // which would end the last one too, and the first ones before it is dialed
	proxy := l.serveListeners()[1]
	const most = 2*64 + 1024
	for range most {
		conn, _ := proxy.dial("h")
		t.Cleanup(func() { conn.Close() })
	}
	conn, _ := proxy.dial("h")
	defer conn.Close()
	fixture.Must(t, conn.SetDeadline(time.Now().Add(2*time.Minute)))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one connection too many ends with %v, want EOF at once", err)
	}
}
