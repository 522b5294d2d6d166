// Package readback remembers which archives were just read and found intact, for clients that had
// disconnected by then.
//
// Invariant: a result is used once, and not after it has expired.
package readback

import (
	"context"
	"sync"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// cacheTTL is how long a result is kept for a client that disconnected before it
// received it. It must be longer than a shipper waits before it tries again.
const cacheTTL = 90 * time.Minute

// maxCached is the maximum number of results that are kept per host.
const maxCached = 64

// Cache remembers which archives were just read from the disk and found
// intact, for clients that had disconnected by then. Reading a large archive takes longer
// than a client waits. Without the cache each attempt would read it again, and none would
// ever be answered.
type Cache struct {
	mu      sync.Mutex
	foundAt map[Archive]time.Time // guarded by mu
}

// Archive is an archive under its name.
type Archive struct {
	Key    episode.Key
	Digest digest.Digest
}

// Add keeps a result if the client of ctx has disconnected.
func (c *Cache) Add(ctx context.Context, id Archive) {
	if ctx.Err() == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foundAt == nil {
		c.foundAt = make(map[Archive]time.Time)
	}
	oldest, count := id, 0
	for other, at := range c.foundAt {
		switch {
		case time.Since(at) > cacheTTL:
			delete(c.foundAt, other)
		case other.Key.Host == id.Key.Host:
			count++
			if oldest == id || at.Before(c.foundAt[oldest]) {
				oldest = other
			}
		}
	}
	if count >= maxCached {
		delete(c.foundAt, oldest)
	}
	c.foundAt[id] = time.Now()
}

// Take removes a result, and reports whether there was one. The client receives it now.
func (c *Cache) Take(id Archive) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, cached := c.foundAt[id]
	delete(c.foundAt, id)
	return cached && time.Since(at) <= cacheTTL
}
