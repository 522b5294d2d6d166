package receiver

import (
	"context"
	"sync"
	"time"

	"cis490/internal/digest"
	"cis490/internal/episode"
)

// heardWithin is how long an answer is kept for a sender that had gone before it
// was there: longer than a shipper waits before it asks again.
const heardWithin = 90 * time.Minute

// unheard remembers the archives of which the receiver has just seen that they are
// on its disk, for senders that had gone by then. A large archive takes longer to
// read back than a sender waits, who would have it read again, and so for ever.
type unheard struct {
	mu   sync.Mutex
	seen map[named]time.Time // guarded by mu
}

// named is an archive under its name.
type named struct {
	key    episode.Key
	digest digest.Digest
}

// note keeps an answer if its sender has gone.
func (u *unheard) note(ctx context.Context, of named) {
	if ctx.Err() == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.seen == nil {
		u.seen = make(map[named]time.Time)
	}
	oldest, count := of, 0
	for other, at := range u.seen {
		switch {
		case time.Since(at) > heardWithin:
			delete(u.seen, other)
		case other.key.Host == of.key.Host:
			if count++; oldest == of || at.Before(u.seen[oldest]) {
				oldest = other
			}
		}
	}
	if count >= mostUnheard {
		delete(u.seen, oldest)
	}
	u.seen[of] = time.Now()
}

// mostUnheard bounds the answers that are kept for a host.
const mostUnheard = 64

// take reports whether there is an answer for the sender, who is told it now.
func (u *unheard) take(of named) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, kept := u.seen[of]
	delete(u.seen, of)
	return kept && time.Since(at) <= heardWithin
}
