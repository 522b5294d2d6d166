package admission

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"
)

// How many log lines there may be. journald drops what a service writes beyond 10,000
// lines in 30 s, from all causes together (RateLimitBurst= in journald.conf(5)).
//
// Each host has a few lines of its own, and takes further ones from a budget of all
// hosts. Errors have a budget apart, so that no flood hides them.
const (
	hostLinesPerSecond   = 2 // per second
	hostLineBurst        = 50
	errorLinesPerSecond  = 5 // per second and host
	errorLineBurst       = 100
	sharedLinesPerSecond = 200 // per second
	sharedLineBurst      = 3000
)

// hostKey is the attribute of a record that names the host that caused it.
const hostKey = "host"

// LimitLines returns a handler that passes records on to next while the host that caused
// them has budget left. The next record of that host says how many are missing before
// it, as suppressed=N. Records without a host share one budget.
func LimitLines(next slog.Handler) slog.Handler {
	return &lineLimiter{Handler: next, budget: &lineBudget{
		shared: rate.NewLimiter(sharedLinesPerSecond, sharedLineBurst),
		hosts:  make(map[string]*hostBudget),
	}}
}

type lineLimiter struct {
	slog.Handler
	budget *lineBudget
	host   string // of attributes that were added before
}

// lineBudget is shared by the handlers that WithAttrs and WithGroup return.
type lineBudget struct {
	shared *rate.Limiter

	mu    sync.Mutex             // guards the fields below
	hosts map[string]*hostBudget // grows with the number of hosts
}

// hostBudget is guarded by lineBudget.mu.
type hostBudget struct {
	lines, errors *rate.Limiter
	suppressed    int // since the last record that was passed on
}

func (l *lineLimiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *l
	c.Handler = l.Handler.WithAttrs(attrs)
	for _, a := range attrs {
		if a.Key == hostKey {
			c.host = a.Value.String()
		}
	}
	return &c
}

func (l *lineLimiter) WithGroup(name string) slog.Handler {
	c := *l
	c.Handler = l.Handler.WithGroup(name)
	return &c
}

func (l *lineLimiter) Handle(ctx context.Context, r slog.Record) error {
	host := l.host
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == hostKey {
			host = a.Value.String()
		}
		return a.Key != hostKey
	})
	pass, suppressed := l.budget.allowLine(host, r.Level)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return l.Handler.Handle(ctx, r)
}

// allowLine reports whether a record may be passed on, and how many before it were not.
func (b *lineBudget) allowLine(host string, level slog.Level) (pass bool, suppressed int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.hosts[host]
	if h == nil {
		h = &hostBudget{lines: rate.NewLimiter(hostLinesPerSecond, hostLineBurst), errors: rate.NewLimiter(errorLinesPerSecond, errorLineBurst)}
		b.hosts[host] = h
	}
	if level >= slog.LevelError {
		pass = h.errors.Allow()
	} else {
		pass = h.lines.Allow() || b.shared.Allow()
	}
	if !pass {
		h.suppressed++
		return false, 0
	}
	suppressed, h.suppressed = h.suppressed, 0
	return true, suppressed
}
