package diskbackend

import (
	"context"
	"sync"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// readbackCacheTTL is how long a result is kept for a client that disconnected before it
// received it. It must be longer than a shipper waits before it tries again.
const readbackCacheTTL = 90 * time.Minute

// maxCachedReadbacks is the maximum number of results that are kept per host.
const maxCachedReadbacks = 64

// readbackCache remembers which archives were just read from the disk and found
// intact, for clients that had disconnected by then. Reading a large archive takes longer
// than a client waits. Without the cache each attempt would read it again, and none would
// ever be answered.
type readbackCache struct {
	mu      sync.Mutex
	foundAt map[archiveID]time.Time // guarded by mu
}

// archiveID is an archive and its name.
type archiveID struct {
	key    episode.Key
	digest digest.Digest
}

// addResult keeps a result if the client of ctx has disconnected.
func (c *readbackCache) addResult(ctx context.Context, id archiveID) {
	if ctx.Err() == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foundAt == nil {
		c.foundAt = make(map[archiveID]time.Time)
	}
	oldest, count := id, 0
	for other, at := range c.foundAt {
		switch {
		case time.Since(at) > readbackCacheTTL:
			delete(c.foundAt, other)
		case other.key.Host == id.key.Host:
			if count++; oldest == id || at.Before(c.foundAt[oldest]) {
				oldest = other
			}
		}
	}
	if count >= maxCachedReadbacks {
		delete(c.foundAt, oldest)
	}
	c.foundAt[id] = time.Now()
}

// takeResult removes a result, and reports whether there was one. The client receives it now.
func (c *readbackCache) takeResult(id archiveID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, cached := c.foundAt[id]
	delete(c.foundAt, id)
	return cached && time.Since(at) <= readbackCacheTTL
}
