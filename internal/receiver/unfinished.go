package receiver

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// unfinished is an upload that was announced and has not ended. While it is open
// its Upload has no digest and no size.
type unfinished struct {
	wire.Upload
	id string

	// turn is held by the one request that goes on with the upload. It guards the
	// fields below.
	turn     chan struct{}
	ended    bool   // stored, or given up
	begun    bool   // there is a file in staging
	offset   int64  // of it is durable
	state    []byte // of the sha256 of that
	restored bool   // a former receiver began it

	mu        sync.Mutex  // guards the fields below
	touched   time.Time   // when a request last had the turn
	grew      time.Time   // when its last byte came, or it was announced
	waiting   int         // requests that want the turn
	interrupt func(error) // ends what has it; nil if that ends by itself
}

// take waits for the turn, which whoever has it is made to give up: its
// connection may be dead. It returns what gives the turn up, or [wire.NoUpload] if
// the upload has ended meanwhile.
func (u *unfinished) take(ctx context.Context, interrupt func(error)) (func(), error) {
	u.mu.Lock()
	u.waiting++
	if u.interrupt != nil {
		u.interrupt(superseded)
	}
	u.mu.Unlock()
	var err error
	select {
	case u.turn <- struct{}{}:
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
		<-u.turn
		return nil, noUpload
	}
	if u.touched, u.interrupt = time.Now(), interrupt; u.waiting > 0 && interrupt != nil {
		interrupt(superseded) // the latest wins
	}
	return u.give, nil
}

func (u *unfinished) give() {
	u.mu.Lock()
	u.touched, u.interrupt = time.Now(), nil
	u.mu.Unlock()
	<-u.turn
}

// further notes that so much of the upload is durable. The caller has the turn.
func (u *unfinished) further(offset int64, state []byte) {
	u.offset, u.state = offset, state
	u.mu.Lock()
	u.grew = time.Now()
	u.mu.Unlock()
}

var (
	superseded = wire.Refuse(wire.Superseded, "another request goes on with it")
	noUpload   = wire.Refuse(wire.NoUpload, "announce it again")
)

// open reports whether it is not known yet what the upload will be.
func (u *unfinished) open() bool { return u.Digest.IsZero() }

// progress is what a sender is told.
func (u *unfinished) progress() wire.Unfinished {
	told := wire.Unfinished{ID: u.id, Offset: u.offset, Length: u.Size}
	if u.open() {
		told.Length = -1
	}
	return told
}

// idle takes the turn of an upload of which nothing has come since a time.
func (u *unfinished) idle(since time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.waiting > 0 || u.grew.After(since) {
		return false
	}
	select {
	case u.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// uploads are the unfinished ones. What of them is on the disk is read from
// staging at the start; the rest is gone with the process, and announced again.
type uploads struct {
	each int // at most, of a host

	mu    sync.Mutex // guards the fields below
	ids   map[string]*unfinished
	same  map[wire.Upload]*unfinished
	count map[episode.Name]int
}

// unfinishedEach is how many uploads of a host may be unfinished, to one that may
// be under way: more are begun only where links break often.
const unfinishedEach = 2

func newUploads(perHost int) *uploads {
	return &uploads{
		each: unfinishedEach * perHost, ids: make(map[string]*unfinished),
		same: make(map[wire.Upload]*unfinished), count: make(map[episode.Name]int),
	}
}

// of returns the upload of a host with an id, or nil. To another host it is
// not there.
func (s *uploads) of(host episode.Name, id string) *unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.ids[id]
	if u == nil || u.Key.Host != host {
		return nil
	}
	return u
}

// find returns the unfinished upload of the same archive, or nil.
func (s *uploads) find(of wire.Upload) *unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.same[of]
}

// add returns the unfinished upload of an archive, a new one if there is none,
// or nil if the host has enough.
func (s *uploads) add(of wire.Upload) *unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.same[of]; u != nil {
		return u
	}
	if s.count[of.Key.Host] >= s.each {
		return nil
	}
	u := &unfinished{Upload: of, id: rand.Text(), turn: make(chan struct{}, 1)}
	u.touched = time.Now()
	u.grew = u.touched
	s.keep(u)
	return u
}

// keep notes an upload. The lock is held.
func (s *uploads) keep(u *unfinished) {
	s.ids[u.id], s.same[u.Upload] = u, u
	s.count[u.Key.Host]++
}

// become makes an open upload, whose turn the caller has, that of an archive, and it
// has ended then. If the archive has one already, as it may have since the caller
// looked, both stay.
func (s *uploads) become(open *unfinished, u wire.Upload) {
	known := &unfinished{
		Upload: u, id: open.id, turn: make(chan struct{}, 1),
		begun: open.begun, restored: open.restored, offset: open.offset, state: open.state,
		touched: time.Now(), grew: time.Now(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.same[u] != nil {
		return
	}
	s.take(open)
	s.keep(known)
}

// end takes an upload off the books. The caller has its turn.
func (s *uploads) end(u *unfinished) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(u)
}

// take takes an upload off the books. The lock is held.
func (s *uploads) take(u *unfinished) {
	u.ended = true
	delete(s.ids, u.id)
	delete(s.same, u.Upload)
	if s.count[u.Key.Host]--; s.count[u.Key.Host] == 0 {
		delete(s.count, u.Key.Host)
	}
}

// oldest returns the upload of a host with which nobody has gone on for longest,
// with its turn, or nil if all are under way.
func (s *uploads) oldest(host episode.Name) *unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *unfinished
	for _, u := range s.ids {
		if u.Key.Host != host || !u.idle(time.Now()) {
			continue
		}
		if found != nil && !u.touched.Before(found.touched) {
			<-u.turn
			continue
		}
		if found != nil {
			<-found.turn
		}
		found = u
	}
	return found
}

// idle returns those of which nothing has come since a time, with their turns.
func (s *uploads) idle(since time.Time) []*unfinished {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*unfinished
	for _, u := range s.ids {
		if u.idle(since) {
			found = append(found, u)
		}
	}
	return found
}
