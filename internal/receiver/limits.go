package receiver

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cis490/internal/episode"
	"cis490/internal/wire"
)

// Waits that refused senders are asked for.
const (
	busyRetry = time.Second
	fullRetry = 5 * time.Minute
)

// slots counts the uploads under way. A host has at most each of them, and while
// more than half are taken at most an equal share: others must find room.
type slots struct {
	all, each int

	mu     sync.Mutex // guards the fields below
	taken  int
	hosts  map[episode.Name]int
	wanted map[episode.Name]time.Time // by hosts that found none, and when
}

// stillWanted is how long a host that was refused has a share: it comes again
// within that.
const stillWanted = 20 * time.Second

// take returns the function that gives the place up, or a refusal.
func (s *slots) take(host episode.Name) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	code := wire.Code("")
	switch {
	case s.hosts[host] >= s.each:
		code = wire.HostBusy
	case s.taken >= s.all, 2*s.taken > s.all && s.hosts[host] >= s.share(host):
		code = wire.Busy
	}
	if s.hosts == nil {
		s.hosts, s.wanted = make(map[episode.Name]int), make(map[episode.Name]time.Time)
	}
	if code != "" {
		s.wanted[host] = time.Now()
		return nil, busy(code, "%d uploads are under way", s.taken)
	}
	delete(s.wanted, host)
	s.taken++
	s.hosts[host]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken--
		if s.hosts[host]--; s.hosts[host] == 0 {
			delete(s.hosts, host)
		}
	}, nil
}

// share returns the part of all that a host may have beside those that have some,
// or want some. The lock is held.
func (s *slots) share(host episode.Name) int {
	hosts := 1
	for other := range s.hosts {
		if other != host {
			hosts++
		}
	}
	for other, at := range s.wanted {
		switch {
		case time.Since(at) > stillWanted:
			delete(s.wanted, other)
		case other != host && s.hosts[other] == 0:
			hosts++
		}
	}
	return max(1, s.all/hosts)
}

// busy refuses for what others do, and asks to come again soon.
func busy(code wire.Code, format string, args ...any) *wire.Problem {
	p := wire.Refuse(code, format, args...)
	p.RetryAfter = busyRetry
	return p
}

// space promises the disk's free bytes above the floor to uploads before they
// come, so that several cannot fill it together.
type space struct {
	free func() (int64, error)
	min  int64

	mu       sync.Mutex
	promised int64 // guarded by mu; not written yet
}

// left returns what may still be promised.
func (s *space) left() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leftLocked()
}

func (s *space) leftLocked() (int64, error) {
	free, err := s.free()
	return free - s.promised - s.min, err
}

// reserve promises n bytes, or refuses.
func (s *space) reserve(n int64) (*reservation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := s.leftLocked()
	if err != nil {
		return nil, err
	}
	if n > left {
		return nil, full()
	}
	s.promised += n
	return &reservation{s, n}, nil
}

// reservation is what was promised to one upload.
type reservation struct {
	space *space
	left  int64
}

// used notes that n of the bytes are written: the file system counts them now.
func (r *reservation) used(n int64) {
	r.space.mu.Lock()
	defer r.space.mu.Unlock()
	r.space.promised -= n
	r.left -= n
}

func (r *reservation) release() { r.used(r.left) }

func isFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// keys is a lock a key: from the commit of an upload to its row.
type keys struct {
	mu   sync.Mutex // guards held
	held map[episode.Key]*keyLock
}

type keyLock struct {
	sync.Mutex
	users int // guarded by keys.mu
}

// lock waits for key and returns the function that gives it up.
func (k *keys) lock(key episode.Key) func() {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[episode.Key]*keyLock)
	}
	l := k.held[key]
	if l == nil {
		l = new(keyLock)
		k.held[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.held, key)
		}
	}
}

// Limits says what the receiver takes, for a ping.
func (r *Receiver) Limits() wire.Limits {
	return wire.Limits{
		MaxSize:        int64(r.cfg.Limits.ArchiveBytes),
		Uploads:        r.cfg.Limits.Uploads,
		UploadsPerHost: r.cfg.Limits.UploadsPerHost,
		UnfinishedAge:  r.cfg.Limits.UnfinishedAge.Std(),
	}
}

// Storage says how much the receiver may still take, for a ping.
func (r *Receiver) Storage(context.Context) (wire.Storage, error) {
	left, err := r.space.left()
	return wire.Storage{FreeBytes: max(left, 0), Accepting: left > 0}, err
}
