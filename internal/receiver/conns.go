package receiver

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Connections beyond what uploads need: for pings, for those that stand in the queue
// or are idle for a moment, and for those that a host gave up without our having
// noticed. As many hosts as there are places may all be there with as many senders as
// the shipper has by default.
const (
	spareConns        = 1024
	spareConnsPerHost = 48
)

// fewStrangers is how many connections of one address may be open that have not
// said whose they are, at the least: in mid-handshake or mid-head. Many hosts may
// be behind one address and come back together, but who never ends one must leave
// room for others.
const fewStrangers = 48

// conns bounds the open connections, in all, of each host that has said who it
// is, and of each address where nobody has yet. One host must not take the
// descriptors of all.
type conns struct {
	most, each  int
	mostUnknown int // of one address

	mu        sync.Mutex // guards the fields below
	open      int
	strangers map[string]int // by their address
	hosts     map[net.Conn]episode.Name
	count     map[episode.Name]int
}

func newConns(c LimitsConfig) *conns {
	return &conns{
		most: 2*c.Uploads + spareConns,
		each: 2*c.UploadsPerHost + spareConnsPerHost,

		mostUnknown: max(min(4*c.Uploads, spareConns/4), fewStrangers),

		strangers: make(map[string]int),
		hosts:     make(map[net.Conn]episode.Name),
		count:     make(map[episode.Name]int),
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
		counted := &counted{Conn: conn, conns: l.conns, stranger: addressOf(conn)}
		if l.conns.enter(counted) {
			return counted, nil
		}
		conn.Close() // it was told nothing and has sent nothing
	}
}

// addressOf returns the address that a connection comes from, without the port.
func addressOf(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	conns    *conns
	stranger string // the address that it counts for; guarded by conns.mu
	gone     bool   // guarded by conns.mu
}

func (c *counted) Close() error {
	c.conns.leave(c)
	return c.Conn.Close()
}

func (c *conns) enter(conn *counted) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.most || c.strangers[conn.stranger] >= c.mostUnknown {
		return false
	}
	c.open++
	if conn.stranger != "" {
		c.strangers[conn.stranger]++
	}
	return true
}

func (c *conns) leave(conn *counted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn.gone {
		return
	}
	conn.gone = true
	c.open--
	c.meet(conn)
}

// meet ends that a connection counts as a stranger's. The lock is held.
func (c *conns) meet(conn *counted) {
	if conn.stranger == "" {
		return
	}
	if c.strangers[conn.stranger]--; c.strangers[conn.stranger] == 0 {
		delete(c.strangers, conn.stranger)
	}
	conn.stranger = ""
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
	if secure, ok := conn.(*tls.Conn); ok {
		if counted, ok := secure.NetConn().(*counted); ok {
			c.meet(counted)
		}
	}
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
