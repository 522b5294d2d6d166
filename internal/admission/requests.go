package admission

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	"cis490/internal/episode"
)

// How many requests one host may send. An ordinary host needs one to three per episode.
// Refusing a request costs a Raspberry Pi some 100 µs of CPU time.
const (
	requestsPerSecond = 4000
	requestBurst      = 4000
)

// Requests bounds how many requests per second a host may send: more of them wait. The
// zero value is ready to use. Its memory grows with the number of hosts.
type Requests struct {
	mu    sync.Mutex // guards hosts
	hosts map[episode.Name]*rate.Limiter
}

// Wait waits until a host may send its next request, or ctx ends.
func (r *Requests) Wait(ctx context.Context, host episode.Name) error {
	return r.hostLimiter(host).Wait(ctx)
}

func (r *Requests) hostLimiter(host episode.Name) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hosts == nil {
		r.hosts = make(map[episode.Name]*rate.Limiter)
	}
	l := r.hosts[host]
	if l == nil {
		l = rate.NewLimiter(requestsPerSecond, requestBurst)
		r.hosts[host] = l
	}
	return l
}
