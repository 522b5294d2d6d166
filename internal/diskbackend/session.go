package diskbackend

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// uploadSession is the server's state between the pieces of one upload. While the session
// is open, its Upload has neither digest nor size.
type uploadSession struct {
	wire.Upload
	id string

	// sem is held by the one request that has acquired the session. It guards the fields
	// below, which only a [heldSession] may use.
	sem       chan struct{}
	ended     bool   // stored or dropped
	started   bool   // there is a file in staging
	offset    int64  // number of durable bytes
	hashState []byte // of the sha256 of these bytes
	restored  bool   // an earlier process wrote these bytes

	mu         sync.Mutex  // guards the fields below
	lastUsedAt time.Time   // when a request last acquired or closed the session
	lastByteAt time.Time   // when its last byte was made durable, or it was announced
	waiting    int         // requests that wait for sem
	interrupt  func(error) // ends the request that holds sem; nil if that ends by itself
}

var (
	errSuperseded = wire.Refuse(wire.Superseded, "another request continues the upload")
	errNoUpload   = wire.Refuse(wire.NoUpload, "announce it again")
)

func newSession(u wire.Upload, id string, now time.Time) *uploadSession {
	return &uploadSession{Upload: u, id: id, sem: make(chan struct{}, 1), lastUsedAt: now, lastByteAt: now}
}

// heldSession is a session that one request has acquired. The holder must call Close, which
// is the only way to release it.
type heldSession struct{ *uploadSession }

// acquire waits for the session. It interrupts the request that holds it, whose connection
// may be dead. interrupt ends the caller's request for the next one, unless it is nil.
// acquire returns [wire.NoUpload] if the session has ended meanwhile.
func (u *uploadSession) acquire(ctx context.Context, interrupt func(error)) (*heldSession, error) {
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
		interrupt(errSuperseded) // the latest request wins
	}
	return &heldSession{u}, nil
}

// tryAcquireIdle acquires the session unless a request holds it or waits for it, or a byte
// was received after a time. Otherwise it returns nil.
func (u *uploadSession) tryAcquireIdle(since time.Time) *heldSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting > 0 || u.lastByteAt.After(since) {
		return nil
	}
	select {
	case u.sem <- struct{}{}:
		return &heldSession{u}
	default:
		return nil
	}
}

func (u *uploadSession) lastUsed() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastUsedAt
}

// isOpen reports whether the digest and the size of the upload are not known yet.
func (u *uploadSession) isOpen() bool { return u.Digest.IsZero() }

// Close releases the session.
func (h *heldSession) Close() {
	h.mu.Lock()
	h.lastUsedAt, h.interrupt = time.Now(), nil
	h.mu.Unlock()
	<-h.sem
}

// advanceTo records that the upload is durable up to offset.
func (h *heldSession) advanceTo(offset int64, hashState []byte) {
	h.offset, h.hashState = offset, hashState
	h.mu.Lock()
	h.lastByteAt = time.Now()
	h.mu.Unlock()
}

// progress returns what the sender needs to continue.
func (h *heldSession) progress() wire.Unfinished {
	p := wire.Unfinished{ID: h.id, Offset: h.offset, Length: h.Size}
	if h.isOpen() {
		p.Length = -1
	}
	return p
}

// sessionsPerUpload is how many sessions a host may have for each upload that may be in
// flight. More are started only where connections break often.
const sessionsPerUpload = 2

// sessions has the sessions of all hosts. Those with durable bytes are restored from
// staging at the start. The others are lost with the process, and announced again.
type sessions struct {
	maxPerHost int

	mu       sync.Mutex // guards the fields below
	byIDs    map[string]*uploadSession
	byUpload map[wire.Upload]*uploadSession
	perHost  map[episode.Name]int
}

func newSessions(uploadsPerHost int) *sessions {
	return &sessions{
		maxPerHost: sessionsPerUpload * uploadsPerHost, byIDs: make(map[string]*uploadSession),
		byUpload: make(map[wire.Upload]*uploadSession), perHost: make(map[episode.Name]int),
	}
}

// byID returns the session of a host with an id, or nil. It does not return the sessions of
// other hosts.
func (s *sessions) byID(host episode.Name, id string) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byIDs[id]
	if u == nil || u.Key.Host != host {
		return nil
	}
	return u
}

// findSession returns the session of an archive, or nil.
func (s *sessions) findSession(of wire.Upload) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byUpload[of]
}

// getOrCreate returns the session of an archive, a new one if there is none, or nil if the
// host has the maximum number of sessions.
func (s *sessions) getOrCreate(of wire.Upload) *uploadSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.byUpload[of]; u != nil {
		return u
	}
	if s.perHost[of.Key.Host] >= s.maxPerHost {
		return nil
	}
	u := newSession(of, rand.Text(), time.Now())
	s.insertLocked(u)
	return u
}

// addRestored inserts a session that an earlier process has started. It reports whether there
// is neither another one of the same archive nor the maximum number.
func (s *sessions) addRestored(u *uploadSession) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUpload[u.Upload] != nil || s.perHost[u.Key.Host] >= s.maxPerHost {
		return false
	}
	s.insertLocked(u)
	return true
}

// finalizeLength makes an open session that of an archive, under the same id. The open session
// has ended then. If the archive has a session already, both stay as they are.
func (s *sessions) finalizeLength(open *heldSession, of wire.Upload) {
	final := newSession(of, open.id, time.Now())
	final.started, final.restored = open.started, open.restored
	final.offset, final.hashState = open.offset, open.hashState
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUpload[of] != nil {
		return
	}
	s.removeLocked(open)
	s.insertLocked(final)
}

// removeSession ends a session.
func (s *sessions) removeSession(h *heldSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(h)
}

// insertLocked adds a session. The caller must hold s.mu.
func (s *sessions) insertLocked(u *uploadSession) {
	s.byIDs[u.id], s.byUpload[u.Upload] = u, u
	s.perHost[u.Key.Host]++
}

// removeLocked ends a session. The caller must hold s.mu.
func (s *sessions) removeLocked(h *heldSession) {
	h.ended = true
	delete(s.byIDs, h.id)
	delete(s.byUpload, h.Upload)
	if s.perHost[h.Key.Host]--; s.perHost[h.Key.Host] == 0 {
		delete(s.perHost, h.Key.Host)
	}
}

// acquireOldestIdle acquires the session of a host that was not used for the longest time,
// or returns nil if all are in use.
func (s *sessions) acquireOldestIdle(host episode.Name) *heldSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	var candidates []*uploadSession
	for _, u := range s.byIDs {
		if u.Key.Host == host {
			candidates = append(candidates, u)
		}
	}
	slices.SortFunc(candidates, func(a, b *uploadSession) int { return a.lastUsed().Compare(b.lastUsed()) })
	for _, u := range candidates {
		if h := u.tryAcquireIdle(time.Now()); h != nil {
			return h
		}
	}
	return nil
}

// acquireIdle acquires the sessions that have received no byte since a time.
func (s *sessions) acquireIdle(since time.Time) []*heldSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	var idle []*heldSession
	for _, u := range s.byIDs {
		if h := u.tryAcquireIdle(since); h != nil {
			idle = append(idle, h)
		}
	}
	return idle
}
