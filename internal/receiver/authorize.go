package receiver

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

// accessControl decides which hosts are served. It knows the requests in flight, and ends those of
// hosts that lose access. Their number is limited by that of the connections. The next
// request on an open connection is refused like any other.
type accessControl struct {
	gate     *gate.Gate
	disabled *datadir.DisabledWatch
	log      *slog.Logger

	ticking sync.Mutex // held by tick, so that close waits for it

	mu       sync.Mutex // guards the fields below
	requests map[*activeRequest]struct{}
	timer    *time.Timer               // runs while there is a request
	reviewed *datadir.DisabledSnapshot // the list at the last review
	closed   bool
	handlers int // that run
}

// activeRequest is a request in flight whose host was admitted.
type activeRequest struct {
	caller     gate.Caller // guarded by access.mu until admitted, then constant
	accessEnds time.Time   // guarded by access.mu; when the caller's certificates expire

	cancel context.CancelCauseFunc // ends the request
	// work ends when the host loses access, but not when the sender disconnects.
	workCtx    context.Context
	cancelWork context.CancelCauseFunc
}

// cancelWith ends a request. p is the answer.
func (q *activeRequest) cancelWith(p *wire.Problem) {
	q.cancel(p)
	q.cancelWork(p)
}

// refusalProblem returns the problem that ended the request, or nil.
func (q *activeRequest) refusalProblem() *wire.Problem {
	p, _ := errors.AsType[*wire.Problem](context.Cause(q.workCtx))
	return p
}

func newAccessControl(gate *gate.Gate, disabled *datadir.DisabledWatch, log *slog.Logger) *accessControl {
	return &accessControl{
		gate: gate, disabled: disabled, log: log, reviewed: disabled.Current(),
		requests: make(map[*activeRequest]struct{}),
	}
}

// close ends the reviews, so that the data directory may be closed. It does not end requests.
func (a *accessControl) close() {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.ticking.Lock() // waits for a tick that has begun
	defer a.ticking.Unlock()
}

func (a *accessControl) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// beginHandler reports whether a handler may use the data directory. It may not after close.
func (a *accessControl) beginHandler() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.handlers++
	}
	return !a.closed
}

func (a *accessControl) endHandler() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handlers--
}

// waitIdle waits until no handler runs, and reports whether that is so.
func (a *accessControl) waitIdle(limit time.Duration) bool {
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

// requestKey is the key of the activeRequest in a request's context.
type requestKey struct{}

// wrapHandler gives each request contexts that end when its host loses access. base is the parent
// of the work that continues after a sender has disconnected.
func (a *accessControl) wrapHandler(base context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !a.beginHandler() {
			return
		}
		defer a.endHandler()
		q := &activeRequest{}
		ctx, cancel := context.WithCancelCause(context.WithValue(req.Context(), requestKey{}, q))
		q.cancel = cancel
		q.workCtx, q.cancelWork = context.WithCancelCause(context.WithValue(base, requestKey{}, q))
		defer cancel(nil)
		defer q.cancelWork(nil)
		defer a.removeRequest(q)
		next.ServeHTTP(w, req.WithContext(ctx))
	})
}

// workContext returns the context of work that continues if the sender of ctx disconnects. It
// ends with base, or when the sender's host loses access.
func workContext(ctx, base context.Context) context.Context {
	if q, ok := ctx.Value(requestKey{}).(*activeRequest); ok {
		return q.workCtx
	}
	return base
}

// admitRequest admits a caller that the gate has admitted, unless its host is disabled, and adds
// the request to those that are reviewed. It asks the gate again, because the answer may be older
// than the last review.
func (a *accessControl) admitRequest(req *http.Request, caller gate.Caller) error {
	q, _ := req.Context().Value(requestKey{}).(*activeRequest)
	a.addRequest(q, caller)
	if _, p := a.checkCaller(a.disabled.Current(), caller); p != nil {
		a.removeRequest(q)
		return p
	}
	return nil
}

func (a *accessControl) addRequest(q *activeRequest, caller gate.Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q == nil {
		return
	}
	q.caller, q.accessEnds = caller, caller.AccessEnds
	a.requests[q] = struct{}{}
	if a.timer == nil && !a.closed {
		a.timer = time.AfterFunc(reviewInterval, a.reviewDue)
	}
}

func (a *accessControl) removeRequest(q *activeRequest) {
	if q == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.requests, q)
}

// recheckRequest checks again whether the sender of a request has access. If not, it ends the
// request and returns the [*wire.Problem] that a new request would get. A context that does not
// belong to a request passes.
func (a *accessControl) recheckRequest(ctx context.Context) error {
	q, ok := ctx.Value(requestKey{}).(*activeRequest)
	if !ok || q.caller.Host == "" {
		return nil
	}
	if p := q.refusalProblem(); p != nil {
		return p
	}
	if _, p := a.checkCaller(a.disabled.Current(), q.caller); p != nil {
		q.cancelWith(p)
		return p
	}
	return nil
}

// checkCaller returns a caller as the gate sees it now, or the problem for it.
func (a *accessControl) checkCaller(list *datadir.DisabledSnapshot, caller gate.Caller) (gate.Caller, *wire.Problem) {
	now, err := a.gate.RecheckCaller(caller)
	if err != nil {
		return caller, refuseCaller(err)
	}
	return now, refuseDisabled(list, caller.Host)
}

// refuseCaller returns the problem for a caller that the gate refuses.
func refuseCaller(err error) *wire.Problem {
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p
	}
	if errors.Is(err, gate.ErrToken) {
		return wire.Refuse(wire.TokenRefused, "%v", err)
	}
	return wire.Refuse(wire.Forbidden, "%v", err)
}

// refuseDisabled returns the problem for a disabled host, or nil.
func refuseDisabled(list *datadir.DisabledSnapshot, host episode.Name) *wire.Problem {
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

// reviewDue is called by the timer. It ends the requests of hosts whose certificate has expired
// or that were disabled since the last call.
func (a *accessControl) reviewDue() {
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
	if len(a.requests) == 0 {
		a.timer = nil
		return
	}
	a.timer.Reset(reviewInterval)
}

// reviewAll checks all requests in flight, and ends those of hosts that lost access.
func (a *accessControl) reviewAll() {
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
func (a *accessControl) reviewLocked(list *datadir.DisabledSnapshot, due func(ends time.Time) bool) {
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
