package labtest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cis490/internal/fixture"
)

// Fault is what becomes of a connection through a [Proxy]. The zero value
// passes all bytes on.
type Fault struct {
	Refuse     bool   // reset it at once
	Hang       bool   // take it, and pass nothing on
	CutAfter   int64  // cut it when the sender has sent so many bytes, TLS and all
	StallAfter int64  // pass no more of the sender's bytes on than these
	Rate       int64  // pass so many of the sender's bytes on in a second
	LoseAnswer bool   // cut it when the first answer comes, and keep that
	LoseBehind int64  // the same with the first answer behind so many of the sender's bytes
	Say        string // say this, not encrypted, and close it
}

// Proxy stands between the hosts and the receiver, and passes bytes on.
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
	fuse     int64 // bytes until burnt is called, if that is not nil
	burnt    func()
}

func newProxy(t testing.TB) *Proxy {
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

// Always makes f what becomes of every new connection.
func (p *Proxy) Always(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.always, p.next = f, nil
}

// Next makes faults what becomes of the next connections, one each.
func (p *Proxy) Next(faults ...Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = append(p.next, faults...)
}

// Sever cuts all connections that there are.
func (p *Proxy) Sever() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		cut(c)
	}
}

// Accepted returns how many connections have come.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Sent returns how many bytes the hosts have sent, TLS and all.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

// After calls do, once, when n more bytes have come, from either side and before
// they are passed on. It is how a test picks a moment of a transfer.
func (p *Proxy) After(n int64, do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fuse, p.burnt = n, do
}

// burn takes n bytes into account.
func (p *Proxy) burn(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.burnt == nil {
		return
	}
	if p.fuse -= int64(n); p.fuse <= 0 {
		p.burnt()
		p.burnt = nil
	}
}

func (p *Proxy) count(n int) {
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
		fault, to := p.take(c)
		all.Go(func() {
			defer p.drop(c)
			p.pass(c, to, fault)
		})
	}
}

// take notes a connection and says what is to become of it.
func (p *Proxy) take(c net.Conn) (Fault, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(c)
	p.accepted++
	if len(p.next) == 0 {
		return p.always, p.to
	}
	f := p.next[0]
	p.next = p.next[1:]
	return f, p.to
}

// keep notes a connection for Sever. The lock is held.
func (p *Proxy) keep(c net.Conn) {
	if p.closed {
		cut(c)
	}
	p.conns[c] = true
}

func (p *Proxy) drop(c net.Conn) {
	cut(c)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// cut closes a connection so that the other end notices.
func cut(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

func (p *Proxy) pass(from net.Conn, addr string, f Fault) {
	switch {
	case f.Refuse:
		return
	case f.Say != "":
		from.Read(make([]byte, 4096)) // or the reset overtakes what is said
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
	p.keep(to)
	p.mu.Unlock()
	defer p.drop(to)
	l := line{Fault: f, burn: p.burn, count: p.count, from: from, to: to}
	var back sync.WaitGroup
	back.Go(l.down)
	l.up()
	back.Wait()
}

// line is one connection through the proxy.
type line struct {
	Fault
	burn     func(n int)
	count    func(n int) // of the sender's bytes
	from, to net.Conn
	passed   atomic.Int64
	greeted  atomic.Bool // the receiver has said something
	asked    atomic.Bool // the sender has answered that: a request is on its way
}

// up passes the sender's bytes on.
func (l *line) up() {
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
			cut(l.to)
			cut(l.from)
			return
		}
		if l.StallAfter > 0 {
			n = int(max(0, min(int64(n), l.StallAfter-sent)))
		}
		// Not what a stall swallows: a stopped sender's kernel sends that for a while.
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

// down passes the receiver's bytes back. A client speaks for the second time
// when it has the server's whole part of the handshake, and the server issues
// no tickets: what comes after that is an answer.
func (l *line) down() {
	defer cut(l.from)
	buf := make([]byte, 32<<10)
	for {
		n, err := l.to.Read(buf)
		l.burn(n)
		if n > 0 && l.loses() {
			cut(l.to)
			return
		}
		if n > 0 {
			l.greeted.Store(true)
			if _, err := l.from.Write(buf[:n]); err != nil {
				cut(l.to)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// loses reports whether what the receiver says now is an answer to keep.
func (l *line) loses() bool {
	return l.LoseAnswer && l.asked.Load() || l.LoseBehind > 0 && l.passed.Load() >= l.LoseBehind
}
