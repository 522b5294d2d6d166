package admission

import (
	"log/slog"
	"math"
	"sync"
	"time"

	"cis490/internal/episode"
)

// A host is refused only for a count that is not older than recountAfter: uploads may
// have been discarded, or archives deleted by hand. Counting a host's archives
// takes at most a twentieth of the time.
const (
	recountAfter = time.Minute
	countPause   = 20
)

// Quota bounds the space of the archives of one host, with what Count counts of its
// unfinished uploads. What is stored is counted when a host first connects; from then on
// what it sends is added.
type Quota struct {
	Max   int64 // bytes per host; 0: unlimited
	Count func(episode.Name) (int64, error)
	// Shared says that others store archives of the same hosts. Then a host is not admitted for an old
	// count either.
	Shared bool
	Log    *slog.Logger

	mu    sync.Mutex
	hosts map[episode.Name]*hostUsage // guarded by mu
}

// hostUsage is the disk space of one host.
type hostUsage struct {
	mu       sync.Mutex // guards the fields below
	written  int64      // never too low, but includes what was discarded since counted
	reserved int64      // not written yet
	counted  time.Time
	took     time.Duration // of the last count
	warned   bool          // that it is near the quota
}

func (q *Quota) usageOf(host episode.Name) *hostUsage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.hosts == nil {
		q.hosts = make(map[episode.Name]*hostUsage)
	}
	u := q.hosts[host]
	if u == nil {
		u = new(hostUsage)
		q.hosts[host] = u
	}
	return u
}

// bytesLeft returns how much may still be reserved for a host.
func (q *Quota) bytesLeft(host episode.Name) (int64, error) {
	if q.Max == 0 {
		return math.MaxInt64, nil
	}
	u := q.usageOf(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	return q.leftLocked(u, host, 1)
}

// leftLocked is left for a host that wants n bytes. It counts again if they are not
// available, or others may have used them. The caller must hold u.mu.
func (q *Quota) leftLocked(u *hostUsage, host episode.Name, n int64) (int64, error) {
	left := q.Max - u.written - u.reserved
	isOld := u.counted.IsZero() || time.Since(u.counted) >= max(recountAfter, countPause*u.took)
	if !isOld || !q.Shared && left >= n && !u.counted.IsZero() {
		return left, nil
	}
	began := time.Now()
	stored, err := q.Count(host)
	if err != nil {
		return 0, err
	}
	u.written, u.counted, u.took = stored, time.Now(), time.Since(began)
	return q.Max - u.written - u.reserved, nil
}

// reserveBytes reserves n bytes for a host, or refuses.
func (q *Quota) reserveBytes(host episode.Name, n int64) error {
	if q.Max == 0 {
		return nil
	}
	u := q.usageOf(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	left, err := q.leftLocked(u, host, n)
	if err != nil {
		return err
	}
	if n > left {
		return overQuota()
	}
	u.reserved += n
	near := left-n < q.Max/5
	if near && !u.warned {
		q.Log.Warn("a host comes near limits.host_bytes", "host", host, "bytes", q.Max-left+n, "host_bytes", q.Max)
	}
	u.warned = near
	return nil
}

// releaseBytes returns a reservation of n bytes and counts those of them that were written.
func (q *Quota) releaseBytes(host episode.Name, n, written int64) {
	if q.Max == 0 {
		return
	}
	u := q.usageOf(host)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reserved -= n
	u.written += written
}

func overQuota() *RefusedError {
	return &RefusedError{
		Reason:     QuotaSpent,
		Detail:     "this host's archives have reached the receiver's limits.host_bytes",
		RetryAfter: fullRetryAfter,
	}
}
