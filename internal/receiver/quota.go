package receiver

import (
	"log/slog"
	"math"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// recountAfter is how old a count may be before a host is told that its part of the
// disk is used up: uploads may have come to nothing, or somebody has made room.
const recountAfter = time.Minute

// quota bounds what the archives of one host take of the disk, those included that
// are on their way. What is there is counted when a host first comes, and from then on
// what comes is added.
type quota struct {
	most  int64 // 0: there is no bound
	count func(episode.Name) (int64, error)
	log   *slog.Logger

	mu    sync.Mutex
	hosts map[episode.Name]*usage // guarded by mu
}

// usage is what one host takes.
type usage struct {
	mu       sync.Mutex
	written  int64 // counted, and since; never too little, but what was thrown away is in it
	promised int64 // not written yet
	counted  time.Time
	told     bool // that it comes near its bound
}

func (q *quota) of(host episode.Name) *usage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hosts == nil {
		q.hosts = make(map[episode.Name]*usage)
	}
	u := q.hosts[host]
	if u == nil {
		u = new(usage)
		q.hosts[host] = u
	}
	return u
}

// left returns what may still be promised to a host.
func (q *quota) left(host episode.Name) (int64, error) {
	if q.most == 0 {
		return math.MaxInt64, nil
	}
	u := q.of(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	return q.leftLocked(u, host, 1)
}

// leftLocked is left for who wants n bytes. If they are not there it counts again.
func (q *quota) leftLocked(u *usage, host episode.Name, n int64) (int64, error) {
	left := q.most - u.written - u.promised
	if !u.counted.IsZero() && (left >= n || time.Since(u.counted) < recountAfter) {
		return left, nil
	}
	there, err := q.count(host)
	if err != nil {
		return 0, err
	}
	u.written, u.counted = there, time.Now()
	return q.most - u.written - u.promised, nil
}

// promise promises n bytes to a host, or refuses.
func (q *quota) promise(host episode.Name, n int64) error {
	if q.most == 0 {
		return nil
	}
	u := q.of(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	left, err := q.leftLocked(u, host, n)
	if err != nil {
		return err
	}
	if n > left {
		return overQuota()
	}
	u.promised += n
	near := left-n < q.most/5
	if near && !u.told {
		q.log.Warn("a host comes near limits.host_bytes", "host", host, "bytes", q.most-left+n, "host_bytes", q.most)
	}
	u.told = near
	return nil
}

// settle takes a promise of n bytes back, of which so many were written.
func (q *quota) settle(host episode.Name, n, written int64) {
	if q.most == 0 {
		return
	}
	u := q.of(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.promised -= n
	u.written += written
}

func overQuota() *wire.Problem {
	p := wire.Refuse(wire.Full, "this host's archives have reached the receiver's limits.host_bytes")
	p.RetryAfter = fullRetry
	return p
}
