package admission

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"cis490/internal/episode"
)

// Conns bounds the open connections: in total, per host once it is identified, and
// per address before that. One host must not take the descriptors of all.
type Conns struct {
	max, perHost int
	perAddress   int // unidentified ones

	mu           sync.Mutex // guards the fields below
	open         int
	unidentified map[string]int // by address
	hosts        map[episode.Name]int
}

// Connections beyond those that uploads need: for pings, queued requests, idle
// clients and undetected disconnects. Every host may open as many as the shipper's
// default number of senders at the same time.
const (
	spareConns        = 1024
	spareConnsPerHost = 48
)

// minUnidentified is the minimum bound of the connections of one address that are in
// the handshake or have not sent the end of a request's header. Many hosts may be
// behind one address and reconnect together.
const minUnidentified = 48

// NewConns returns the bounds for a number of uploads, in total and per host.
func NewConns(uploads, uploadsPerHost int) *Conns {
	return &Conns{
		max:          2*uploads + spareConns,
		perHost:      2*uploadsPerHost + spareConnsPerHost,
		perAddress:   max(min(4*uploads, spareConns/4), minUnidentified),
		unidentified: make(map[string]int),
		hosts:        make(map[episode.Name]int),
	}
}

// Limit returns a listener that closes the connections over the bounds at once.
func (c *Conns) Limit(ln net.Listener) net.Listener { return &limitListener{ln, c} }

type limitListener struct {
	net.Listener
	conns *Conns
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked := &trackedConn{Conn: conn, conns: l.conns, address: addressOf(conn)}
		if l.conns.add(tracked) {
			return tracked, nil
		}
		conn.Close() // nothing was said on it yet
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

// trackedConn is a connection that counts until it is closed.
type trackedConn struct {
	net.Conn
	conns *Conns

	// conns.mu guards the fields below.
	address string       // that it counts for; empty once it is identified
	host    episode.Name // that it counts for; empty until it is identified
	closed  bool
}

func (t *trackedConn) Close() error {
	t.conns.remove(t)
	return t.Conn.Close()
}

func (c *Conns) add(t *trackedConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.max || c.unidentified[t.address] >= c.perAddress {
		return false
	}
	c.open++
	if t.address != "" {
		c.unidentified[t.address]++
	}
	return true
}

func (c *Conns) remove(t *trackedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	c.open--
	c.markIdentifiedLocked(t)
	if t.host != "" {
		decrement(c.hosts, t.host)
	}
}

// markIdentifiedLocked ends that a connection counts for its address. The caller must
// hold c.mu.
func (c *Conns) markIdentifiedLocked(t *trackedConn) {
	if t.address != "" {
		decrement(c.unidentified, t.address)
		t.address = ""
	}
}

func decrement[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// connKey is where a request's context has its connection.
type connKey struct{}

// WithConn is for http.Server.ConnContext.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// BindHost counts the connection of a request's context as one of a host, from its
// first request until it is closed, or refuses.
func (c *Conns) BindHost(ctx context.Context, host episode.Name) error {
	t, _ := ctx.Value(connKey{}).(*trackedConn)
	if t == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.host != "" || t.closed {
		return nil
	}
	if n := c.hosts[host]; n >= c.perHost {
		return busy(HostBusy, "%d connections of this host are open", n)
	}
	t.host = host
	c.hosts[host]++
	c.markIdentifiedLocked(t)
	return nil
}
