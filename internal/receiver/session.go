package receiver

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// uploadSession is an upload that was announced and has not ended. While it is open
// its Upload has no digest and no size.
type uploadSession struct {
	wire.Upload
	id string

	// turn is held by the one request that goes on with the upload. It guards the
	// fields below.
	sem       chan struct{}
	ended     bool   // stored, or given up
	started   bool   // there is a file in staging
	offset    int64  // of it is durable
	hashState []byte // of the sha256 of that
	restored  bool   // a former receiver began it

	mu         sync.Mutex  // guards the fields below
	lastUsedAt time.Time   // when a request last had the turn
	lastByteAt time.Time   // when its last byte came, or it was announced
	waiting    int         // requests that want the turn
	interrupt  func(error) // ends what has it; nil if that ends by itself
}

// acquire waits for the turn, which whoever has it is made to give up: its
// connection may be dead. It returns what gives the turn up, or [wire.NoUpload] if
// the upload has ended meanwhile.
func (u *uploadSession) acquire(ctx context.Context, interrupt func(error)) (func(), error) {
	u.mu.Lock()
	u.waiting++
	if u.interrupt != nil {
		u.interrupt(errSuperseded)
	}
	u.mu.Unlock()
	var err error
	select {
	case u.sem <- struct{}{}:
	case <-ctx.Done():
		err = ctx.Err()
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waiting--
	if err != nil {
		return nil, err
	}
	if u.ended {
		<-u.sem
		return nil, errNoUpload
	}
	if u.lastUsedAt, u.interrupt = time.Now(), interrupt; u.waiting > 0 && interrupt != nil {
		interrupt(errSuperseded) // the latest wins
	}
	return u.release, nil
}

func (u *uploadSession) release() {
	u.mu.Lock()
	u.lastUsedAt, u.interrupt = time.Now(), nil
	u.mu.Unlock()
	<-u.sem
}

// advance notes that so much of the upload is durable. The caller has the turn.
func (u *uploadSession) advance(offset int64, state []byte) {
	u.offset, u.hashState = offset, state
	u.mu.Lock()
	u.lastByteAt = time.Now()
	u.mu.Unlock()
}

var (
	errSuperseded = wire.Refuse(wire.Superseded, "another request goes on with it")
	errNoUpload   = wire.Refuse(wire.NoUpload, "announce it again")
)

// isOpen reports whether it is not known yet what the upload will be.
func (u *uploadSession) isOpen() bool { return u.Digest.IsZero() }

// progress is what a sender is told.
func (u *uploadSession) progress() wire.Unfinished {
	told := wire.Unfinished{ID: u.id, Offset: u.offset, Length: u.Size}
	if u.isOpen() {
		told.Length = -1
	}
	return told
}

// tryAcquireIdle takes the turn of an upload of which nothing has come since a time.
func (u *uploadSession) tryAcquireIdle(since time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting > 0 || u.lastByteAt.After(since) {
		return false
	}
	select {
	case u.sem <- struct{}{}:
		return true
	default:
		return false
	}
}

// sessions are the unfinished ones. What of them is on the disk is read from
// staging at the start; the rest is gone with the process, and announced again.
type sessions struct {
	maxPerHost int // at most, of a host

	mu       sync.Mutex // guards the fields below
	byIDs    map[string]*uploadSession
	byUpload map[wire.Upload]*uploadSession
	perHost  map[episode.Name]int
}

// sessionsPerUpload is how many uploads of a host may be unfinished, to one that may
// be under way: more are begun only where links break often.
const sessionsPerUpload = 2

func newSessions(perHost int) *sessions {
	return &sessions{
		maxPerHost: sessionsPerUpload * perHost, byIDs: make(map[string]*uploadSession),
		byUpload: make(map[wire.Upload]*uploadSession), perHost: make(map[episode.Name]int),
	}
}

// byID returns the upload of a host with an id, or nil. To another host it is
// not there.
func (s *sessions) byID(host episode.Name, id string) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byIDs[id]
	if u == nil || u.Key.Host != host {
		return nil
	}
	return u
}

// find returns the unfinished upload of the same archive, or nil.
func (s *sessions) find(of wire.Upload) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byUpload[of]
}

// getOrCreate returns the unfinished upload of an archive, a new one if there is none,
// or nil if the host has enough.
func (s *sessions) getOrCreate(of wire.Upload) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.byUpload[of]; u != nil {
		return u
	}
	if s.perHost[of.Key.Host] >= s.maxPerHost {
		return nil
	}
	u := &uploadSession{Upload: of, id: rand.Text(), sem: make(chan struct{}, 1)}
	u.lastUsedAt = time.Now()
	u.lastByteAt = u.lastUsedAt
	s.insertLocked(u)
	return u
}

// insertLocked notes an upload. The lock is held.
func (s *sessions) insertLocked(u *uploadSession) {
	s.byIDs[u.id], s.byUpload[u.Upload] = u, u
	s.perHost[u.Key.Host]++
}

// finalize makes an open upload, whose turn the caller has, that of an archive, and it
// has ended then. If the archive has one already, as it may have since the caller
// looked, both stay.
func (s *sessions) finalize(open *uploadSession, u wire.Upload) {
	known := &uploadSession{
		Upload: u, id: open.id, sem: make(chan struct{}, 1),
		started: open.started, restored: open.restored, offset: open.offset, hashState: open.hashState,
		lastUsedAt: time.Now(), lastByteAt: time.Now(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUpload[u] != nil {
		return
	}
	s.removeLocked(open)
	s.insertLocked(known)
}

// remove takes an upload off the books. The caller has its turn.
func (s *sessions) remove(u *uploadSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(u)
}

// removeLocked takes an upload off the books. The lock is held.
func (s *sessions) removeLocked(u *uploadSession) {
	u.ended = true
	delete(s.byIDs, u.id)
	delete(s.byUpload, u.Upload)
	if s.perHost[u.Key.Host]--; s.perHost[u.Key.Host] == 0 {
		delete(s.perHost, u.Key.Host)
	}
}

// acquireOldestIdle returns the upload of a host with which nobody has gone on for longest,
// with its turn, or nil if all are under way.
func (s *sessions) acquireOldestIdle(host episode.Name) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *uploadSession
	for _, u := range s.byIDs {
		if u.Key.Host != host || !u.tryAcquireIdle(time.Now()) {
			continue
		}
		if found != nil && !u.lastUsedAt.Before(found.lastUsedAt) {
			<-u.sem
			continue
		}
		if found != nil {
			<-found.sem
		}
		found = u
	}
	return found
}

// acquireIdle returns those of which nothing has come since a time, with their turns.
func (s *sessions) acquireIdle(since time.Time) []*uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*uploadSession
	for _, u := range s.byIDs {
		if u.tryAcquireIdle(since) {
			found = append(found, u)
		}
	}
	return found
}
