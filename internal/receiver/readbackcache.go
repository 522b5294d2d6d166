package receiver

import (
	"context"
	"sync"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// readbackCacheTTL is how long an answer is kept for a sender that had gone before it
// was there: longer than a shipper waits before it asks again.
const readbackCacheTTL = 90 * time.Minute

// readbackCache remembers the archives of which the receiver has just seen that they are
// on its disk, for senders that had gone by then. A large archive takes longer to
// read back than a sender waits, who would have it read again, and so for ever.
type readbackCache struct {
	mu      sync.Mutex
	foundAt map[archiveID]time.Time // guarded by mu
}

// archiveID is an archive under its name.
type archiveID struct {
	key    episode.Key
	digest digest.Digest
}

// add keeps an answer if its sender has gone.
func (u *readbackCache) add(ctx context.Context, of archiveID) {
	if ctx.Err() == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.foundAt == nil {
		u.foundAt = make(map[archiveID]time.Time)
	}
	oldest, count := of, 0
	for other, at := range u.foundAt {
		switch {
		case time.Since(at) > readbackCacheTTL:
			delete(u.foundAt, other)
		case other.key.Host == of.key.Host:
			if count++; oldest == of || at.Before(u.foundAt[oldest]) {
				oldest = other
			}
		}
	}
	if count >= maxCachedReadbacks {
		delete(u.foundAt, oldest)
	}
	u.foundAt[of] = time.Now()
}

// maxCachedReadbacks bounds the answers that are kept for a host.
const maxCachedReadbacks = 64

// take reports whether there is an answer for the sender, who is told it now.
func (u *readbackCache) take(of archiveID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, kept := u.foundAt[of]
	delete(u.foundAt, of)
	return kept && time.Since(at) <= readbackCacheTTL
}
