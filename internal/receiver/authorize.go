package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/pki"
	"cis490/internal/wire"
)

// reviewInterval is how often the clock and the list of disabled hosts are looked at
// for the sake of requests that are under way and of connections. Each new request, and
// each commit, looks for itself.
const reviewInterval = time.Second

// access decides who is served, and keeps deciding: it knows the requests under way and
// the connections of the hosts that came in, and ends those of hosts that may no longer.
// Their number is bounded by that of the connections.
type access struct {
	gate     *pki.Gate
	disabled *disabledWatch
	log      *slog.Logger

	mu       sync.Mutex // guards the fields below
	requests map[*activeRequest]struct{}
	conns    map[net.Conn]*hostConn
	timer    *time.Timer       // runs while there is a request or a connection
	reviewed *disabledSnapshot // the list at the last review
	closed   bool
}

// activeRequest is a request from the moment in which its host was let in.
type activeRequest struct {
	caller pki.Caller // guarded by access.mu until admitted, then constant
	ends   time.Time  // guarded by access.mu; when the caller's certificates expire

	cancel context.CancelCauseFunc // ends the request
	// work ends as the request does when its host loses access, but goes on when its
	// sender leaves.
	work       context.Context
	cancelWork context.CancelCauseFunc
}

// end ends a request with what its sender is told.
func (q *activeRequest) end(p *wire.Problem) {
	q.cancel(p)
	q.cancelWork(p)
}

// refusal returns what ended the request, or nil.
func (q *activeRequest) refusal() *wire.Problem {
	p, _ := errors.AsType[*wire.Problem](context.Cause(q.work))
	return p
}

// hostConn is a connection of the port. Those of a proxy are no host's.
type hostConn struct {
	caller pki.Caller // of the last request that was let in
	ends   time.Time
	idle   bool
	refuse bool // the host lost access; close it when it is idle
}

func newAccess(gate *pki.Gate, disabled *disabledWatch, log *slog.Logger) *access {
	return &access{
		gate: gate, disabled: disabled, log: log, reviewed: disabled.current(),
		requests: make(map[*activeRequest]struct{}), conns: make(map[net.Conn]*hostConn),
	}
}

// close ends the reviews. Requests end by other means.
func (a *access) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
}

// requestKey and peerKey are where a request's context has its activeRequest and its
// connection.
type (
	requestKey struct{}
	peerKey    struct{}
)

// withPeer is for http.Server.ConnContext.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, conn)
}

// serve gives each request contexts that end when its host loses access. Life is how
// long the receiver works.
func (a *access) serve(life context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		q := &activeRequest{}
		ctx, cancel := context.WithCancelCause(context.WithValue(req.Context(), requestKey{}, q))
		q.cancel = cancel
		q.work, q.cancelWork = context.WithCancelCause(context.WithValue(life, requestKey{}, q))
		defer cancel(nil)
		defer q.cancelWork(nil)
		defer a.remove(q)
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// workContext returns the context of work that goes on if the sender of ctx leaves. It
// ends with life, or when the sender's host loses access.
func workContext(ctx, life context.Context) context.Context {
	if q, ok := ctx.Value(requestKey{}).(*activeRequest); ok {
		return q.work
	}
	return life
}

// admit lets in a caller whom the gate has let in, unless its host is disabled, and
// watches the request and its connection from then on. It asks the gate again, because
// the answer may be older than the last review.
func (a *access) admit(req *http.Request, caller pki.Caller) error {
	q, _ := req.Context().Value(requestKey{}).(*activeRequest)
	conn, _ := req.Context().Value(peerKey{}).(net.Conn)
	if req.TLS == nil {
		conn = nil
	}
	a.add(q, conn, caller)
	if _, p := a.check(a.disabled.current(), caller); p != nil {
		a.remove(q)
		a.refuseConn(conn)
		return p
	}
	return nil
}

// refuseConn makes a connection end after its present request.
func (a *access) refuseConn(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.conns[conn]; c != nil {
		c.refuse = true
	}
}

func (a *access) add(q *activeRequest, conn net.Conn, caller pki.Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q != nil {
		q.caller, q.ends = caller, caller.Ends
		a.requests[q] = struct{}{}
	}
	if conn != nil {
		a.conns[conn] = &hostConn{caller: caller, ends: caller.Ends}
	}
	if a.timer == nil && !a.closed {
		a.timer = time.AfterFunc(reviewInterval, a.tick)
	}
}

func (a *access) remove(q *activeRequest) {
	if q == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.requests, q)
}

// recheck asks again whether the sender of a request has access, and returns the
// [*wire.Problem] that a new request would get, with which the request then ends. A
// context that is not of a request passes.
func (a *access) recheck(ctx context.Context) error {
	q, ok := ctx.Value(requestKey{}).(*activeRequest)
	if !ok || q.caller.Host == "" {
		return nil
	}
	if p := q.refusal(); p != nil {
		return p
	}
	if _, p := a.check(a.disabled.current(), q.caller); p != nil {
		q.end(p)
		return p
	}
	return nil
}

// check returns a caller as the gate sees it now, or what it is told instead.
func (a *access) check(list *disabledSnapshot, caller pki.Caller) (pki.Caller, *wire.Problem) {
	now, err := a.gate.Recheck(caller)
	if err != nil {
		return caller, refuseCaller(err)
	}
	return now, list.refuse(caller.Host)
}

// refuseCaller returns what a caller is told whom the gate refuses.
func refuseCaller(err error) *wire.Problem {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p
	}
	if errors.Is(err, pki.ErrToken) {
		return wire.Refuse(wire.TokenRefused, "%v", err)
	}
	return wire.Refuse(wire.Forbidden, "%v", err)
}

// refuse returns what a host is told that is disabled, or nil.
func (s *disabledSnapshot) refuse(host episode.Name) *wire.Problem {
	if s.err != nil {
		return wire.Refuse(wire.Internal, "the receiver cannot read its list of disabled hosts; its log says why")
	}
	if _, disabled := s.hosts[host]; disabled {
		return wire.Refuse(wire.Forbidden, "host %s is disabled; enable it on the receiver with 'receiver hosts enable %s'", host, host)
	}
	return nil
}

// watch is for http.Server.ConnState.
func (a *access) watch(conn net.Conn, state http.ConnState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.conns[conn]
	if c == nil {
		return
	}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(a.conns, conn)
	case http.StateIdle:
		if c.idle = true; c.refuse {
			hangUp(conn)
		}
	default:
		c.idle = false
	}
}

// hangUp closes a connection without the farewell of TLS, for which the other end could
// make us wait.
func hangUp(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}

// tick is what the timer does: it ends what the clock or the list of disabled hosts
// has ended since the last time.
func (a *access) tick() {
	list, now := a.disabled.current(), a.gate.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	changed := list != a.reviewed
	a.reviewLocked(list, func(ends time.Time) bool { return changed || now.After(ends) })
	if len(a.requests) == 0 && len(a.conns) == 0 {
		a.timer = nil
		return
	}
	a.timer.Reset(reviewInterval)
}

// review asks again about all who are served, and ends what is no longer allowed.
func (a *access) review() {
	list := a.disabled.current()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviewLocked(list, func(time.Time) bool { return true })
}

// ended counts what a review ended of a host.
type ended struct {
	requests, conns int
	why             *wire.Problem
}

// reviewLocked asks again about the callers for whom due, which gets the time at which
// their access ends by itself, reports true. The caller must hold a.mu.
func (a *access) reviewLocked(list *disabledSnapshot, due func(ends time.Time) bool) {
	a.reviewed = list
	hosts := make(map[episode.Name]ended)
	for q := range a.requests {
		if !due(q.ends) || q.refusal() != nil {
			continue
		}
		caller, p := a.check(list, q.caller)
		if p == nil {
			q.ends = caller.Ends
			continue
		}
		q.end(p)
		e := hosts[q.caller.Host]
		hosts[q.caller.Host] = ended{e.requests + 1, e.conns, p}
	}
	for conn, c := range a.conns {
		if !due(c.ends) || c.refuse {
			continue
		}
		caller, p := a.check(list, c.caller)
		if p == nil {
			c.ends = caller.Ends
			continue
		}
		if c.refuse = true; c.idle {
			hangUp(conn)
		}
		e := hosts[c.caller.Host]
		hosts[c.caller.Host] = ended{e.requests, e.conns + 1, p}
	}
	for host, e := range hosts {
		a.log.Info("host lost access", "host", host, "requests", e.requests, "connections", e.conns, "err", e.why)
	}
}
