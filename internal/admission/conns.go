package admission

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"sync"

	"golang.org/x/time/rate"

	"cis490/internal/episode"
)

// Conns bounds the open connections: per listener, per host once it is identified, and
// per address before that. One host must not take the descriptors of all.
//
// A proxy's connections carry requests of all hosts. There, each request counts as a
// connection of its host until it ends.
type Conns struct {
	max, perHost int // max is per listener
	perAddress   int // unidentified ones

	mu           sync.Mutex               // guards the fields below
	unidentified map[string]int           // by address
	arrivals     map[string]*rate.Limiter // by address
	hosts        map[episode.Name]int     // connections, and requests by way of a proxy
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

// How often one address may connect. A TLS handshake costs a Raspberry Pi about a
// millisecond of CPU time, whether a certificate follows or not.
const (
	arrivalsPerSecond = 200
	arrivalBurst      = 1024
	maxArrivals       = 4096 // addresses that are remembered
)

// Descriptors that connections must leave: those of an upload (staging file, its
// directory, a stored copy that is read), and of the rest of the process.
const (
	descriptorsPerUpload = 4
	otherDescriptors     = 96
)

// minConns is the minimum number of connections per listener to work with.
const minConns = 32

// NewConns returns the bounds for a number of uploads, in total and per host, for a
// process that may have openFiles open files. It returns an error if that is too few.
func NewConns(uploads, uploadsPerHost int, openFiles uint64) (*Conns, error) {
	c := &Conns{
		max:          2*uploads + spareConns,
		perHost:      2*uploadsPerHost + spareConnsPerHost,
		unidentified: make(map[string]int),
		arrivals:     make(map[string]*rate.Limiter),
		hosts:        make(map[episode.Name]int),
	}
	const listeners = 2
	reserved := otherDescriptors + descriptorsPerUpload*uploads
	left := (int64(min(openFiles, 1<<30)) - int64(reserved)) / listeners
	if left < minConns {
		return nil, fmt.Errorf("this process may open %d files, and limits.uploads = %d needs at least %d: "+
			"raise LimitNOFILE= (ulimit -n), or lower limits.uploads", openFiles, uploads, reserved+listeners*minConns)
	}
	c.max = int(min(int64(c.max), left))
	c.perAddress = max(min(4*uploads, c.max/4), min(minUnidentified, c.max/2))
	return c, nil
}

// LimitListener returns a listener that closes the connections over the bounds at once.
func (c *Conns) LimitListener(ln net.Listener) net.Listener {
	return &limitListener{Listener: ln, conns: c}
}

// LimitProxy is [Conns.LimitListener] for a listener whose connections are a proxy's.
func (c *Conns) LimitProxy(ln net.Listener) net.Listener {
	return &limitListener{Listener: ln, conns: c, shared: true}
}

type limitListener struct {
	net.Listener
	conns  *Conns
	shared bool // by hosts: the connections are a proxy's
	open   int  // guarded by conns.mu
}

func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked := &trackedConn{Conn: conn, listener: l}
		if !l.shared {
			tracked.address, _, _ = net.SplitHostPort(conn.RemoteAddr().String())
		}
		if l.conns.addConn(tracked) {
			return tracked, nil
		}
		conn.Close() // nothing was said on it yet
	}
}

// trackedConn is a connection that counts until it is closed.
type trackedConn struct {
	net.Conn
	listener *limitListener

	// listener.conns.mu guards the fields below.
	address string       // that it counts for; empty once it is identified
	host    episode.Name // that it counts for; empty until it is identified
	closed  bool
}

func (t *trackedConn) Close() error {
	t.listener.conns.removeConn(t)
	return t.Conn.Close()
}

func (c *Conns) addConn(t *trackedConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.listener.open >= c.max {
		return false
	}
	if t.address != "" {
		if c.unidentified[t.address] >= c.perAddress || !c.allowArrivalLocked(t.address) {
			return false
		}
		c.unidentified[t.address]++
	}
	t.listener.open++
	return true
}

// allowArrivalLocked reports whether an address may connect once more. The caller must
// hold c.mu.
func (c *Conns) allowArrivalLocked(address string) bool {
	l := c.arrivals[address]
	if l == nil {
		if len(c.arrivals) >= maxArrivals {
			maps.DeleteFunc(c.arrivals, func(_ string, l *rate.Limiter) bool { return l.Tokens() >= arrivalBurst })
		}
		if len(c.arrivals) >= maxArrivals {
			return false
		}
		l = rate.NewLimiter(arrivalsPerSecond, arrivalBurst)
		c.arrivals[address] = l
	}
	return l.Allow()
}

func (c *Conns) removeConn(t *trackedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.listener.open--
	c.markIdentifiedLocked(t)
	if t.host != "" {
		decrementCount(c.hosts, t.host)
	}
}

// markIdentifiedLocked stops counting a connection for its address. The caller must hold c.mu.
func (c *Conns) markIdentifiedLocked(t *trackedConn) {
	if t.address != "" {
		decrementCount(c.unidentified, t.address)
		t.address = ""
	}
}

func decrementCount[K comparable](counts map[K]int, key K) {
	counts[key]--
	if counts[key] == 0 {
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
// first request until it is closed. At a proxy's listener it counts the request, until
// release is called. It returns a [*RefusedError] if the host has too many.
func (c *Conns) BindHost(ctx context.Context, host episode.Name) (release func(), err error) {
	none := func() {}
	t, _ := ctx.Value(connKey{}).(*trackedConn)
	if t == nil {
		return none, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.host != "" || t.closed {
		return none, nil
	}
	if n := c.hosts[host]; n >= c.perHost {
		return none, busyError(HostBusy, "%d connections of this host are open", n)
	}
	c.hosts[host]++
	if t.listener.shared {
		return func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			decrementCount(c.hosts, host)
		}, nil
	}
	t.host = host
	c.markIdentifiedLocked(t)
	return none, nil
}
