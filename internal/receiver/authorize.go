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
	"cis490/internal/pki"
	"cis490/internal/wire"
)

// reviewInterval is how often the clock and the list of disabled hosts are looked at
// for the sake of requests that are under way. Each new request, and each commit, looks
// for itself.
const reviewInterval = time.Second

// access decides who is served, and keeps deciding: it knows the requests under way, and
// ends those of hosts that lost access. Their number is bounded by that of the connections.
// The next request on an open connection is refused as any other.
type access struct {
	gate     *pki.Gate
	disabled *datadir.DisabledWatch
	log      *slog.Logger

	ticking sync.Mutex // held by tick, so that close waits for it

	mu       sync.Mutex // guards the fields below
	requests map[*activeRequest]struct{}
	timer    *time.Timer               // runs while there is a request
	reviewed *datadir.DisabledSnapshot // the list at the last review
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

func newAccess(gate *pki.Gate, disabled *datadir.DisabledWatch, log *slog.Logger) *access {
	return &access{
		gate: gate, disabled: disabled, log: log, reviewed: disabled.Current(),
		requests: make(map[*activeRequest]struct{}),
	}
}

// close ends the reviews, so that the data directory may be closed. Requests end by other
// means.
func (a *access) close() {
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.ticking.Lock() // a tick that had begun has ended
	defer a.ticking.Unlock()
}

func (a *access) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// requestKey is where a request's context has its activeRequest.
type requestKey struct{}

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
// watches the request from then on. It asks the gate again, because
// the answer may be older than the last review.
func (a *access) admit(req *http.Request, caller pki.Caller) error {
	q, _ := req.Context().Value(requestKey{}).(*activeRequest)
	a.add(q, caller)
	if _, p := a.check(a.disabled.Current(), caller); p != nil {
		a.remove(q)
		return p
	}
	return nil
}

func (a *access) add(q *activeRequest, caller pki.Caller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if q == nil {
		return
	}
	q.caller, q.ends = caller, caller.Ends
	a.requests[q] = struct{}{}
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
	if _, p := a.check(a.disabled.Current(), q.caller); p != nil {
		q.end(p)
		return p
	}
	return nil
}

// check returns a caller as the gate sees it now, or what it is told instead.
func (a *access) check(list *datadir.DisabledSnapshot, caller pki.Caller) (pki.Caller, *wire.Problem) {
	now, err := a.gate.Recheck(caller)
	if err != nil {
		return caller, refuseCaller(err)
	}
	return now, refuseDisabled(list, caller.Host)
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

// refuseDisabled returns the problem for a disabled host, or nil.
func refuseDisabled(list *datadir.DisabledSnapshot, host episode.Name) *wire.Problem {
	if list.Err != nil {
		return wire.Refuse(wire.Internal, "the receiver cannot read its list of disabled hosts; its log says why")
	}
	if list.Has(host) {
		return wire.Refuse(wire.Forbidden, "host %s is disabled; enable it on the receiver with 'receiver hosts enable %s'", host, host)
	}
	return nil
}

// tick is what the timer does: it ends what the clock or the list of disabled hosts
// has ended since the last time.
func (a *access) tick() {
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

// review asks again about all requests under way, and ends those of hosts that lost access.
func (a *access) review() {
	list := a.disabled.Current()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviewLocked(list, func(time.Time) bool { return true })
}

// ended counts what a review ended of a host.
type ended struct {
	requests int
	why      *wire.Problem
}

// reviewLocked asks again about the callers for whom due, which gets the time at which
// their access ends by itself, reports true. The caller must hold a.mu.
func (a *access) reviewLocked(list *datadir.DisabledSnapshot, due func(ends time.Time) bool) {
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
		hosts[q.caller.Host] = ended{e.requests + 1, p}
	}
	for host, e := range hosts {
		a.log.Info("host lost access", "host", host, "requests", e.requests, "err", e.why)
	}
}
