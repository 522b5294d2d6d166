package labtest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// Fault is what happens to a connection through a [Proxy]. The zero value passes all bytes on.
type Fault struct {
	Refuse     bool   // reset it at once
	Hang       bool   // take it, and pass nothing on
	CutAfter   int64  // cut the connection when the sender has sent this many bytes, including TLS
	StallAfter int64  // pass only this many of the sender's bytes on
	Rate       int64  // pass this many of the sender's bytes on per second
	LoseAnswer bool   // cut the connection at the first answer, and drop the answer
	LoseBehind int64  // the same for the first answer after this many of the sender's bytes
	Say        string // send this unencrypted and close the connection
}

// Proxy passes bytes on, such as between the hosts and the receiver. Its address stays the same while
// the program behind it restarts.
type Proxy struct {
	ln net.Listener

	mu       sync.Mutex // guards the fields below
	to       string
	always   Fault
	next     []Fault
	conns    map[net.Conn]bool
	accepted int
	sent     int64 // by the hosts
	closed   bool
	fuse     int64 // bytes until burnt is called, if it is not nil
	burnt    func()
}

// NewProxy returns a proxy that refuses connections until Forward is called. It ends with the
// test.
func NewProxy(t testing.TB) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	fixture.Must(t, err)
	p := &Proxy{ln: ln, conns: make(map[net.Conn]bool)}
	var all sync.WaitGroup
	all.Go(func() { p.serve(&all) })
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.Sever()
		all.Wait()
	})
	return p
}

// Addr returns where the proxy listens.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Forward makes the proxy pass new connections on to addr.
func (p *Proxy) Forward(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = addr
}

// Always sets the fault of every new connection.
func (p *Proxy) Always(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.always, p.next = f, nil
}

// Next sets the faults of the next connections, one each.
func (p *Proxy) Next(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, faults...)
}

// Sever cuts all open connections.
func (p *Proxy) Sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		resetConn(c)
	}
}

// Accepted returns the number of accepted connections.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Sent returns how many bytes the hosts have sent, including TLS.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// After calls do, once, when n more bytes have arrived from either side, before they are passed
// on. A test can thus choose a moment of a transfer.
func (p *Proxy) After(n int64, do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fuse, p.burnt = n, do
}

// countDown takes n bytes into account.
func (p *Proxy) countDown(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.burnt == nil {
		return
	}
	p.fuse -= int64(n)
	if p.fuse <= 0 {
		p.burnt()
		p.burnt = nil
	}
}

func (p *Proxy) addSent(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += int64(n)
}

func (p *Proxy) serve(all *sync.WaitGroup) {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		fault, to := p.acceptConn(c)
		all.Go(func() {
			defer p.removeConn(c)
			p.forwardConn(c, to, fault)
		})
	}
}

// acceptConn registers a connection and returns its fault and the receiver's address.
func (p *Proxy) acceptConn(c net.Conn) (Fault, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addConn(c)
	p.accepted++
	if len(p.next) == 0 {
		return p.always, p.to
	}
	f := p.next[0]
	p.next = p.next[1:]
	return f, p.to
}

// addConn registers a connection for Sever. The caller must hold the lock.
func (p *Proxy) addConn(c net.Conn) {
	if p.closed {
		resetConn(c)
	}
	p.conns[c] = true
}

func (p *Proxy) removeConn(c net.Conn) {
	resetConn(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// resetConn closes a connection so that the other end notices.
func resetConn(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

func (p *Proxy) forwardConn(from net.Conn, addr string, f Fault) {
	switch {
	case f.Refuse:
		return
	case f.Say != "":
		from.Read(make([]byte, 4096)) // so that a reset does not overtake the text
		from.Write([]byte(f.Say))
		from.(*net.TCPConn).CloseWrite()
		from.Read(make([]byte, 4096))
		return
	case f.Hang:
		from.Read(make([]byte, 1))
		for {
			if _, err := from.Read(make([]byte, 4096)); err != nil {
				return
			}
		}
	}
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.addConn(to)
	p.mu.Unlock()
	defer p.removeConn(to)
	l := proxiedConn{Fault: f, burn: p.countDown, count: p.addSent, from: from, to: to}
	var back sync.WaitGroup
	back.Go(l.copyToHost)
	l.copyToReceiver()
	back.Wait()
}

// proxiedConn is one connection through the proxy.
type proxiedConn struct {
	Fault
	burn     func(n int)
	count    func(n int) // of the sender's bytes
	from, to net.Conn
	passed   atomic.Int64
	greeted  atomic.Bool // the receiver has said something
	asked    atomic.Bool // the sender has answered that: a request is in flight
}

// copyToReceiver passes the sender's bytes on.
func (l *proxiedConn) copyToReceiver() {
	defer l.to.(*net.TCPConn).CloseWrite()
	buf := make([]byte, 4096)
	sent := int64(0)
	for {
		n, err := l.from.Read(buf)
		l.burn(n)
		if l.greeted.Load() {
			l.asked.Store(true)
		}
		if l.CutAfter > 0 && sent+int64(n) >= l.CutAfter {
			l.count(n)
			l.to.Write(buf[:l.CutAfter-sent])
			resetConn(l.to)
			resetConn(l.from)
			return
		}
		if l.StallAfter > 0 {
			n = int(max(0, min(int64(n), l.StallAfter-sent)))
		}
		// Bytes that a stall drops do not count: a stopped sender's kernel sends those for a
		// while.
		l.count(n)
		sent += int64(n)
		l.passed.Store(sent)
		if l.Rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(l.Rate))
		}
		if n > 0 {
			if _, err := l.to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// copyToHost passes the receiver's bytes back. A client sends for the second time when it has the
// server's whole part of the handshake, and the server issues no tickets. So what the server
// sends after that is an answer.
func (l *proxiedConn) copyToHost() {
	defer resetConn(l.from)
	buf := make([]byte, 32<<10)
	for {
		n, err := l.to.Read(buf)
		l.burn(n)
		if n > 0 && l.isLostAnswer() {
			resetConn(l.to)
			return
		}
		if n > 0 {
			l.greeted.Store(true)
			if _, err := l.from.Write(buf[:n]); err != nil {
				resetConn(l.to)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// isLostAnswer reports whether the receiver's bytes are now an answer to drop.
func (l *proxiedConn) isLostAnswer() bool {
	return l.LoseAnswer && l.asked.Load() || l.LoseBehind > 0 && l.passed.Load() >= l.LoseBehind
}
