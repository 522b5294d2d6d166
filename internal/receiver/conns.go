package receiver

import (
	"context"
	"net"
	"net/http"
	"sync"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Connections beyond what uploads need: for pings, and for those that a host
// gave up without our having noticed.
const (
	spareConns        = 64
	spareConnsPerHost = 48
)

// conns bounds the open connections, in all and of each host that has said who
// it is. One host must not take the descriptors of all.
type conns struct {
	most, each int

	mu    sync.Mutex // guards the fields below
	open  int
	hosts map[net.Conn]episode.Name
	count map[episode.Name]int
}

func newConns(c LimitsConfig) *conns {
	return &conns{
		most:  2*c.Uploads + spareConns,
		each:  2*c.UploadsPerHost + spareConnsPerHost,
		hosts: make(map[net.Conn]episode.Name),
		count: make(map[episode.Name]int),
	}
}

// limit returns a listener that closes at once what is too many.
func (c *conns) limit(ln net.Listener) net.Listener { return &limited{ln, c} }

type limited struct {
	net.Listener
	conns *conns
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.enter() {
			return &counted{Conn: conn, leave: sync.OnceFunc(l.conns.leave)}, nil
		}
		conn.Close() // it was told nothing and has sent nothing
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

func (c *conns) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.most {
		return false
	}
	c.open++
	return true
}

func (c *conns) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
}

// connKey is where a request's context has its connection.
type connKey struct{}

// mark is for http.Server.ConnContext.
func mark(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// claim notes that a host speaks on the request's connection, or refuses.
func (c *conns) claim(host episode.Name, req *http.Request) error {
	conn, _ := req.Context().Value(connKey{}).(net.Conn)
	if conn == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.hosts[conn]; known {
		return nil
	}
	if c.count[host] >= c.each {
		return busy(wire.HostBusy, "%d connections are open", c.count[host])
	}
	c.hosts[conn] = host
	c.count[host]++
	return nil
}

// watch is for http.Server.ConnState.
func (c *conns) watch(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	host, known := c.hosts[conn]
	if !known {
		return
	}
	delete(c.hosts, conn)
	if c.count[host]--; c.count[host] == 0 {
		delete(c.count, host)
	}
}
