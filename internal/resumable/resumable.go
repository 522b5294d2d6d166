// Package resumable keeps the uploads that a receiver has begun to receive, and lets one request at a
// time continue each of them. A request that continues an upload interrupts the one that holds it,
// whose connection may be dead.
//
// Invariant: a session is used only by the [Held] that its one holder has, and the number of sessions
// of a host is bounded.
package resumable

import (
	"context"
	"slices"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Session is what a receiver knows of an upload between its pieces. While the session is open, its
// Upload has neither digest nor size. P is what a backend keeps of the bytes received so far.
type Session[P any] struct {
	wire.Upload
	id string

	// sem is held by the one request that has acquired the session. It guards the fields
	// below, which only a [Held] may use.
	sem      chan struct{}
	ended    bool // stored or dropped
	progress P

	mu         sync.Mutex  // guards the fields below
	lastUsedAt time.Time   // when a request last acquired or closed the session
	lastByteAt time.Time   // when its last byte was made durable, or it was announced
	waiting    int         // requests that wait for sem
	interrupt  func(error) // ends the request that holds sem; nil if that ends by itself
}

// Errors of [Session.Acquire], for the sender.
var (
	ErrSuperseded = wire.Refuse(wire.Superseded, "another request continues the upload")
	ErrNoUpload   = wire.Refuse(wire.NoUpload, "announce it again")
)

func newSession[P any](u wire.Upload, id string, now time.Time) *Session[P] {
	return &Session[P]{Upload: u, id: id, sem: make(chan struct{}, 1), lastUsedAt: now, lastByteAt: now}
}

// ID returns the id by which the sender continues the upload.
func (u *Session[P]) ID() string { return u.id }

// Held is a session that one request has acquired. The holder must call Close, which
// is the only way to release it.
type Held[P any] struct{ *Session[P] }

// Acquire waits for the session. It interrupts the request that holds it, whose connection
// may be dead. interrupt ends the caller's request for the next one, unless it is nil.
// Acquire returns [wire.NoUpload] if the session has ended meanwhile.
func (u *Session[P]) Acquire(ctx context.Context, interrupt func(error)) (*Held[P], error) {
	u.mu.Lock()
	u.waiting++
	if u.interrupt != nil {
		u.interrupt(ErrSuperseded)
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
		return nil, ErrNoUpload
	}
	u.lastUsedAt, u.interrupt = time.Now(), interrupt
	if u.waiting > 0 && interrupt != nil {
		interrupt(ErrSuperseded) // the latest request wins
	}
	return &Held[P]{u}, nil
}

// tryAcquireIdle acquires the session unless a request holds it or waits for it, or a byte
// was received after a time. Otherwise it returns nil.
func (u *Session[P]) tryAcquireIdle(since time.Time) *Held[P] {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting > 0 || u.lastByteAt.After(since) {
		return nil
	}
	select {
	case u.sem <- struct{}{}:
		return &Held[P]{u}
	default:
		return nil
	}
}

func (u *Session[P]) lastUsed() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.lastUsedAt
}

// IsOpen reports whether the digest and the size of the upload are not known yet.
func (u *Session[P]) IsOpen() bool { return u.Digest.IsZero() }

// Close releases the session.
func (h *Held[P]) Close() {
	h.mu.Lock()
	h.lastUsedAt, h.interrupt = time.Now(), nil
	h.mu.Unlock()
	<-h.sem
}

// Progress returns what the backend keeps of the received bytes.
func (h *Held[P]) Progress() *P { return &h.progress }

// NoteByte records that a byte was received just now: the upload has not expired.
func (h *Held[P]) NoteByte() {
	h.mu.Lock()
	h.lastByteAt = time.Now()
	h.mu.Unlock()
}

// sessionsPerUpload is how many sessions a host may have for each upload that may be in
// flight. More are started only where connections break often.
const sessionsPerUpload = 2

// Sessions has the sessions of all hosts.
type Sessions[P any] struct {
	maxPerHost int

	mu       sync.Mutex // guards the fields below
	byIDs    map[string]*Session[P]
	byUpload map[wire.Upload]*Session[P]
	perHost  map[episode.Name]int
}

// New returns the sessions of hosts that may each have some uploads in flight.
func New[P any](uploadsPerHost int) *Sessions[P] {
	return &Sessions[P]{
		maxPerHost: sessionsPerUpload * uploadsPerHost, byIDs: make(map[string]*Session[P]),
		byUpload: make(map[wire.Upload]*Session[P]), perHost: make(map[episode.Name]int),
	}
}

// MaxPerHost returns how many sessions a host may have.
func (s *Sessions[P]) MaxPerHost() int { return s.maxPerHost }

// ByID returns the session of a host with an id, or nil. It does not return the sessions of
// other hosts.
func (s *Sessions[P]) ByID(host episode.Name, id string) *Session[P] {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.byIDs[id]
	if u == nil || u.Key.Host != host {
		return nil
	}
	return u
}

// Find returns the session of an archive, or nil.
func (s *Sessions[P]) Find(of wire.Upload) *Session[P] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byUpload[of]
}

// GetOrCreate returns the session of an archive, a new one with the given id if there is none, or
// nil if the host has the maximum number of sessions.
func (s *Sessions[P]) GetOrCreate(of wire.Upload, id string) *Session[P] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.byUpload[of]; u != nil {
		return u
	}
	if s.perHost[of.Key.Host] >= s.maxPerHost {
		return nil
	}
	u := newSession[P](of, id, time.Now())
	s.insertLocked(u)
	return u
}

// Restore adds a session that an earlier process has started, whose last byte arrived at a time. It
// reports whether there is neither another one of the same archive nor the maximum number.
func (s *Sessions[P]) Restore(of wire.Upload, id string, at time.Time, progress P) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUpload[of] != nil || s.perHost[of.Key.Host] >= s.maxPerHost {
		return false
	}
	u := newSession[P](of, id, at)
	u.progress = progress
	s.insertLocked(u)
	return true
}

// Finalize makes an open session that of an archive, under the same id. The open session
// has ended then. If the archive has a session already, both stay as they are.
func (s *Sessions[P]) Finalize(open *Held[P], of wire.Upload) {
	final := newSession[P](of, open.id, time.Now())
	final.progress = open.progress
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byUpload[of] != nil {
		return
	}
	s.removeLocked(open)
	s.insertLocked(final)
}

// Remove ends a session. Its holder must still close it.
func (s *Sessions[P]) Remove(h *Held[P]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(h)
}

// insertLocked adds a session. The caller must hold s.mu.
func (s *Sessions[P]) insertLocked(u *Session[P]) {
	s.byIDs[u.id], s.byUpload[u.Upload] = u, u
	s.perHost[u.Key.Host]++
}

// removeLocked ends a session. The caller must hold s.mu.
func (s *Sessions[P]) removeLocked(h *Held[P]) {
	if h.ended {
		return
	}
	h.ended = true
	delete(s.byIDs, h.id)
	delete(s.byUpload, h.Upload)
	s.perHost[h.Key.Host]--
	if s.perHost[h.Key.Host] == 0 {
		delete(s.perHost, h.Key.Host)
	}
}

// AcquireOldestIdle acquires the session of a host that was not used for the longest time,
// or returns nil if all are in use.
func (s *Sessions[P]) AcquireOldestIdle(host episode.Name) *Held[P] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var candidates []*Session[P]
	for _, u := range s.byIDs {
		if u.Key.Host == host {
			candidates = append(candidates, u)
		}
	}
	slices.SortFunc(candidates, func(a, b *Session[P]) int { return a.lastUsed().Compare(b.lastUsed()) })
	for _, u := range candidates {
		if h := u.tryAcquireIdle(time.Now()); h != nil {
			return h
		}
	}
	return nil
}

// AcquireIdle acquires the sessions that have received no byte since a time.
func (s *Sessions[P]) AcquireIdle(since time.Time) []*Held[P] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var idle []*Held[P]
	for _, u := range s.byIDs {
		if h := u.tryAcquireIdle(since); h != nil {
			idle = append(idle, h)
		}
	}
	return idle
}
