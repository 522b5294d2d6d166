// Package access decides at each moment which hosts a receiver serves. It combines what the gate says
// about a certificate with the list of disabled hosts, and knows the requests in flight.
//
// Invariant: a host that loses access gets no further success: its requests in flight end within a
// second, and each commit asks again.
package access

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"cis490/internal/datadir"
	"cis490/internal/episode"
	"cis490/internal/gate"
	"cis490/internal/wire"
)

// reviewInterval is how often the expiry of certificates and the list of disabled hosts are
// checked for the requests in flight. Each new request and each commit checks them too.
const reviewInterval = time.Second

// Control decides which hosts are served. It knows the requests in flight, and ends those of
// hosts that lose access. Their number is limited by that of the connections. The next
// request on an open connection is refused like any other.
type Control struct {
	gate     *gate.Gate
	disabled *datadir.DisabledWatch
	log      *slog.Logger

	ticking sync.Mutex // held by Review, so that Close waits for it

	mu       sync.Mutex // guards the fields below
	requests map[*request]struct{}
	timer    *time.Timer               // runs while there is a request; nil before the first
	reviewed *datadir.DisabledSnapshot // the list at the last review
	closed   bool
	handlers int // that run
}

// request is a request in flight whose host was admitted.
type request struct {
	control    *Control
	caller     gate.Caller // guarded by Control.mu until admitted, then constant
	accessEnds time.Time   // guarded by Control.mu; when the caller's certificates expire

	cancel context.CancelCauseFunc // ends the request
	// work ends when the host loses access, but not when the sender disconnects.
	workCtx    context.Context
	cancelWork context.CancelCauseFunc
}

// cancelWith ends a request. p is the answer.
func (q *request) cancelWith(p *wire.Problem) {
	q.cancel(p)
	q.cancelWork(p)
}

// refusalProblem returns the problem that ended the request, or nil.
func (q *request) refusalProblem() *wire.Problem {
	p, _ := errors.AsType[*wire.Problem](context.Cause(q.workCtx))
	return p
}

// New returns a control of the requests whose callers gate identifies.
func New(gate *gate.Gate, disabled *datadir.DisabledWatch, log *slog.Logger) *Control {
	return &Control{
		gate: gate, disabled: disabled, log: log, reviewed: disabled.Current(),
		requests: make(map[*request]struct{}),
	}
}

// Close ends the reviews, so that the data directory may be closed. It does not end requests.
func (a *Control) Close() {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.ticking.Lock() // waits for a tick that has begun
	defer a.ticking.Unlock()
}

func (a *Control) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// BeginHandler reports whether a handler may use the data directory. It may not after Close.
func (a *Control) BeginHandler() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.handlers++
	}
	return !a.closed
}

// EndHandler ends what BeginHandler has begun.
func (a *Control) EndHandler() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handlers--
}

// WaitIdle waits until no handler runs, and reports whether that is so.
func (a *Control) WaitIdle(limit time.Duration) bool {
	idle := func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.handlers == 0
	}
	for deadline := time.Now().Add(limit); !idle(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// contextKey is the key of the request in a request's context.
type contextKey struct{}

// WrapHandler gives each request contexts that end when its host loses access. base is the parent
// of the work that continues after a sender has disconnected.
func (a *Control) WrapHandler(base context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !a.BeginHandler() {
			panic(http.ErrAbortHandler) // a return would respond with 200
		}
		defer a.EndHandler()
		q := &request{control: a}
		ctx, cancel := context.WithCancelCause(context.WithValue(req.Context(), contextKey{}, q))
		q.cancel = cancel
		q.workCtx, q.cancelWork = context.WithCancelCause(context.WithValue(base, contextKey{}, q))
		defer cancel(nil)
		defer q.cancelWork(nil)
		defer a.removeRequest(q)
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// CauseOf returns the cause for which ctx ended if err is a consequence of that, and err otherwise.
func CauseOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		return cause
	}
	return err
}

// WorkContext returns the context of work that continues if the sender of ctx disconnects. It
// ends with base, or when the sender's host loses access.
func WorkContext(ctx, base context.Context) context.Context {
	if q, ok := ctx.Value(contextKey{}).(*request); ok {
		return q.workCtx
	}
	return base
}

// Admit admits a caller that the gate has admitted, unless its host is disabled, and adds
// the request to those that are reviewed. It asks the gate again, because the answer may be older
// than the last review.
func (a *Control) Admit(req *http.Request, caller gate.Caller) error {
	q, _ := req.Context().Value(contextKey{}).(*request)
	a.addRequest(q, caller)
	if _, p := a.checkCaller(a.disabled.Current(), caller); p != nil {
		a.removeRequest(q)
		return p
	}
	return nil
}

func (a *Control) addRequest(q *request, caller gate.Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q == nil {
		return
	}
	q.caller, q.accessEnds = caller, caller.AccessEnds
	a.requests[q] = struct{}{}
	switch {
	case a.closed || len(a.requests) > 1: // it runs
	case a.timer == nil:
		a.timer = time.AfterFunc(reviewInterval, a.Review)
	default:
		a.timer.Reset(reviewInterval)
	}
}

func (a *Control) removeRequest(q *request) {
	if q == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.requests, q)
	if len(a.requests) == 0 && a.timer != nil {
		a.timer.Stop() // an idle receiver need not wake up; a review that has begun ends by itself
	}
}

// CallerOf returns the admitted sender of the request that ctx belongs to.
func CallerOf(ctx context.Context) (caller gate.Caller, ok bool) {
	q, ok := ctx.Value(contextKey{}).(*request)
	if !ok {
		return gate.Caller{}, false
	}
	return q.caller, true
}

// Disabled returns the list of disabled hosts as it is now.
func (a *Control) Disabled() *datadir.DisabledSnapshot { return a.disabled.Current() }

// ActiveCount returns how many requests of admitted hosts are in flight.
func (a *Control) ActiveCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.requests)
}

// Recheck checks again whether the sender of the request that ctx belongs to has access. If
// not, it ends the request and returns the [*wire.Problem] that a new request would get. A
// context that does not belong to a request passes.
func Recheck(ctx context.Context) error {
	q, ok := ctx.Value(contextKey{}).(*request)
	if !ok || q.caller.Host == "" {
		return nil
	}
	if p := q.refusalProblem(); p != nil {
		return p
	}
	if _, p := q.control.checkCaller(q.control.disabled.Current(), q.caller); p != nil {
		q.cancelWith(p)
		return p
	}
	return nil
}

// checkCaller returns a caller as the gate sees it now, or the problem for it.
func (a *Control) checkCaller(list *datadir.DisabledSnapshot, caller gate.Caller) (gate.Caller, *wire.Problem) {
	now, err := a.gate.RecheckCaller(caller)
	if err != nil {
		return caller, RefuseCaller(err)
	}
	if p := RefuseDisabled(list, caller.Host); p != nil {
		return now, p
	}
	if serial := caller.Serial(); serial != "" && list.HasReplaced(caller.Host, serial, caller.Certificate().NotBefore) {
		return now, wire.Refuse(wire.Forbidden, "the certificate %s ended when host %s joined again", serial, caller.Host)
	}
	return now, nil
}

// RefuseCaller returns the problem for a caller that the gate refuses.
func RefuseCaller(err error) *wire.Problem {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p
	}
	if errors.Is(err, gate.ErrToken) {
		return wire.Refuse(wire.TokenRefused, "%v", err)
	}
	return wire.Refuse(wire.Forbidden, "%v", err)
}

// RefuseDisabled returns the problem for a disabled host, or nil.
func RefuseDisabled(list *datadir.DisabledSnapshot, host episode.Name) *wire.Problem {
	if list.Err != nil {
		return wire.Refuse(wire.Internal, "the receiver cannot read its list of disabled hosts; its log says why")
	}
	if list.IsRemoved(host) {
		return wire.Refuse(wire.Forbidden, "host %s was removed; to let it join again, run 'receiver invite %s --again' on the receiver", host, host)
	}
	if list.Has(host) {
		return wire.Refuse(wire.Forbidden, "host %s is disabled; enable it on the receiver with 'receiver hosts enable %s'", host, host)
	}
	return nil
}

// Review is called by the timer. It ends the requests of hosts whose certificate has expired
// or that were disabled since the last call.
func (a *Control) Review() {
	a.ticking.Lock()
	defer a.ticking.Unlock()
	if a.isClosed() {
		return
	}
	list, now := a.disabled.Current(), a.gate.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	changed := list != a.reviewed
	a.reviewLocked(list, func(ends time.Time) bool { return changed || now.After(ends) })
	if len(a.requests) > 0 {
		a.timer.Reset(reviewInterval)
	}
}

// ReviewAll checks all requests in flight, and ends those of hosts that lost access.
func (a *Control) ReviewAll() {
	list := a.disabled.Current()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviewLocked(list, func(time.Time) bool { return true })
}

// endedRequests are the requests of a host that a review has ended.
type endedRequests struct {
	count  int
	reason *wire.Problem
}

// reviewLocked checks the callers for which due reports true, and ends the requests of those
// without access. due is called with the time when their certificates expire. The caller
// must hold a.mu.
func (a *Control) reviewLocked(list *datadir.DisabledSnapshot, due func(ends time.Time) bool) {
	a.reviewed = list
	hosts := make(map[episode.Name]endedRequests)
	for q := range a.requests {
		if !due(q.accessEnds) || q.refusalProblem() != nil {
			continue
		}
		caller, p := a.checkCaller(list, q.caller)
		if p == nil {
			q.accessEnds = caller.AccessEnds
			continue
		}
		q.cancelWith(p)
		e := hosts[q.caller.Host]
		hosts[q.caller.Host] = endedRequests{e.count + 1, p}
	}
	for host, e := range hosts {
		a.log.Info("host lost access", "host", host, "requests", e.count, "err", e.reason)
	}
}
